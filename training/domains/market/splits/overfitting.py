"""The probability of backtest overfitting, by combinatorially symmetric cross-validation (Bailey et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, pairwise
from math import comb

import numpy as np

BLOCKS = 16


@dataclass(frozen=True)
class Overfitting:
    """`probability`: how often the best strategy of one half is below the median in the other half. `logits`: of its
    relative rank there, one for each choice of halves."""

    probability: float
    logits: np.ndarray


def overfitting(returns: np.ndarray, parts: int = BLOCKS) -> Overfitting:
    """`returns`: float64 [T, N], of N strategies over T periods (days); judged by their Sharpe ratio.

    T is divided into `parts` blocks (an even number), and every choice of half of them is once the half on which the
    best strategy is chosen. Raises ValueError if there are fewer than two strategies, or fewer periods than 2 * parts.
    """
    periods, strategies = returns.shape
    if strategies < 2 or periods < 2 * parts or parts % 2:
        raise ValueError(f"{periods} periods of {strategies} strategies do not suffice for {parts} blocks")
    edges = [round(periods * part / parts) for part in range(parts + 1)]
    sums = np.stack([returns[a:b].sum(0) for a, b in pairwise(edges)])
    squares = np.stack([(returns[a:b] ** 2).sum(0) for a, b in pairwise(edges)])
    lengths = np.diff(edges).astype(np.float64)
    chosen = np.zeros((comb(parts, parts // 2), parts))
    for number, half in enumerate(combinations(range(parts), parts // 2)):
        chosen[number, list(half)] = 1
    inside = _sharpe(chosen @ sums, chosen @ squares, (chosen @ lengths)[:, None])
    outside = _sharpe((1 - chosen) @ sums, (1 - chosen) @ squares, ((1 - chosen) @ lengths)[:, None])
    best = inside.argmax(1)
    value = outside[np.arange(len(best)), best][:, None]
    rank = (outside < value).sum(1) + 0.5 * ((outside == value).sum(1) + 1)  # ties share the mean rank
    share = rank / (strategies + 1)
    logits = np.log(share / (1 - share))
    return Overfitting(float((logits <= 0).mean()), logits)


def _sharpe(sums: np.ndarray, squares: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Mean by standard deviation; 0 for a strategy that never trades."""
    mean = sums / count
    variance = np.maximum(squares / count - mean**2, 0)
    return np.divide(mean, np.sqrt(variance), out=np.zeros_like(mean), where=variance > 1e-18)
