"""The values that models are trained on: BOLD without drift, standardised, by the training rows alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from training.domains.brain.bold.reading import BLOCK

PERIOD = 128.0  # seconds: slower changes count as drift, as in SPM
STIFFNESS = 5.0  # of the penalty on drift, per training row
LEAST_SPREAD = 1e-6  # relative to the mean: a voxel below is constant


def columns(record: Mapping[str, np.ndarray], voxels: np.ndarray) -> np.ndarray:
    """Where the voxels (int32, indices of the grid) are in a record of bold/reading.py: int64 [V]. Raises ValueError if
    it does not have all of them."""
    own = np.asarray(record["index"])
    place = np.minimum(np.searchsorted(own, voxels), len(own) - 1)
    missing = int((own[place] != voxels).sum())
    if missing:
        raise ValueError(f"has no signal in {missing:,} of the {len(voxels):,} voxels of the mask")
    return place


def raw(record: Mapping[str, np.ndarray], place: np.ndarray, begin: int = 0, end: int | None = None) -> np.ndarray:
    """The values of some columns at volumes [begin, end): float32 [t, V]."""
    data = record["data"]
    end = len(data) if end is None else end
    block = np.arange(begin, end) // BLOCK
    first, last = begin // BLOCK, (end - 1) // BLOCK + 1
    scale = np.asarray(record["scale"][first:last])[:, place]
    offset = np.asarray(record["offset"][first:last])[:, place]
    return np.asarray(data[begin:end])[:, place] * scale[block - first] + offset[block - first]


def slow_cosines(volumes: int, tr: float) -> np.ndarray:
    """The discrete cosines with a period of at least PERIOD, and a constant first: float64 [T, K], unit mean square."""
    count = int(2 * volumes * tr / PERIOD) + 1
    angle = np.pi * np.outer(np.arange(volumes) + 0.5, np.arange(count)) / volumes
    out = np.sqrt(2) * np.cos(angle)
    out[:, 0] = 1
    return out


@dataclass(frozen=True, eq=False)
class Normaliser:
    """Drift and spread of every voxel of one run of one subject."""

    drift: np.ndarray  # float32 [K, V], coefficients of slow_cosines
    spread: np.ndarray  # float32 [V], standard deviation of what is left

    @classmethod
    def fitted(cls, values_TV: np.ndarray, rows: np.ndarray, tr: float) -> Normaliser:
        """Fit on the volumes `rows` (int64) of a run, float [T, V].

        The penalty on a cosine grows with the fourth power of its frequency: it is one on curvature, as that of a
        smoothing spline. Without it, a fit on the training rows would swing freely in the held-out blocks, which are
        longer than the period of the fastest cosine, and multiply the variance there.
        """
        basis = slow_cosines(len(values_TV), tr)
        some = basis[rows]
        order = np.arange(basis.shape[1])
        penalty = STIFFNESS * len(rows) * (order / max(1, order[-1])) ** 4
        chosen = np.asarray(values_TV[rows], np.float64)
        drift = np.linalg.solve(some.T @ some + np.diag(penalty), some.T @ chosen)
        left = chosen - some @ drift
        spread = np.maximum(left.std(0), LEAST_SPREAD * np.abs(drift[0]) + 1e-12)
        return cls(drift.astype(np.float32), spread.astype(np.float32))

    def __call__(self, values_TV: np.ndarray, tr: float, begin: int = 0, of: int | None = None) -> np.ndarray:
        """Volumes begin, begin + 1 ... of a run of `of` volumes, standardised: float32 [t, V]."""
        basis = slow_cosines(len(values_TV) if of is None else of, tr)[begin : begin + len(values_TV)]
        return ((values_TV - basis.astype(np.float32) @ self.drift) / self.spread).astype(np.float32)
