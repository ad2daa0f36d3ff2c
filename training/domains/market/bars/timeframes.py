"""Bars of longer timeframes, made of one-minute bars and stamped with the time at which they are complete.

A bar belongs to a fixed interval of time, whatever the file. The first bar of a segment is left out if the file may
begin within its interval, and the last if the file may end within it. So a bar is the same in every file that has it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.domains.market.bars.cleaning import Minutes
from training.domains.market.bars.sessions import DAY_MINUTES
from training.domains.market.bars.times import MINUTE
from training.domains.market.compiling import compiled

BASE = "m5"
#: Timeframe -> minutes of a bar.
TIMEFRAMES = {"m5": 5, "m15": 15, "m30": 30, "h1": 60, "h4": 240, "d1": DAY_MINUTES}


@dataclass(frozen=True, eq=False)
class Bars:
    """Bars of one timeframe, ascending. `values`: float64 [5, n]: open, high, low, close, volume."""

    complete: np.ndarray  # int64 [n]: nanoseconds UTC at which a bar is complete
    values: np.ndarray
    segment: np.ndarray  # int32 [n]
    first: np.ndarray  # int64 [n]: index of its first minute
    last: np.ndarray  # int64 [n]: index after its last minute

    def __len__(self) -> int:
        return len(self.complete)


def bars_of(minutes: Minutes, timeframe: str) -> Bars:
    """The complete bars of a timeframe."""
    width = TIMEFRAMES[timeframe]
    shift = minutes.session.day_start if width == DAY_MINUTES else 0
    minute = minutes.time // MINUTE - shift
    interval = minute // width
    change = (np.diff(interval) != 0) | (np.diff(minutes.segment) != 0)
    first = np.concatenate([[0], np.flatnonzero(change) + 1])
    last = np.concatenate([first[1:], [len(minute)]])
    begin = interval[first] * width
    # A segment may begin, or the file end, within an interval: its bar would miss minutes that were traded.
    starts = np.concatenate([[True], np.diff(minutes.segment[first]) != 0])
    ends = np.concatenate([starts[1:], [True]])
    keep = ~(starts & (minute[first] != begin)) & ~(ends & (minute[last - 1] != begin + width - 1))
    values = _aggregated(
        minutes.open, minutes.high, minutes.low, minutes.close, minutes.volume, first[keep], last[keep]
    )
    complete = (begin[keep] + width + shift) * MINUTE
    return Bars(complete, values, minutes.segment[first[keep]], first[keep], last[keep])


@compiled
def _aggregated(first_price, high, low, close, volume, begins, ends):
    out = np.empty((5, len(begins)), np.float64)
    for i in range(len(begins)):
        begin, end = begins[i], ends[i]
        top, bottom, total = high[begin], low[begin], 0.0
        for j in range(begin, end):
            top, bottom = max(top, high[j]), min(bottom, low[j])
            total += volume[j]
        out[0, i], out[1, i], out[2, i], out[3, i], out[4, i] = first_price[begin], top, bottom, close[end - 1], total
    return out


def latest(bars: Bars, decided: np.ndarray, segment: np.ndarray) -> np.ndarray:
    """For each decision, the index of the last bar of its segment that is complete; -1 if there is none: int64 [n].

    `decided`: int64 [n], nanoseconds UTC, ascending. A bar that becomes complete at the decision counts.
    """
    index = np.searchsorted(bars.complete, decided, side="right") - 1
    known = index >= 0
    known[known] = bars.segment[index[known]] == segment[known]
    return np.where(known, index, -1)


def stretches(minutes: Minutes, bars: Bars, most_missing: int) -> np.ndarray:
    """The number of the contiguous stretch that each bar lies in: int32 [n]. A stretch ends at a split or roll, and
    where more than `most_missing` minutes of the session are missing."""
    broken = minutes.session.missing(minutes.time) > most_missing
    broken |= np.concatenate([[False], np.diff(minutes.segment) != 0])
    number = np.cumsum(broken)
    # a gap within a bar separates it from the one before, and the next one from it
    begin, end = number[bars.first], number[bars.last - 1]
    if not len(begin):
        return np.zeros(0, np.int32)
    inside = begin != end
    breaks = np.concatenate([[False], begin[1:] != end[:-1]]) | inside
    breaks[1:] |= inside[:-1]
    return np.cumsum(breaks).astype(np.int32)
