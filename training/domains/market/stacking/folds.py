"""Purged k-fold parts of the training decisions (Lopez de Prado 2018, section 7.4)."""

from __future__ import annotations

import numpy as np

from training.domains.market.decisions import Decisions

MINUTE = 60_000_000_000  # ns


def purged_folds(
    decisions: Decisions, index: np.ndarray, count: int, embargo: int
) -> list[tuple[np.ndarray, np.ndarray]]:  # fmt: skip
    """`count` pairs (fit, held) of positions in `index` (int64, ascending).

    The held parts are contiguous in time, consist of complete trading days, and together are `index`. A decision is in
    `fit` unless the time from its decision to the end of its label overlaps that of the held part, or it is made within
    `embargo` minutes after it. Raises ValueError for fewer days than folds.
    """
    day, decided, ends = decisions.day[index], decisions.decided[index], decisions.ends[index]
    days = np.unique(day)
    if len(days) < count:
        raise ValueError(f"{len(days)} trading days are too few for {count} folds")
    out = []
    for part in np.array_split(days, count):
        held = np.flatnonzero((day >= part[0]) & (day <= part[-1]))
        begin, end = decided[held].min(), ends[held].max()
        out.append((np.flatnonzero((ends < begin) | (decided > end + embargo * MINUTE)), held))
    return out
