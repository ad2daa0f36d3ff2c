"""Banded ridge: one penalty for each band of features and voxel, by himalaya.

Dupré la Tour, Eickenberg, Nunez-Elizalde and Gallant 2022, "Feature-space selection with banded ridge regression",
NeuroImage 264, 119728. The weights of the bands are searched at random, each voxel takes the best.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.domains.brain.regression.ridge import ALPHAS, folds

SEARCHES = 24  # weightings of the bands that are tried


class _Folds:
    """Cross-validation for himalaya, in contiguous parts."""

    def __init__(self, lengths: Sequence[int], rows: int):
        self.held, self.rows = folds(lengths), rows

    def split(self, *_):
        every = np.arange(self.rows)
        for held in self.held:
            yield np.setdiff1d(every, held, assume_unique=True), held

    def get_n_splits(self, *_) -> int:
        return len(self.held)


def fit(
    bands: Sequence[np.ndarray], targets_TV: np.ndarray, lengths: Sequence[int], seed: int, *,
    searches: int = SEARCHES, device: str = "cpu",
) -> np.ndarray:  # fmt: skip
    """Weights for the bands side by side, float32 [sum of F, V]. `bands`: float32 [T, F] each.

    `device`: cpu or cuda. The search is the same for a seed and device.
    """
    from himalaya.backend import set_backend
    from himalaya.ridge import solve_group_ridge_random_search

    backend = set_backend("torch_cuda" if device == "cuda" else "torch", on_error="raise")
    xs = [backend.asarray(np.ascontiguousarray(band, np.float32)) for band in bands]
    found = solve_group_ridge_random_search(
        xs, backend.asarray(np.ascontiguousarray(targets_TV, np.float32)), n_iter=searches, alphas=np.array(ALPHAS),
        cv=_Folds(lengths, len(targets_TV)), return_weights=True, random_state=seed, progress_bar=False,
        fit_intercept=False, n_targets_batch=4_096, warn=False,
    )  # fmt: skip
    return np.asarray(backend.to_numpy(found[1]), np.float32)
