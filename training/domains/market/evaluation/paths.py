"""How a strategy would have done in other orders of the same time: combinatorial purged cross-validation, and the
probability that the best of several strategies was luck.

The models are fitted with the data that comes before the sealed test. They are quick stand-ins for the families:
boosted trees and a ridge regression of the return. Fifteen fits of each family would take as long as the complete job.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from training.domains.market.decisions import Decisions
from training.domains.market.detector.statistics import Fitter, boosted, ridge
from training.domains.market.evaluation.sharpe import yearly
from training.domains.market.evaluation.trading import trade
from training.domains.market.splits.overfitting import BLOCKS, overfitting
from training.domains.market.splits.purging import Combinatorial, Spans, combinatorial, overlapping
from training.errors import TrainingError

STRATEGIES: dict[str, Fitter] = {"boosted trees": partial(boosted, rounds=40), "ridge regression": ridge}
THRESHOLDS = (1.0, 1.5, 2.0, 3.0)  # a trade is made if the predicted return is so many times the costs
THINNED = 4  # one of so many decisions is fitted: labels overlap


def walk_paths(decisions: Decisions) -> dict[str, Any]:
    """The five paths of the first strategy, and the probability of overfitting of all, as plain values.

    Raises TrainingError if a fitted decision's span overlaps a held-out one's.
    """
    splits = combinatorial(Spans(decisions.decided, decisions.ends))
    predicted = {name: _predict(decisions, splits, fitter) for name, fitter in STRATEGIES.items()}
    first = next(iter(STRATEGIES))
    paths = [_path(decisions, predicted[first][path], THRESHOLDS[0]) for path in range(len(splits.paths))]
    daily = np.stack([
        _daily(decisions, of_name[0], threshold) for of_name in predicted.values() for threshold in THRESHOLDS
    ], 1)  # fmt: skip
    names = [f"{name}, {threshold:g} x costs" for name in STRATEGIES for threshold in THRESHOLDS]
    sharpes = [path["sharpe"] for path in paths]
    return {
        "splits": len(splits.splits),
        "strategy": names[0],
        "paths": paths,
        "sharpe": {"mean": float(np.mean(sharpes)), "low": min(sharpes), "high": max(sharpes)},
        "strategies": {name: yearly(column) for name, column in zip(names, daily.T, strict=True)},
        "overfitting": _overfitting(daily),
    }


def _predict(decisions: Decisions, splits: Combinatorial, fitter: Fitter) -> np.ndarray:
    """Predicted returns on every path: float64 [paths, N]."""
    gain = np.clip(decisions.gain.astype(np.float64), -decisions.down, decisions.up)
    weight = decisions.weight.astype(np.float64)
    out = np.full((len(splits.paths), len(decisions)), np.nan)
    for number, (fit, held) in enumerate(splits):
        if overlapping(splits.spans.take(fit), splits.spans.take(held)):
            raise TrainingError("A combinatorial split leaks: fitted labels overlap held-out ones. Please report this.")
        fit = fit[::THINNED]
        values = fitter(decisions.features[fit], gain[fit], weight[fit], decisions.features[held])
        by_decision = np.full(len(decisions), np.nan)
        by_decision[held] = values
        for path, block in zip(*np.nonzero(splits.paths == number), strict=True):
            inside = slice(*splits.groups[block])
            out[path, inside] = by_decision[inside]
    return out


def _daily(decisions: Decisions, predicted: np.ndarray, threshold: float) -> np.ndarray:
    side = np.sign(predicted) * (np.abs(predicted) > threshold * decisions.cost)
    return trade(decisions, side.astype(np.int8)).daily


def _path(decisions: Decisions, predicted: np.ndarray, threshold: float) -> dict[str, Any]:
    daily = _daily(decisions, predicted, threshold)
    return {
        "sharpe": yearly(daily),
        "ic": float(np.corrcoef(predicted, decisions.gain)[0, 1]),
        "total": float(daily.sum()),
        "equity": [round(float(value), 3) for value in np.cumsum(daily)],
    }


def _overfitting(daily: np.ndarray) -> dict[str, Any] | None:
    """None: too few days."""
    if len(daily) < 2 * BLOCKS:
        return None
    found = overfitting(daily)
    return {
        "probability": found.probability,
        "choices": len(found.logits),
        "median_logit": float(np.median(found.logits)),
    }
