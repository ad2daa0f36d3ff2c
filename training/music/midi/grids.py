"""Ticks to seconds, and ticks to bars: the tempo map and the metre map of a MIDI file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from training.music.midi.score import MAX_BARS

Finder = Callable[[np.ndarray], np.ndarray]

TAIL_BARS = 9  # kept after the bar of the last onset, so that its notes may last 8 bars
SLIVER = 1 / 64  # a metre change this little after a bar line (a rounding of the writing program) is on it


@dataclass(frozen=True)
class TempoMap:
    """Piecewise constant tempo. `ticks` float64 [k] from 0, ascending; `seconds` at each; `rate` seconds a tick from
    each on."""

    ticks: np.ndarray
    seconds: np.ndarray
    rate: np.ndarray

    @classmethod
    def of(cls, ticks: np.ndarray, microseconds: np.ndarray, per_quarter: float) -> TempoMap:
        """From tempo events in file order within a tick (the last one there counts), ascending; `microseconds` a
        quarter note, > 0. Before the first, 120 quarters a minute."""
        ticks = np.concatenate([[0.0], ticks.astype(np.float64)])
        rate = np.concatenate([[500_000.0], microseconds.astype(np.float64)]) * (1e-6 / per_quarter)
        last = np.append(ticks[1:] > ticks[:-1], True)
        ticks, rate = ticks[last], rate[last]
        seconds = np.concatenate([[0.0], np.cumsum(np.diff(ticks) * rate[:-1])])
        return cls(ticks, seconds, rate)

    def at(self, ticks: np.ndarray) -> np.ndarray:
        """Seconds from the start at `ticks` >= 0."""
        if len(self.ticks) == 1:
            return ticks * self.rate[0]
        segment = np.searchsorted(self.ticks, ticks, "right") - 1
        return self.seconds[segment] + (ticks - self.ticks[segment]) * self.rate[segment]


def bar_lines(
    ticks: np.ndarray, numerators: np.ndarray, denominators: np.ndarray, per_quarter: float, last_onset: float
) -> np.ndarray:
    """The bar lines of a piece in ticks, float64, ascending from 0; one more than there are bars.

    Metre events (file order within a tick, ascending; 4/4 before the first) each start a bar, cutting the running one
    short. The lines reach TAIL_BARS past the bar of `last_onset`. Raises ValueError if more than MAX_BARS bars are
    needed up to it.
    """
    starts, lengths = [0.0], [4.0 * per_quarter]
    for tick, numerator, denominator in zip(ticks.tolist(), numerators.tolist(), denominators.tolist(), strict=True):
        length = 4.0 * per_quarter * numerator / denominator
        if tick - starts[-1] >= SLIVER * lengths[-1] and tick > 0:
            starts.append(float(tick))
            lengths.append(length)
        else:
            lengths[-1] = length
    pieces, bars, tail = [], 0, TAIL_BARS
    for number, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        end = starts[number + 1] if number + 1 < len(starts) else np.inf
        until_onset = int((last_onset - start) // length) + 1 if last_onset >= start else 0
        count = until_onset + tail
        if end < np.inf:
            count = min(count, max(1, int(np.ceil((end - start) / length - SLIVER))))
        until_onset = min(until_onset, count)
        bars += until_onset
        if bars > MAX_BARS:
            raise ValueError(f"more than {MAX_BARS:,} bars: the last note starts at tick {last_onset:,.0f}")
        tail -= count - until_onset
        pieces.append(start + length * np.arange(count))
        if not tail:
            pieces.append([min(end, start + length * count)])
            break
    return np.concatenate(pieces)


def bars_of(lines: np.ndarray, width: np.ndarray) -> tuple[Finder, Finder]:
    """Two functions from ticks to bars, for ticks between the first line and the last: the bar that a tick is in, and
    the bar that ends at it or holds it. `width`: of each bar, in ticks.

    In a piece of one metre a division does what a search would: lines and ticks are far below 2^53, so it is exact.
    """
    if (width == width[0]).all():
        return (
            lambda ticks: (ticks / width[0]).astype(np.int64),
            lambda ticks: np.ceil(ticks / width[0]).astype(np.int64) - 1,
        )
    return (
        lambda ticks: np.searchsorted(lines, ticks, "right") - 1,
        lambda ticks: np.searchsorted(lines, ticks, "left") - 1,
    )
