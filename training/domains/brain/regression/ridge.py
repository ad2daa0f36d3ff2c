"""Ridge regression with blocked cross-validation, and its reduced-rank form.

Everything is in float64 on the side of the features, and in float32 on that of the voxels, of which there are many.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ALPHAS = tuple(float(alpha) for alpha in np.logspace(0, 5, 11))
FOLDS = 5


@dataclass(frozen=True, eq=False)
class Ridge:
    """y = x @ weights, for x and y that have mean 0 over the training rows. `alpha`: float64 [V], of each voxel."""

    weights: np.ndarray  # float32 [F, V]
    alpha: np.ndarray

    def predict(self, features_TF: np.ndarray) -> np.ndarray:
        """float32 [T, V]."""
        return features_TF.astype(np.float32) @ self.weights


def folds(lengths: Sequence[int], count: int = FOLDS) -> list[np.ndarray]:
    """Held-out rows of each fold: contiguous parts of the stretches of training rows, so that neighbours stay together.

    `lengths`: of the contiguous stretches, in order. Returns `count` ascending index arrays that cover all rows once.
    """
    total = sum(lengths)
    edges = np.linspace(0, total, count + 1).round().astype(int)
    return [np.arange(begin, end) for begin, end in itertools.pairwise(edges) if end > begin]


def solve(features: np.ndarray, targets: np.ndarray, alphas: Sequence[float]) -> np.ndarray:
    """Weights for each alpha, float32 [A, F, V]: argmin |y - x w|^2 + alpha |w|^2 by the singular values of x."""
    left, singular, right = np.linalg.svd(features.astype(np.float64), full_matrices=False)
    projected = (left.T.astype(np.float32) @ targets.astype(np.float32)).astype(np.float32)
    out = []
    for alpha in alphas:
        shrink = (singular / (singular**2 + alpha)).astype(np.float32)
        out.append((right.T.astype(np.float32) * shrink) @ projected)
    return np.stack(out)


def correlations(predicted: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Pearson correlation over time of each column, float64 [V]; 0 where a column is constant."""
    p = predicted - predicted.mean(0, dtype=np.float64)
    y = measured - measured.mean(0, dtype=np.float64)
    cross = np.einsum("tv,tv->v", p, y, dtype=np.float64)
    size = np.sqrt(np.einsum("tv,tv->v", p, p, dtype=np.float64) * np.einsum("tv,tv->v", y, y, dtype=np.float64))
    return np.divide(cross, size, out=np.zeros_like(cross), where=size > 1e-12)


def fit(
    features_TF: np.ndarray, targets_TV: np.ndarray, lengths: Sequence[int], alphas: Sequence[float] = ALPHAS
) -> Ridge:
    """Ridge with the alpha of each voxel that has the least squared error over the folds. `lengths`: of the contiguous
    stretches of the rows."""
    error = np.zeros((len(alphas), targets_TV.shape[1]))
    every = np.arange(len(features_TF))
    for held in folds(lengths):
        own = np.setdiff1d(every, held, assume_unique=True)
        for number, weights in enumerate(solve(features_TF[own], targets_TV[own], alphas)):
            left = targets_TV[held] - features_TF[held].astype(np.float32) @ weights
            error[number] += np.einsum("tv,tv->v", left, left, dtype=np.float64)
    chosen = error.argmin(0)
    weights = solve(features_TF, targets_TV, alphas)
    best = np.take_along_axis(weights, chosen[None, None, :], 0)[0]
    return Ridge(best, np.asarray(alphas)[chosen])


@dataclass(frozen=True, eq=False)
class Factors:
    """A linear map of reduced rank: features @ bottleneck @ heads."""

    bottleneck: np.ndarray  # float32 [F, K]
    heads: np.ndarray  # float32 [K, V of all subjects]

    def predict(self, features_TF: np.ndarray) -> np.ndarray:
        return features_TF.astype(np.float32) @ self.bottleneck @ self.heads


def reduced(features_TF: np.ndarray, weights_FV: np.ndarray, rank: int) -> Factors:
    """The map of `rank` whose training predictions are nearest to those of ridge: their first singular vectors
    (Izenman 1975, "Reduced-rank regression for the multivariate linear model", J. Multivariate Analysis 5, 248-264).

    `weights_FV`: of all subjects side by side. The bottleneck has orthonormal columns times the singular values' roots,
    so that its scale and that of the heads are alike.
    """
    predicted = features_TF.astype(np.float32) @ weights_FV
    value, vector = np.linalg.eigh((predicted @ predicted.T).astype(np.float64))  # T x T: fewer rows than voxels
    count = min(rank, len(value), features_TF.shape[1])
    left = vector[:, ::-1][:, :count]
    right = left.T.astype(np.float32) @ predicted  # [K, V]: singular value times right vector
    size = np.sqrt(np.maximum(value[::-1][:count], 1e-12)).astype(np.float32)
    unit = right / size[:, None]
    root = np.sqrt(size)
    return Factors((weights_FV @ unit.T) / root, unit * root[:, None])
