"""Ridge regression with far more columns than rows, such as from voxels to features, by its dual form.

The Gram matrix of the rows is all that the fit needs (Saunders, Gammerman and Vovk 1998, "Ridge regression learning
algorithm in dual variables", ICML 515-521), so the weights are never formed for penalties that are not chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.domains.brain.regression.ridge import FOLDS, folds

#: Penalties relative to the mean eigenvalue of the Gram matrix, so that they do not depend on the number of columns.
RELATIVE = tuple(float(alpha) for alpha in np.logspace(-2, 3, 11))


@dataclass(frozen=True, eq=False)
class Dual:
    """Weights as combinations of the training rows: y = x @ sum over parts of (part.T @ coefficients)."""

    coefficients: np.ndarray  # float32 [n, F]
    fitted: np.ndarray  # float32 [n, F], the predictions of the training rows
    alpha: np.ndarray  # float64 [F], relative penalty of each target

    def weights(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """The weights of the parts that it was fitted on (float32 [n, V] each): float32 [parts, V, F]."""
        return np.stack([part.T @ self.coefficients for part in parts])


def gram(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Inner products of the rows over all columns of all parts (float32 [n, V] each): float64 [n, n]."""
    total = np.zeros((len(parts[0]), len(parts[0])))
    for part in parts:
        total += part @ part.T
    return total


def fit(
    gram_nn: np.ndarray, targets_nF: np.ndarray, lengths: Sequence[int], alphas: Sequence[float] = RELATIVE
) -> Dual:
    """Ridge with the penalty of each target that has the least squared error over contiguous folds. `lengths`: of the
    contiguous stretches of the rows. Targets have mean 0, as standardised ones do."""
    targets = np.asarray(targets_nF, np.float64)
    scale = float(np.trace(gram_nn)) / len(gram_nn)
    every = np.arange(len(targets))
    error = np.zeros((len(alphas), targets.shape[1]))
    for held in folds(lengths, FOLDS):
        own = np.setdiff1d(every, held, assume_unique=True)
        value, vector = np.linalg.eigh(gram_nn[np.ix_(own, own)])
        projected, cross = vector.T @ targets[own], gram_nn[np.ix_(held, own)] @ vector
        for number, alpha in enumerate(alphas):
            left = targets[held] - cross @ (projected / (value + alpha * scale)[:, None])
            error[number] += (left**2).sum(0)
    chosen = np.asarray(alphas)[error.argmin(0)]
    value, vector = np.linalg.eigh(gram_nn)
    found = vector @ ((vector.T @ targets) / (value[:, None] + chosen * scale))
    return Dual(found.astype(np.float32), (gram_nn @ found).astype(np.float32), chosen)
