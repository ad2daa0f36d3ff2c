"""What a model must beat: class shares, a logistic regression, and what volatility alone predicts.

Without any edge, volatility still predicts which barrier is touched: the nearer one, or none. So a lower log-loss than
the class shares' is no edge. A model has one if it is better than the volatility-only model, which sees no direction.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.domains.market.decisions import CLASSES, Decisions
from training.domains.market.features.declared import UNDIRECTED

CLIP = 5.0  # in interquartile ranges
RIDGE = 1e-2  # weight of the squared coefficients, relative to the mean log-loss
STEPS = 60  # of L-BFGS
THINNED = 4  # one of so many decisions is fitted: labels overlap, so the others add little

PRIOR, LOGISTIC, VOLATILITY = "class shares", "logistic regression", "volatility only"


class Logistic:
    """Multinomial logistic regression on scaled features, with an L2 penalty; by L-BFGS.

    `columns`: indices of the features. `squares`: whether their squares are features too.
    """

    def __init__(self, columns: Sequence[int], squares: bool = False):
        self.columns, self.squares = np.asarray(columns), squares

    def fit(self, features: np.ndarray, label: np.ndarray, weight: np.ndarray) -> Logistic:
        """`features`: float32 [n, F]. `label`: int [n]. `weight`: float [n]."""
        from scipy.optimize import minimize

        own = features[:, self.columns]
        self.median = np.median(own, 0)
        low, high = np.percentile(own, [25, 75], axis=0)
        self.range = np.where(high > low, high - low, 1.0)
        x = self._scaled(features)
        share = weight.astype(np.float64) / weight.sum()
        truth = np.eye(len(CLASSES))[label]
        penalty = np.full((x.shape[1], 1), RIDGE)
        penalty[-1] = 0  # the constant

        def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
            w = flat.reshape(x.shape[1], len(CLASSES))
            proba = _softmax(x @ w)
            value = -(share * np.log((proba * truth).sum(1).clip(1e-300))).sum() + 0.5 * (penalty * w**2).sum()
            return value, (x.T @ (share[:, None] * (proba - truth)) + penalty * w).ravel()

        begin = np.zeros(x.shape[1] * len(CLASSES))
        self.w = minimize(loss, begin, jac=True, method="L-BFGS-B", options={"maxiter": STEPS}).x.reshape(-1, 3)
        return self

    def proba(self, features: np.ndarray) -> np.ndarray:
        """float64 [n, 3]."""
        return _softmax(self._scaled(features) @ self.w)

    def _scaled(self, features: np.ndarray) -> np.ndarray:
        x = np.clip((features[:, self.columns] - self.median) / self.range, -CLIP, CLIP).astype(np.float64)
        parts = [x, x**2 / CLIP] if self.squares else [x]
        return np.concatenate([*parts, np.ones((len(x), 1))], 1)


def _softmax(margin: np.ndarray) -> np.ndarray:
    shifted = np.exp(margin - margin.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def shares(train: Decisions) -> np.ndarray:
    """The weighted share of each class: float64 [3]."""
    counts = np.bincount(train.label, train.weight, len(CLASSES)) + 1e-3 * train.weight.sum() / len(train)
    return counts / counts.sum()


def undirected(names: Sequence[str]) -> list[int]:
    """Indices of the features that tell nothing of the direction."""
    return [number for number, name in enumerate(names) if name in UNDIRECTED]


def baselines(train: Decisions, held: Decisions) -> dict[str, np.ndarray]:
    """Baseline -> its probabilities of the held-out decisions, float64 [n, 3]. Each is fitted on `train`."""
    every = range(len(train.names))
    models = {LOGISTIC: Logistic(every), VOLATILITY: Logistic(undirected(train.names), squares=True)}
    out = {PRIOR: np.repeat(shares(train)[None], len(held), 0)}
    thin = train.take(slice(None, None, THINNED))
    for name, model in models.items():
        out[name] = model.fit(thin.features, thin.label, thin.weight).proba(held.features)
    return out
