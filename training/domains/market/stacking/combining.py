"""The ensemble: multinomial logistic regression on the members' log-probabilities.

The L2 penalty is on the distance from equal weights, so that members between which the data do not decide count alike
(their log-probabilities are much alike). Solved by Newton's method in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Combination:
    """Margins = weights . log-probabilities + bias."""

    weights: np.ndarray  # float64 [M, C, C]: of member, its class, to class
    bias: np.ndarray  # float64 [C]

    @classmethod
    def equal(cls, members: int, classes: int) -> Combination:
        """The geometric mean of the members, normalised."""
        return cls(np.tile(np.eye(classes) / members, (members, 1, 1)), np.zeros(classes))

    def probabilities(self, logs: np.ndarray) -> np.ndarray:
        """logs float64 [n, M, C] -> float64 [n, C]."""
        margins = np.einsum("nmc,mcd->nd", logs, self.weights) + self.bias
        exponent = np.exp(margins - margins.max(1, keepdims=True))
        return exponent / exponent.sum(1, keepdims=True)


@dataclass(frozen=True, eq=False)
class Problem:
    """What a combination is fitted on: log-probabilities float64 [n, M, C], labels int [n], weights [n] of mean 1."""

    logs: np.ndarray
    label: np.ndarray
    weight: np.ndarray

    def loss(self, one: Combination) -> float:
        """The weighted mean log-loss."""
        return float(np.average(-np.log(one.probabilities(self.logs)[np.arange(len(self.label)), self.label]),
                                weights=self.weight))  # fmt: skip

    def improved(self, one: Combination, l2: float) -> Combination:
        """One Newton step on: weighted mean log-loss + l2 / 2 * |weights - equal weights|^2. It is halved until the
        objective does not rise."""
        count, members, classes = self.logs.shape
        inputs = np.concatenate([self.logs.reshape(count, -1), np.ones((count, 1))], 1)  # [n, P]
        penalty = np.full(inputs.shape[1], l2)
        penalty[-1] = 1e-9  # the bias is free; the margins have one free constant, which this fixes
        equal = _flat(Combination.equal(members, classes))
        share = self.weight / self.weight.sum()
        proba = one.probabilities(self.logs)
        gradient = inputs.T @ ((proba - np.eye(classes)[self.label]) * share[:, None])
        gradient += penalty[:, None] * (_flat(one) - equal)
        hessian = np.einsum(
            "np,ncd,nq->cpdq", inputs, proba[:, :, None] * (np.eye(classes) - proba[:, None, :]) * share[:, None, None],
            inputs, optimize=True,
        ).reshape(gradient.size, gradient.size)  # fmt: skip
        hessian += np.diag(np.tile(penalty, classes))
        step = np.linalg.solve(hessian, gradient.T.reshape(-1)).reshape(classes, -1).T

        def objective(flat: np.ndarray) -> float:
            distance = (penalty[:, None] * (flat - equal) ** 2).sum() / 2
            return self.loss(_combination(flat, members, classes)) + distance

        now, flat = objective(_flat(one)), _flat(one)
        for _ in range(30):
            if objective(flat - step) <= now:
                return _combination(flat - step, members, classes)
            step = step / 2
        return one


def _flat(one: Combination) -> np.ndarray:
    """[M C + 1, C]"""
    return np.concatenate([one.weights.reshape(-1, len(one.bias)), one.bias[None]])


def _combination(flat: np.ndarray, members: int, classes: int) -> Combination:
    return Combination(flat[:-1].reshape(members, classes, classes), flat[-1])
