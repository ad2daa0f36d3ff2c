"""Bad ticks, and jumps of the price that no trade made: splits, and futures that were rolled to the next contract."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from training.domains.market.compiling import compiled

TICK_SIGMAS = 20.0  # a bad tick is this far away,
TICK_BARS = 3  # and the price is back within so many bars,
TICK_BACK = 0.25  # up to this share of the excursion
NORMAL = 1.4826  # median absolute deviation -> standard deviation of a normal distribution
DAY = 86_400_000_000_000
SPLITS = (2.0, 3.0, 5.0, 10.0)
SPLIT_NEAR = 0.03  # relative distance to such a ratio
PAUSE = 30 * 60_000_000_000  # a longer time between two bars is a pause of the market
ROLL_SIGMAS = 15.0  # of the gaps over pauses
ROLL_LEAST = 0.003  # relative; a smaller gap is not worth a question
ROLL_PAUSES = 20  # fewer pauses tell nothing about how large gaps are


@dataclass(frozen=True)
class Jump:
    index: int  # of the first bar after it
    about: str


def bad_ticks(time: np.ndarray, high: np.ndarray, low: np.ndarray, close: np.ndarray) -> np.ndarray:
    """Which bars hold a bad tick: bool [n]. Its high or low is more than TICK_SIGMAS robust standard deviations of the
    day's one-minute returns away from the close before it, and the close is back within TICK_BARS bars."""
    return _bad_ticks(high, low, close, _sigmas(time, close))


def _sigmas(time: np.ndarray, close: np.ndarray) -> np.ndarray:
    """Robust standard deviation of one-minute returns on the day of each bar, at least half of the file's."""
    moves = np.abs(np.diff(np.log(close), prepend=np.log(close[0])))
    moved = moves > 0
    if not moved.any():
        return np.full(len(close), np.inf)
    floor = NORMAL * np.median(moves[moved]) / 2
    out = np.full(len(close), floor)
    day = time // DAY
    edges = np.flatnonzero(np.diff(day, prepend=day[0] - 1, append=day[-1] + 1))
    for begin, end in pairwise(edges):
        of_day = moves[begin:end][moved[begin:end]]
        if len(of_day):
            out[begin:end] = max(floor, NORMAL * np.median(of_day))
    return out


@compiled
def _bad_ticks(high, low, close, sigma):
    count = len(close)
    bad = np.zeros(count, np.bool_)
    before = close[0]
    for i in range(1, count):
        up, down = np.log(high[i] / before), np.log(before / low[i])
        away = max(up, down)
        if away > TICK_SIGMAS * sigma[i]:
            for j in range(i, min(count, i + TICK_BARS + 1)):
                if abs(np.log(close[j] / before)) <= TICK_BACK * away:
                    bad[i] = True
                    break
        if not bad[i]:
            before = close[i]
    return bad


def usual_gap(time: np.ndarray, first: np.ndarray, close: np.ndarray, bad: np.ndarray) -> float | None:
    """Robust standard deviation of the log returns over pauses of the market; None where there are too few."""
    good = np.flatnonzero(~bad)
    pauses = np.flatnonzero(np.diff(time[good]) > PAUSE)
    if len(pauses) < ROLL_PAUSES:
        return None
    gaps = np.log(first[good[pauses + 1]] / close[good[pauses]])
    return float(NORMAL * np.median(np.abs(gaps)))


def jumps(
    time: np.ndarray, first: np.ndarray, close: np.ndarray, bad: np.ndarray, usual: float | None
) -> list[Jump]:
    """Jumps like a split: from one close to the next open by a factor near 2, 3, 5, 10 or its inverse. Jumps like a
    roll: over a pause of the market, more than ROLL_SIGMAS times the `usual` gap; None: none is known."""
    good = np.flatnonzero(~bad)
    ratio = first[good[1:]] / close[good[:-1]]
    size = np.maximum(ratio, 1 / ratio)
    found = {}
    for factor in SPLITS:
        for place in np.flatnonzero(np.abs(size / factor - 1) < SPLIT_NEAR).tolist():
            what = "multiplied" if ratio[place] > 1 else "divided"
            found[int(good[place + 1])] = f"the price is {what} by {factor:g}"
    if usual is not None:
        pauses = np.flatnonzero(np.diff(time[good]) > PAUSE)
        gaps = np.log(ratio[pauses])
        for place in np.flatnonzero(np.abs(gaps) > max(ROLL_SIGMAS * usual, ROLL_LEAST)).tolist():
            index = int(good[pauses[place] + 1])
            found.setdefault(index, f"{np.expm1(gaps[place]):+.2%} over a pause, usual is {usual:.2%}")
    return [Jump(index, about) for index, about in sorted(found.items())]
