"""Compares the time of subjects of a run: whoever saw the same film at the same time has the same time course."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.domains.brain.alarms.lag import FARTHEST, LagScan
from training.domains.brain.regression.ridge import correlations

LEAST = 3  # subjects: of two, no one could say which is late
_APART = 2  # volumes


def scans(bolds: Sequence[np.ndarray], rows: np.ndarray, tr: float) -> list[LagScan]:
    """The mean correlation over voxels of each subject (float32 [T, V] each, standardised) with the mean of the others
    at each shift, on training rows (int64): positive shifts where the subject is later."""
    total = np.sum(bolds, 0)
    shifts = tuple(range(-FARTHEST, FARTHEST + 1))
    out = []
    for own in bolds:
        others = (total - own) / (len(bolds) - 1)
        r = []
        for shift in shifts:
            both = rows[np.isin(rows - shift, rows)]
            r.append(float(correlations(own[both], others[both - shift]).mean()))
        out.append(LagScan(shifts, tuple(r), shifts[int(np.argmax(r))], tr))
    return out


def sentence(subject: str, found: LagScan) -> str:
    """What is wrong with the time of a subject; empty if nothing is."""
    if not found.found or abs(found.best) < _APART:
        return ""
    seconds, none = found.best * found.tr, found.r[found.shifts.index(0)]
    return (
        f"subject {subject} is {abs(found.best)} TR ({abs(seconds):.1f} s) {'later' if seconds > 0 else 'earlier'} "
        f"than the others (r with their mean {max(found.r):.3f}, without a shift {none:.3f}). Check how many volumes "
        "were cut off at the begin of its file"
    )
