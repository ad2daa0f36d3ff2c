"""The net for leaks by what they earn: in a world without anything to predict, no prediction may be right.

In each of several such worlds, models are fitted and predict what they were not fitted on; the correlation of their
predictions with the realised returns must be 0 on average. One interval above 0 is no proof: in 16 clean worlds, two
were. So the mean over worlds is tested (Student's t, one-sided).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from training.domains.market.bars.cleaning import Minutes
from training.domains.market.building import Trade, build
from training.domains.market.decisions import Decisions
from training.domains.market.detector.pipeline import Pipeline
from training.domains.market.detector.worlds import flip_signs, move_labels
from training.domains.market.splits.purging import Spans

Null = Literal["signs", "labels"]
WORLDS = 5
LEVEL = 0.01  # of a job: the probability that one without leaks is stopped
SHARE = 0.85  # of the bars, in time: the sealed test is not looked at
ROUNDS, LEAVES, RATE = 80, 15, 0.08

#: (features, returns and weights that are fitted, features that are predicted) -> predicted returns.
Fitter = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Statistics:
    """`correlations`: of each world. `probability`: of a mean at least as large if nothing leaks. `level`: the
    probability below which there is a leak."""

    null: Null
    correlations: list[float]
    mean: float
    probability: float
    level: float = LEVEL

    @property
    def reasons(self) -> list[str]:
        """What is wrong, a sentence; empty: nothing."""
        if self.probability >= self.level:
            return []
        what = "minutes with random signs" if self.null == "signs" else "labels of other days"
        return [
            f"returns of {what} are predicted: information coefficient {self.mean:.3f} on average of "
            f"{len(self.correlations)} worlds (p = {self.probability:.2g})"
        ]


def examine(
    minutes: Minutes, trade: Trade, pipeline: Pipeline, null: Null, seed: int, fitter: Fitter | None = None,
    worlds: int = WORLDS, symbols: int = 1,
) -> Statistics:  # fmt: skip
    """Fit and predict in several null worlds. `fitter`: default is LightGBM. `symbols`: how many are examined in the
    job; with each, chance has one more opportunity (Bonferroni's correction)."""
    known = minutes.between(0, int(len(minutes) * SHARE))
    found = [
        correlation(world, pipeline, fitter or boosted) for world in _worlds(known, trade, pipeline, null, seed, worlds)
    ]
    return Statistics(null, found, float(np.mean(found)), probability_of(found), LEVEL / symbols)


def _worlds(minutes: Minutes, trade: Trade, pipeline: Pipeline, null: Null, seed: int, worlds: int):
    actual = build(minutes, trade, pipeline.features(minutes)) if null == "labels" else None
    for number in range(worlds):
        if actual is not None:
            yield move_labels(actual, seed + number)
        else:
            flipped = flip_signs(minutes, seed + number)
            yield build(flipped, trade, pipeline.features(flipped))


def correlation(decisions: Decisions, pipeline: Pipeline, fitter: Fitter) -> float:
    """The correlation of out-of-fold predictions with realised returns."""
    predicted = np.full(len(decisions), np.nan)
    gain = np.clip(decisions.gain.astype(np.float64), -decisions.down, decisions.up)
    for fit, held in pipeline.folds(Spans(decisions.decided, decisions.ends)):
        predicted[held] = fitter(
            decisions.features[fit], gain[fit], decisions.weight[fit].astype(np.float64), decisions.features[held]
        )
    good = np.isfinite(predicted)
    if not good.any() or np.ptp(predicted[good]) == 0:
        return 0.0
    return float(np.corrcoef(predicted[good], gain[good])[0, 1])


def probability_of(correlations: Sequence[float]) -> float:
    """The probability of a mean at least as large, if the true one is 0 (one-sided t-test)."""
    from scipy.stats import t

    mean, error = np.mean(correlations), np.std(correlations, ddof=1) / np.sqrt(len(correlations))
    if error == 0:
        return 0.0 if mean > 0 else 1.0
    return float(t.sf(mean / error, len(correlations) - 1))


def boosted(
    features: np.ndarray, gain: np.ndarray, weight: np.ndarray, held: np.ndarray, rounds: int = ROUNDS
) -> np.ndarray:
    """Boosted trees of LightGBM."""
    import lightgbm

    options = {
        "objective": "regression", "num_leaves": LEAVES, "learning_rate": RATE, "min_data_in_leaf": 50,
        "feature_fraction": 0.5, "max_bin": 63, "verbosity": -1, "deterministic": True, "force_row_wise": True,
        "num_threads": 1, "seed": 1,  # the tables are small: several threads mostly wait for each other
    }  # fmt: skip
    data = lightgbm.Dataset(features, gain, weight=weight, free_raw_data=True)
    return lightgbm.train(options, data, rounds).predict(held)


def ridge(features: np.ndarray, gain: np.ndarray, weight: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Ridge regression: sees fewer leaks than trees, in a hundredth of the time."""
    median = np.median(features, 0)
    low, high = np.percentile(features, [25, 75], axis=0)
    scale = np.where(high > low, high - low, 1.0)

    def scaled(x: np.ndarray) -> np.ndarray:
        return np.concatenate([np.clip((x - median) / scale, -5, 5), np.ones((len(x), 1))], 1).astype(np.float64)

    x = scaled(features)
    weighted = x * weight[:, None]
    penalty = np.eye(x.shape[1]) * 0.01 * weight.sum()
    return scaled(held) @ np.linalg.solve(x.T @ weighted + penalty, weighted.T @ gain)
