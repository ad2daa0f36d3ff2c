"""Worlds in which nothing can be predicted, made of the user's own data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from training.domains.market.bars.cleaning import Minutes
from training.domains.market.compiling import compiled
from training.domains.market.decisions import Decisions


def flip_signs(minutes: Minutes, seed: int) -> Minutes:
    """The same bars with the sign of each minute's return drawn at random.

    A flipped bar is mirrored: what was above its open is below it by the same factor. Sizes of moves, ranges, gaps in
    time and volumes stay. The logarithm of the price is a martingale: no direction can be predicted from the past.
    """
    sign = np.random.default_rng([seed, 0xF119]).choice(np.array([-1.0, 1.0]), len(minutes))
    prices = _flipped(minutes.open, minutes.high, minutes.low, minutes.close, sign)
    return replace(minutes, open=prices[0], high=prices[1], low=prices[2], close=prices[3])


@compiled
def _flipped(first, high, low, close, sign):
    out = np.empty((4, len(first)), np.float64)
    before, new_before = first[0], first[0]
    for i in range(len(first)):
        opened = new_before * (first[i] / before) ** sign[i]
        out[0, i] = opened
        up, down = (high[i], low[i]) if sign[i] > 0 else (low[i], high[i])
        out[1, i] = opened * (up / first[i]) ** sign[i]
        out[2, i] = opened * (down / first[i]) ** sign[i]
        out[3, i] = opened * (close[i] / first[i]) ** sign[i]
        before, new_before = close[i], out[3, i]
    return out


def move_labels(decisions: Decisions, seed: int) -> Decisions:
    """The same features with the labels of other days: all are moved by a number of complete days that is drawn, at
    least a fifth of them. Labels keep their order and their lengths, and tell nothing of the features beside them."""
    days = np.unique(decisions.day)
    moved_by = int(np.random.default_rng([seed, 0x10AB]).integers(len(days) // 5, len(days) - len(days) // 5))
    index = np.roll(np.arange(len(decisions)), np.searchsorted(decisions.day, days[moved_by]))
    moved = {
        name: getattr(decisions, name)[index] for name in ("label", "gain", "gain_sold", "up", "down", "cost", "weight")
    }
    length = (decisions.ends - decisions.decided)[index]
    return replace(decisions, **moved, ends=decisions.decided + length)
