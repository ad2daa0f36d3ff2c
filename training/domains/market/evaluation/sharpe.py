"""Sharpe ratios, and how likely luck is: probabilistic and deflated Sharpe ratio."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

YEAR = 252  # trading days
EULER = 0.5772156649015329


@dataclass(frozen=True)
class Daily:
    """What is needed of daily results: their number, Sharpe ratio (a day), skewness and kurtosis (normal: 3)."""

    days: int
    sharpe: float
    skewness: float
    kurtosis: float

    @classmethod
    def of(cls, daily: np.ndarray) -> Daily:
        """`daily`: float64 [days]."""
        away = daily - daily.mean()
        deviation = daily.std()
        if len(daily) < 2 or deviation <= 1e-12:
            return cls(len(daily), 0.0, 0.0, 3.0)
        z = away / deviation
        return cls(len(daily), float(daily.mean() / deviation), float((z**3).mean()), float((z**4).mean()))

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def yearly(daily: np.ndarray) -> float:
    """The Sharpe ratio a year."""
    return Daily.of(daily).sharpe * math.sqrt(YEAR)


def probabilistic(daily: Daily, benchmark: float = 0.0) -> float:
    """Probability that the true Sharpe ratio (a day) is above `benchmark` (Bailey and Lopez de Prado 2012, eq. 9)."""
    from scipy.special import ndtr

    if daily.days < 2:
        return 0.5
    variance = 1 - daily.skewness * daily.sharpe + (daily.kurtosis - 1) / 4 * daily.sharpe**2
    return float(ndtr((daily.sharpe - benchmark) * math.sqrt(daily.days - 1) / math.sqrt(max(variance, 1e-12))))


def expected_best(trials: int, variance: float) -> float:
    """Expected Sharpe ratio (a day) of the best of `trials` strategies without an edge, whose ratios have `variance`
    (Bailey and Lopez de Prado 2014, eq. 5)."""
    from scipy.special import ndtri

    if trials < 2:
        return 0.0
    normal = (1 - EULER) * ndtri(1 - 1 / trials) + EULER * ndtri(1 - 1 / (trials * math.e))
    return math.sqrt(variance) * float(normal)


def deflated(daily: Daily, trials: int) -> float:
    """Deflated Sharpe ratio: the probability that the true one is above 0, though the best of `trials` was chosen.

    Without an edge, an estimate of `days` days has the variance 1 / (days - 1), which is used here: the spread of the
    ratios of the actual trials is too small where these resemble each other.
    """
    if daily.days < 2:
        return 0.5
    return probabilistic(daily, expected_best(trials, 1 / (daily.days - 1)))
