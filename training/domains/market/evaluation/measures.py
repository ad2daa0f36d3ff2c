"""Measures of predicted probabilities, as sums by trading day: so a bootstrap over days can combine them.

`proba`: float [n, 3], of down, flat and up. `label`: int [n]. `day`: int [n].
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from training.domains.market.decisions import CLASSES, Decisions
from training.judgement import About, Sums

TINY = 1e-7
BINS = 10  # of the reliability diagram and of the calibration error
POWER = 2.8  # standard errors: a true effect of this size is found in 80 % of samples, at 5 % (1.96 + 0.84)

ABOUT = {
    "log_loss": About("lower", "nats", "Mean negative logarithm of the probability of what happened."),
    "brier": About("lower", "", "Mean squared error of the three probabilities, summed (Brier 1950)."),
    "ece": About("lower", "", "Calibration error: how far stated probabilities are from observed shares, in ten bins."),
    "mcc": About("higher", "", "Matthews correlation of predicted and true classes (Gorodkin 2004); 0 is chance."),
    "macro_f1": About("higher", "", "F1 score, averaged over the three classes."),
    "ic": About("higher", "", "Correlation of the predicted with the realised return; 0 is chance.",
                title="information coefficient"),
}  # fmt: skip


def score_of(proba: np.ndarray, decisions: Decisions) -> np.ndarray:
    """The predicted return in ATRs, before costs: up * p(up) - down * p(down), float64 [n]."""
    up = decisions.up.astype(np.float64) - decisions.cost
    return up * proba[:, 2] - decisions.down.astype(np.float64) * proba[:, 0]


def sums_of(proba: np.ndarray, decisions: Decisions) -> Sums:
    """(sum, number) of everything that `summarise` needs, for each trading day: float64 [days, 2]."""
    days, of_day = np.unique(decisions.day, return_inverse=True)
    counts = np.bincount(of_day, minlength=len(days)).astype(np.float64)

    def total(values: np.ndarray) -> np.ndarray:
        return np.stack([np.bincount(of_day, values, len(days)), counts], 1)

    proba = np.asarray(proba, np.float64)
    label = decisions.label.astype(np.int64)
    truth = np.eye(len(CLASSES))[label]
    score, gain = score_of(proba, decisions), decisions.gain.astype(np.float64)
    guess, sure = proba.argmax(1), proba.max(1)
    bins = np.minimum((sure * BINS).astype(np.int64), BINS - 1)
    out = {
        "log_loss": total(-np.log(np.clip((proba * truth).sum(1), TINY, 1))),
        "brier": total(((proba - truth) ** 2).sum(1)),
        "s": total(score), "g": total(gain), "ss": total(score**2), "gg": total(gain**2), "sg": total(score * gain),
    }  # fmt: skip
    for one in range(len(CLASSES)):
        for other in range(len(CLASSES)):
            out[f"c{one}{other}"] = total((label == one) & (guess == other))
    for number in range(BINS):
        inside = bins == number
        out[f"sure{number}"] = total(np.where(inside, sure, 0))
        out[f"right{number}"] = total(inside & (guess == label))
    return out


def summarise(means: Mapping[str, float]) -> dict[str, float]:
    """The measures of ABOUT, from the means of `sums_of`."""
    confusion = np.array([[means[f"c{one}{other}"] for other in range(3)] for one in range(3)])
    return {
        "log_loss": means["log_loss"],
        "brier": means["brier"],
        "ece": sum(abs(means[f"sure{number}"] - means[f"right{number}"]) for number in range(BINS)),
        "mcc": _matthews(confusion),
        "macro_f1": _macro_f1(confusion),
        "ic": _correlation(means),
    }


def _correlation(means: Mapping[str, float]) -> float:
    """0 where one of the two does not vary: a constant prediction."""
    first = means["ss"] - means["s"] ** 2
    second = means["gg"] - means["g"] ** 2
    if first <= 1e-12 * max(1.0, means["ss"]) or second <= 0:
        return 0.0
    return (means["sg"] - means["s"] * means["g"]) / math.sqrt(first * second)


def _matthews(confusion: np.ndarray) -> float:
    true, guessed = confusion.sum(1), confusion.sum(0)
    spread = (1 - (true**2).sum()) * (1 - (guessed**2).sum())
    return float((np.trace(confusion) - true @ guessed) / math.sqrt(spread)) if spread > 1e-12 else 0.0


def _macro_f1(confusion: np.ndarray) -> float:
    both = confusion.sum(1) + confusion.sum(0)
    return float(np.mean(np.divide(2 * np.diag(confusion), both, out=np.zeros(3), where=both > 0)))


def reliability(proba: np.ndarray, label: np.ndarray) -> list[dict[str, float]]:
    """For each class and bin of its predicted probability: the mean prediction, the observed share, the number."""
    out = []
    for code, name in enumerate(CLASSES):
        bins = np.minimum((proba[:, code] * BINS).astype(np.int64), BINS - 1)
        for number in np.unique(bins).tolist():
            inside = bins == number
            out.append({
                "class": name, "predicted": float(proba[inside, code].mean()),
                "observed": float((label[inside] == code).mean()), "count": int(inside.sum()),
            })  # fmt: skip
    return out
