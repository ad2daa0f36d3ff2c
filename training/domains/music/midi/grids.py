"""Ticks to seconds, and ticks to bars: the tempo map and the metre map of a MIDI file."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from training.domains.music.midi.score import MAX_BARS

#: Seconds of the bars that tokens represent, with half a step of their tempo on both sides.
SHORTEST_BAR, LONGEST_BAR = 0.996, 6.024
#: Seconds. In a bar whose changes of tempo would move a note by more than this, a position is a share of its seconds.
BENT = 0.125
TAIL_BARS = 9  # kept after the bar of the last onset, so that its notes may last 8 bars
SLIVER = 1 / 64  # of a bar: a metre change this close after a bar line (rounding by the writing program) is on the line


@dataclass(frozen=True)
class TempoMap:
    """Piecewise constant tempo. `ticks` float64 [k] from 0, ascending; `seconds` at each; `rate`: seconds per tick from
    each on."""

    ticks: np.ndarray
    seconds: np.ndarray
    rate: np.ndarray

    @classmethod
    def of(cls, ticks: np.ndarray, microseconds: np.ndarray, per_quarter: float) -> TempoMap:
        """From tempo events, ascending in ticks and in file order within a tick, where the last one is used.
        `microseconds` per quarter note, > 0. Before the first event, 120 quarters a minute."""
        per_tick = 1e-6 / per_quarter
        if len(ticks) == 0 or (len(ticks) == 1 and ticks[0] == 0):  # one tempo throughout, as in most pieces
            quarter = float(microseconds[0]) if len(ticks) else 500_000.0
            return cls(np.zeros(1), np.zeros(1), np.array([quarter * per_tick]))
        count = len(ticks) + 1
        at, rate, last = np.zeros(count), np.full(count, 500_000.0), np.ones(count, bool)
        at[1:], rate[1:] = ticks, microseconds
        rate *= per_tick
        np.greater(at[1:], at[:-1], out=last[:-1])
        at, rate = at[last], rate[last]
        seconds = np.zeros(len(at))
        np.cumsum((at[1:] - at[:-1]) * rate[:-1], out=seconds[1:])
        return cls(at, seconds, rate)

    def at(self, ticks: np.ndarray) -> np.ndarray:
        """Seconds from the start at `ticks` >= 0."""
        if len(self.ticks) == 1:
            return ticks * self.rate[0]
        segment = np.searchsorted(self.ticks, ticks, "right") - 1
        return self.seconds[segment] + (ticks - self.ticks[segment]) * self.rate[segment]

    def ticks_at(self, seconds: np.ndarray) -> np.ndarray:
        """The inverse of `at`."""
        segment = np.searchsorted(self.seconds, seconds, "right") - 1
        return self.ticks[segment] + (seconds - self.seconds[segment]) / self.rate[segment]

    def slowest(self, begin: float, end: float) -> float:
        """The most seconds per tick from tick `begin` to before tick `end`."""
        first, last = np.searchsorted(self.ticks, [begin, end], "right")
        return float(self.rate[first - 1 : max(last, first)].max())


Metre = tuple[np.ndarray, np.ndarray, np.ndarray]  # ticks, numerators, denominators: [n] each


def bar_lines(metre: Metre, per_quarter: float, last_onset: float, tempo: TempoMap) -> tuple[np.ndarray, int]:
    """The bar lines of a piece in ticks, float64, ascending from 0: one more than the number of bars; and how many of
    the bars up to `last_onset` are not as written.

    Each event of `metre` starts a bar and ends the current one (events ascend in ticks, in file order in a tick; 4/4
    before the first). Bars shorter than SHORTEST_BAR are joined with those after them, longer ones than LONGEST_BAR are
    divided, so that every bar up to `last_onset` lies between the two. The lines reach TAIL_BARS past its bar. Raises
    ValueError if more than MAX_BARS bars are needed up to it.
    """
    lines, joined = _written(metre, per_quarter, last_onset, tempo)
    seconds = tempo.at(lines[: len(joined) + 1])
    lengths = seconds[1:] - seconds[:-1]
    if lengths.min() >= SHORTEST_BAR and lengths.max() <= LONGEST_BAR:
        return lines, int(joined.sum())
    fitted, changed = _fitted(lines, joined, last_onset, tempo)
    if len(fitted) - TAIL_BARS - 1 > MAX_BARS:
        raise ValueError(f"more than {MAX_BARS:,} bars: the last note starts at tick {last_onset:,.0f}")
    return fitted, changed


def _written(metre: Metre, per_quarter: float, last_onset: float, tempo: TempoMap) -> tuple[np.ndarray, np.ndarray]:
    """The bar lines as written, and which of the bars up to `last_onset` are several: where all bars of a metre are too
    short, they are joined here, because there may be millions."""
    starts, lengths = [0.0], [4.0 * per_quarter]
    for tick, numerator, denominator in zip(*(column.tolist() for column in metre), strict=True):
        length = 4.0 * per_quarter * numerator / denominator
        if tick - starts[-1] >= SLIVER * lengths[-1] and tick > 0:
            starts.append(float(tick))
            lengths.append(length)
        else:
            lengths[-1] = length
    pieces, joined, bars, tail = [], [], 0, TAIL_BARS
    slowest = tempo.rate.max()
    for number, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        end = starts[number + 1] if number + 1 < len(starts) else np.inf
        too_short = length * slowest < SHORTEST_BAR
        if too_short:
            rate = tempo.slowest(start, min(end, last_onset + 1))
            while length * rate < SHORTEST_BAR:
                length *= 2
        until_onset = int((last_onset - start) // length) + 1 if last_onset >= start else 0
        count = until_onset + tail
        if end < np.inf:
            count = min(count, max(1, int(np.ceil((end - start) / length - SLIVER))))
        until_onset = min(until_onset, count)
        bars += until_onset
        if bars > MAX_BARS:
            raise ValueError(f"more than {MAX_BARS:,} bars: the last note starts at tick {last_onset:,.0f}")
        joined += [too_short] * until_onset
        tail -= count - until_onset
        pieces.append(start + length * np.arange(count))
        if not tail:
            pieces.append([min(end, start + length * count)])
            break
    return np.concatenate(pieces), np.array(joined)


def _fitted(lines: np.ndarray, joined: np.ndarray, last_onset: float, tempo: TempoMap) -> tuple[np.ndarray, int]:
    """The bars of `lines`, joined and divided so that each has a length that tokens represent; and how many of those up
    to `last_onset` are not as written."""
    seconds, ticks = tempo.at(lines).tolist(), lines.tolist()
    out, begin = ticks[:1], 0
    changed: list[int] = []  # the bars, by number
    for end in range(1, len(ticks)):
        length = seconds[end] - seconds[begin]
        if length < SHORTEST_BAR:
            continue
        new = ticks[end : end + 1] if length <= LONGEST_BAR else _divided(ticks[begin], ticks[end], tempo)
        if len(new) > 1 or end - begin > 1 or joined[min(end, len(joined)) - 1]:
            changed += range(len(out) - 1, len(out) - 1 + len(new))
        out += new
        begin = end
        if len(out) > 2 + TAIL_BARS and out[-1 - TAIL_BARS] > last_onset:
            break
    if out[-1] <= last_onset or len(out) == 1:  # what is left is shorter than a bar
        changed.append(len(out) - 1)
        out.append(float(tempo.ticks_at(np.array([seconds[begin] + 1.0]))[0]))
    last_bar = bisect_right(out, last_onset) - 1
    more = last_bar + 1 + TAIL_BARS - (len(out) - 1)
    if more > 0:
        out += (out[-1] + (out[-1] - out[-2]) * np.arange(1, more + 1)).tolist()
    return np.array(out[: last_bar + TAIL_BARS + 2]), bisect_right(changed, last_bar)


def _divided(begin: float, end: float, tempo: TempoMap) -> list[float]:
    """The bar lines after `begin` that divide a long bar: into 2, 4, 8 ... equal parts, or into parts of equal seconds
    where its tempo changes so much that the parts would not fit."""
    first, last = tempo.at(np.array([begin, end]))
    parts = 2
    while last - first > parts * LONGEST_BAR:
        parts *= 2
    lines = begin + (end - begin) / parts * np.arange(1, parts + 1)
    lengths = np.diff(tempo.at(lines), prepend=first)
    if lengths.min() < SHORTEST_BAR or lengths.max() > LONGEST_BAR:
        lines = tempo.ticks_at(first + (last - first) / parts * np.arange(1, parts + 1))
    lines[-1] = end
    return lines.tolist()


@dataclass(frozen=True)
class Bars:
    """Bars in ticks: `lines` as from `bar_lines`, `width` of each bar, float64.

    In a piece with one metre, division replaces the search; lines and ticks are far below 2^53, so it is exact.
    """

    lines: np.ndarray
    width: np.ndarray
    even: bool  # all of one width, and every line a multiple of it

    @classmethod
    def of(cls, lines: np.ndarray) -> Bars:
        width = lines[1:] - lines[:-1]
        even = (width == width[0]).all() and (lines == width[0] * np.arange(len(lines))).all()
        return cls(lines, width, bool(even))

    def holding(self, ticks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The bar that contains each of `ticks` (float64, from the first line on), and the position in it: [0, 1)."""
        if self.even:
            width = self.width[0]
            bar = ticks / width
            np.floor(bar, out=bar)
            return _place(ticks, bar, width)
        bar = np.searchsorted(self.lines, ticks, "right") - 1
        return bar, (ticks - self.lines[bar]) / self.width[bar]

    def ending(self, ticks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The bar that contains each of `ticks` (float64, up to the last line) or ends there, and where: (0, 1]."""
        if self.even:
            width = self.width[0]
            bar = ticks / width
            np.ceil(bar, out=bar)
            bar -= 1
            return _place(ticks, bar, width)
        bar = np.searchsorted(self.lines, ticks, "left") - 1
        return bar, (ticks - self.lines[bar]) / self.width[bar]


def _place(ticks: np.ndarray, bar: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    inside = bar * -width
    inside += ticks
    inside /= width
    return bar, inside
