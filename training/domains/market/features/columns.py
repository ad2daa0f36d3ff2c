"""Bars as the columns that the features' functions read."""

from __future__ import annotations

import math

import numpy as np

from training.domains.market.compiling import compiled

#: Columns: prices, volume, and what is derived of one bar and the close before it.
OPEN, HIGH, LOW, CLOSE, VOLUME, MOVE, RANGE, BODY, GAP, SATCHELL, TRUE_RANGE, TYPICAL = range(12)
COLUMNS = 12


@compiled
def columns(values):
    """Bars (float64 [5, N]: open, high, low, close, volume) -> the columns, float64 [12, N].

    MOVE = ln(c / c before), RANGE = ln(h / l), BODY = ln(c / o), GAP = ln(o / c before), SATCHELL: the term of Rogers
    and Satchell (1991), TRUE_RANGE of Wilder (1978), TYPICAL = (h + l + c) / 3.
    """
    count = values.shape[1]
    x = np.empty((COLUMNS, count), np.float64)
    for i in range(count):
        first, high, low, close = values[0, i], values[1, i], values[2, i], values[3, i]
        before = values[3, max(i - 1, 0)]
        x[OPEN, i], x[HIGH, i], x[LOW, i], x[CLOSE, i], x[VOLUME, i] = first, high, low, close, values[4, i]
        x[MOVE, i] = math.log(close / before)
        x[RANGE, i] = math.log(high / low)
        x[BODY, i] = math.log(close / first)
        x[GAP, i] = math.log(first / before)
        up, down = math.log(high / first), math.log(low / first)
        x[SATCHELL, i] = up * (up - x[BODY, i]) + down * (down - x[BODY, i])
        x[TRUE_RANGE, i] = max(high, before) - min(low, before)
        x[TYPICAL, i] = (high + low + close) / 3.0
    return x
