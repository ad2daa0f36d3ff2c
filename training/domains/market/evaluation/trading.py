"""Trades that follow the predictions: one unit, one position at a time, after costs.

At a decision without an open position, a model buys if its expected return after costs is above 0, or sells. The trade
ends where the label ends: at a barrier, or when the time is over. A barrier in the direction of the trade is filled at
its price; the other one, a stop, at the worse of the barrier and the open. Results are in ATRs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.domains.market.compiling import compiled
from training.domains.market.decisions import Decisions

DRAWS = 200  # of random entries


@dataclass(frozen=True, eq=False)
class Trades:
    """`index`: int64 [m], of the decisions. `side`: int8 [m], 1 bought or -1 sold. `result`: float64 [m], in ATRs after
    costs. `daily`: float64 [days], the sum of each trading day, also of those without a trade."""

    index: np.ndarray
    side: np.ndarray
    result: np.ndarray
    daily: np.ndarray


def sides(proba: np.ndarray, decisions: Decisions) -> np.ndarray:
    """int8 [n]: 1 if buying has a positive expected return after costs, -1 if selling has, 0 if neither."""
    up, down = decisions.up.astype(np.float64), decisions.down.astype(np.float64)
    expected = up * proba[:, 2] - down * proba[:, 0]
    return (np.sign(expected) * (np.abs(expected) > decisions.cost)).astype(np.int8)


def results(decisions: Decisions, side: np.ndarray) -> np.ndarray:
    """What each decision would return on a side, in ATRs after costs: float64 [n]."""
    bought = np.minimum(decisions.gain.astype(np.float64), decisions.up)
    sold = -np.maximum(decisions.gain_sold.astype(np.float64), -decisions.down)
    return np.where(side > 0, bought, sold) - decisions.cost


def trade(decisions: Decisions, side: np.ndarray) -> Trades:
    """The trades of a strategy that wants `side` at each decision."""
    index = _without_overlap(decisions.decided, decisions.ends, side)
    result = results(decisions, side)[index]
    days, of_day = np.unique(decisions.day, return_inverse=True)
    return Trades(index, side[index], result, np.bincount(of_day[index], result, len(days)))


@compiled
def _without_overlap(decided, ends, side):
    """Decisions that are traded: the next one when the last trade has ended."""
    out = np.empty(len(side), np.int64)
    count, free = 0, np.iinfo(np.int64).min
    for i in range(len(side)):
        if side[i] != 0 and decided[i] >= free:
            out[count] = i
            count += 1
            free = ends[i]
    return out[:count]


def random_entries(decisions: Decisions, trades: Trades, seed: int) -> np.ndarray:
    """Total results of as many trades at random times with the same mixture of sides: float64 [DRAWS]."""
    random = np.random.default_rng([seed, 0x4A4D])
    out = np.zeros(DRAWS)
    if not len(trades.index):
        return out
    wanted = len(trades.index)
    for draw in range(DRAWS):
        side = np.zeros(len(decisions), np.int8)
        # overlapping ones are dropped, so several times as many are drawn, and the first `wanted` that remain count
        chosen = random.choice(len(decisions), min(len(decisions), 4 * wanted), replace=False)
        side[chosen] = random.choice(trades.side, len(chosen))
        index = _without_overlap(decisions.decided, decisions.ends, side)
        if len(index) > wanted:
            index = np.sort(random.choice(index, wanted, replace=False))
        # fewer remain where trades follow each other closely: scaled to the same number
        out[draw] = results(decisions, side)[index].sum() * wanted / max(len(index), 1)
    return out


def drawdown(daily: np.ndarray) -> float:
    """The largest loss from a peak of the cumulative result, as a number of 0 or more."""
    path = np.concatenate([[0.0], np.cumsum(daily)])
    return float((np.maximum.accumulate(path) - path).max())
