"""Monotone maps from times of a score to times of its recording, and the simplest one that fits measured onsets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Seconds that a map must correct to be used: by less, a slow attack and a late note cannot be distinguished.
LEAST = 0.1
_STRAIGHT = 0.06  # seconds by which onsets may depart from a straight line before a map is bent
_STEADY = 0.05  # seconds that a rate must correct over the song before it is used
_SHARE = 0.9  # of the onsets that must be within these limits
_KNOT = 0.025  # seconds between a bent map and the smoothed onsets
_SMOOTH = 1.2  # seconds to either side over which onsets are smoothed
_SHORTEST = 0.001  # seconds of a note


@dataclass(frozen=True)
class TimeMap:
    """Knots (score seconds, recording seconds), both ascending; beyond them the mean rate continues.

    kind: "identity" (no knots), "offset", "rate" (offset and rate), or "bent" (piecewise linear).
    """

    kind: str
    knots: np.ndarray  # float64 [k, 2]

    @staticmethod
    def identity() -> TimeMap:
        return TimeMap("identity", np.zeros((0, 2)))

    def __call__(self, seconds: np.ndarray) -> np.ndarray:
        return mapped(self.knots, seconds)


def mapped(knots: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Times of the score -> times of the recording. `knots` [k, 2] as in TimeMap; [0, 2] for the identity."""
    seconds = np.asarray(seconds, np.float64)
    if not len(knots):
        return seconds
    x, y = knots[:, 0], knots[:, 1]
    out = np.interp(seconds, x, y)
    rate = 1.0 if len(knots) == 1 else (y[-1] - y[0]) / (x[-1] - x[0])
    out = np.where(seconds < x[0], y[0] + (seconds - x[0]) * rate, out)
    return np.where(seconds > x[-1], y[-1] + (seconds - x[-1]) * rate, out)


def mapped_notes(knots: np.ndarray, notes: np.ndarray) -> np.ndarray:
    """A NOTE array in times of the recording: the same array for the identity; without notes that end before it
    begins."""
    if not len(knots):
        return notes
    out = notes.copy()
    out["onset"] = mapped(knots, notes["onset"])
    out["duration"] = np.maximum(mapped(knots, notes["onset"] + notes["duration"]) - out["onset"], _SHORTEST)
    return out[out["onset"] + out["duration"] > 0]


def candidates(score: np.ndarray, heard: np.ndarray) -> list[TimeMap]:
    """Maps near the times `heard` of onsets at `score`, the simplest first; float64 [n] each, n >= 2, `score`
    ascending. Empty where the
    identity is as near as can be measured."""
    late = smoothed(score, heard - score)
    if _near(late, LEAST):
        return []
    slope, base = _line(score, late)
    if abs(slope) * float(score[-1] - score[0]) < _STEADY:
        straight = TimeMap("offset", np.round([[0.0, float(np.median(late))]], 3))
    else:
        ends = np.array([0.0, score[-1]])
        straight = TimeMap("rate", np.round(np.stack([ends, ends + base + slope * ends], axis=1), 3))
    found = [straight]
    if not _near(late - base - slope * score, _STRAIGHT):
        found.append(TimeMap("bent", _bent(score, score + late)))
    rising = [by for by in found if len(by.knots) == 1 or (np.diff(by.knots, axis=0) > 0).all()]
    return [by for by in rising if not _near(by(score) - score, LEAST)]


def smoothed(at: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Robust local lines through `values`: at each point, fitted to those within _SMOOTH seconds and its neighbours."""
    out = np.empty(len(at))
    first = np.minimum(np.searchsorted(at, at - _SMOOTH), np.maximum(np.arange(len(at)) - 1, 0))
    last = np.maximum(np.searchsorted(at, at + _SMOOTH, "right"), np.minimum(np.arange(len(at)) + 2, len(at)))
    for index, (begin, end) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
        base = _line(at[begin:end] - at[index], values[begin:end])[1]
        out[index] = base
    return out


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """(slope, value at 0) of a line with small absolute residuals: weighted least squares, repeated."""
    weights = np.ones(len(x))
    slope, base = 0.0, float(np.median(y))
    for _ in range(12):
        total = weights.sum()
        mean_x, mean_y = (weights * x).sum() / total, (weights * y).sum() / total
        spread = (weights * (x - mean_x) ** 2).sum()
        slope = float((weights * (x - mean_x) * (y - mean_y)).sum() / spread) if spread > 1e-9 else 0.0
        base = float(mean_y - slope * mean_x)
        weights = 1 / np.maximum(np.abs(y - base - slope * x), 0.005)
    return slope, base


def _near(values: np.ndarray, limit: float) -> bool:
    return bool(np.quantile(np.abs(values), _SHARE) <= limit)


def _bent(score: np.ndarray, heard: np.ndarray) -> np.ndarray:
    """Knots of a strictly monotone piecewise-linear map within _KNOT of the points (Douglas and Peucker)."""
    heard = np.maximum.accumulate(heard)
    kept = np.zeros(len(score), bool)
    kept[[0, -1]] = True
    parts = [(0, len(score) - 1)]
    while parts:
        begin, end = parts.pop()
        inside = slice(begin + 1, end)
        line = np.interp(score[inside], score[[begin, end]], heard[[begin, end]])
        apart = np.abs(heard[inside] - line)
        if len(apart) and apart.max() > _KNOT:
            middle = begin + 1 + int(apart.argmax())
            kept[middle] = True
            parts += [(begin, middle), (middle, end)]
    knots = np.round(np.stack([score[kept], heard[kept]], axis=1), 3)
    rising = np.concatenate([[True], (np.diff(knots, axis=0) > 0.001).all(axis=1)])
    return knots[rising]
