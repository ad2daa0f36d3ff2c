"""The triple barrier (Lopez de Prado 2018, section 3.4), with the order of touches taken from one-minute bars.

A decision is made at the completion of a base bar and executed at the next open. The label is the barrier that the
price touches first: up (1 + cost) or down, or neither within the time limit. If one minute touches both, it is the
lower one: a backtest should not profit from what the data does not show. For the same reason a sale then ends at the
upper one. Minutes with a bad tick neither fill an order nor touch a barrier. A label ends before a split, a roll, or a
gap in the session, at the last price.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.domains.market.bars.cleaning import Minutes
from training.domains.market.bars.sessions import MOST_MISSING
from training.domains.market.bars.timeframes import Bars, stretches
from training.domains.market.bars.times import MINUTE
from training.domains.market.compiling import compiled
from training.domains.market.labels.costs import Barriers

DOWN, FLAT, UP = 0, 1, 2


@dataclass(frozen=True, eq=False)
class Labels:
    """What happened after decisions; columns as in `decisions.Decisions`."""

    kept: np.ndarray  # int64 [M]: which decisions have a label, by index
    label: np.ndarray  # int8 [M], and so the others
    entered: np.ndarray  # int64
    ends: np.ndarray  # int64
    gain: np.ndarray  # float32, in ATRs
    gain_sold: np.ndarray  # float32, in ATRs
    weight: np.ndarray  # float32


def label(
    minutes: Minutes, base: Bars, bar: np.ndarray, atr: np.ndarray, cost: np.ndarray, barriers: Barriers
) -> Labels:
    """Label decisions.

    Args:
        bar: int64 [N], the base bar at whose completion each decision is made, ascending.
        atr: float64 [N], average true range at the decision, in units of the price.
        cost: float64 [N], of the round trip, in ATRs.

    Left out are decisions less than `barriers.bars` before the end of the file, whatever their label would be, and
    those without a price to enter at.
    """
    run = stretches(minutes, base, MOST_MISSING)
    possible = np.flatnonzero(bar + barriers.bars < len(base))
    found = _walk(
        minutes.open, minutes.high, minutes.low, minutes.close, minutes.bad, base.first, base.last, run,
        bar[possible], atr[possible], barriers.up + cost[possible], barriers.down, barriers.bars,
    )  # fmt: skip
    codes, entries, exits, prices, sold, last = found
    kept = codes >= 0
    index = possible[kept]
    gain, gain_sold = prices[kept] / atr[index], sold[kept] / atr[index]
    entered = minutes.time[entries[kept]]
    ends = minutes.time[exits[kept]] + MINUTE
    weight = uniqueness(bar[index] + 1, last[kept], len(base))
    floats = (of.astype(np.float32) for of in (gain, gain_sold, weight))
    return Labels(index, codes[kept], entered, ends, *floats)


@compiled
def _walk(first, high, low, close, bad, begins, ends, run, bars, atr, up, down, limit):
    """Label (-1: none), entry minute, exit minute, price change, that of a sale, and last base bar of each decision."""
    count = len(bars)
    codes = np.full(count, -1, np.int8)
    entries, exits, last = np.zeros(count, np.int64), np.zeros(count, np.int64), np.zeros(count, np.int64)
    change, sold = np.zeros(count, np.float64), np.zeros(count, np.float64)
    for i in range(count):
        bar = bars[i]
        entry, done = -1, False
        price, upper, lower = 0.0, 0.0, 0.0
        for b in range(bar + 1, bar + limit + 1):
            if done or run[b] != run[bar]:
                break
            for j in range(begins[b], ends[b]):
                if bad[j]:
                    continue
                if entry < 0:
                    entry, price = j, first[j]
                    upper, lower = price + up[i] * atr[i], price - down * atr[i]
                exits[i], last[i] = j, b
                if low[j] <= lower:
                    codes[i], change[i], done = DOWN, min(first[j], lower) - price, True
                elif high[j] >= upper:
                    codes[i], change[i], done = UP, max(first[j], upper) - price, True
                else:
                    change[i] = close[j] - price
                sold[i] = max(first[j], upper) - price if high[j] >= upper else change[i]
                if done:
                    break
        if entry >= 0:
            entries[i] = entry
            if not done:
                codes[i] = FLAT
    return codes, entries, exits, change, sold, last


def uniqueness(first: np.ndarray, last: np.ndarray, count: int) -> np.ndarray:
    """Average uniqueness of labels that span base bars `first` to `last` (int64 [n], both included): float64 [n].

    The mean, over a label's bars, of 1 / the number of labels that span the bar (Lopez de Prado 2018, section 4.4).
    `count`: of base bars.
    """
    changes = np.bincount(first, minlength=count + 1) - np.bincount(last + 1, minlength=count + 1)
    return _mean_inverse(np.cumsum(changes[:count]), first, last)


@compiled
def _mean_inverse(spans, first, last):
    out = np.empty(len(first), np.float64)
    for i in range(len(first)):
        total = 0.0
        for b in range(first[i], last[i] + 1):
            total += 1.0 / spans[b]
        out[i] = total / (last[i] - first[i] + 1)
    return out
