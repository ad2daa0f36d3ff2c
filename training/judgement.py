"""How sure a held-out figure is, and what it amounts to: bootstrap intervals over units, comparisons, a verdict.

A domain's unit (training/sampling_unit.py) is what is independent: samples within a unit are alike, so complete units
are drawn with replacement, and the model and everything that it is compared with are judged on the same draws.
Intervals are BCa (bias-corrected and accelerated: Efron 1987, "Better bootstrap confidence intervals"; DiCiccio and
Efron 1996), 95 %, seeded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from training.sampling_unit import UNIT, Unit

DRAWS = 1_000
COVERAGE = 0.95

#: Metric -> (sum, number of elements) of every unit: f64 [units, 2].
Sums = Mapping[str, np.ndarray]
Word = Literal["learnt", "weak", "not learnt"]
Mark = Literal["good", "fair", "bad"]


@dataclass(frozen=True)
class Interval:
    """A figure, and between which two it lies with a confidence of 95 %."""

    value: float
    low: float
    high: float

    @classmethod
    def exactly(cls, value: float) -> Interval:
        """Known, not estimated; or of what no interval is known."""
        return cls(float(value), float(value), float(value))

    def apart(self, other: Interval) -> bool:
        return self.high < other.low or other.high < self.low

    def size(self) -> Interval:
        """Of a difference whose sign is certain: how large it is."""
        return self if self.low > 0 else Interval(-self.value, -self.high, -self.low)

    def formatted(self, unit: str = "") -> str:
        """For people: 1.23 (1.1 to 1.4)."""
        certain = self.low == self.value == self.high
        return f"{self.value:.3g}{unit}" + ("" if certain else f" ({self.low:.3g} to {self.high:.3g})")


@dataclass(frozen=True)
class About:
    """What a metric means."""

    better: Literal["lower", "higher"]
    unit: str
    meaning: str  # a sentence for people who do not know the field
    floor: float | None = None  # what the design requires, where it names a number; 0 is a bound, no requirement
    floor_reason: str | None = None  # a clause: why less is required than the design names, or nothing
    title: str | None = None  # a few words for people, where the metric's key is not plain


@dataclass(frozen=True)
class Metric:
    """A figure of the model beside the same figure of others."""

    about: About
    model: Interval
    baselines: Mapping[str, Interval] = field(default_factory=dict)
    #: baseline -> model - baseline on the same units: an interval without 0 separates them though the two overlap
    gaps: Mapping[str, Interval] = field(default_factory=dict)
    estimated: bool = True  # False: of too few units to tell how certain the figures are (BootstrapDraws.estimated)

    def separated(self, name: str) -> Literal["apart", "paired", "no"]:
        """Whether the two surely differ: their intervals are apart, or only the paired differences say so."""
        if self.model.apart(self.baselines[name]):
            return "apart"
        gap = self.gaps.get(name)
        return "paired" if gap is not None and gap.low * gap.high > 0 else "no"

    def beats(self, name: str) -> Literal["apart", "paired", "no"]:
        """Whether the model is better than a baseline: with intervals apart, unit by unit only, or not surely."""
        sign = 1 if self.about.better == "higher" else -1
        return self.separated(name) if sign * (self.model.value - self.baselines[name].value) > 0 else "no"

    def meets(self) -> bool:
        """Whether the model reaches the floor; true where there is none."""
        if self.about.floor is None:
            return True
        sign = 1 if self.about.better == "higher" else -1
        return sign * (self.model.value - self.about.floor) >= 0

    def plain(self) -> dict[str, Any]:
        """As metrics.json holds it."""
        baselines = {name: vars(value) for name, value in self.baselines.items()}
        for name, gap in self.gaps.items():
            baselines[name] = baselines[name] | {"gap": vars(gap)}
        about = {key: value for key, value in vars(self.about).items() if value is not None}
        return {"model": vars(self.model), "baselines": baselines} | about


@dataclass(frozen=True)
class Verdict:
    word: Word
    why: Sequence[str]


@dataclass(frozen=True)
class Judgement:
    """What evaluating a model gives. `more`: further entries of metrics.json, of the family's own form."""

    metrics: Mapping[str, Metric]
    verdict: Verdict
    more: Mapping[str, Any] = field(default_factory=dict)


# -- resampling ----------------------------------------------------------------------------------------------------


class Resampling:
    """Draws of units, the same for all that are judged by them.

    `strata`: int [units]; units are then drawn within their stratum only (samples within the class requested).
    """

    def __init__(self, units: int, seed: int, strata: np.ndarray | None = None, draws: int = DRAWS):
        random = np.random.default_rng((seed, 0xB007))
        strata = np.zeros(units, np.int64) if strata is None else np.asarray(strata)
        self.counts = np.zeros((draws, units), np.int64)  # how often each unit is drawn
        for stratum in np.unique(strata):
            own = np.flatnonzero(strata == stratum)
            self.counts[:, own] = random.multinomial(len(own), np.full(len(own), 1 / len(own)), size=draws)
        self.without = 1 - np.eye(units, dtype=np.int64)  # each unit left out once: the jackknife that BCa needs
        self.units = units

    @property
    def varies(self) -> bool:
        """Whether the draws differ at all: one unit, or one a stratum, is the same in each, and gives no interval."""
        return bool((self.counts != 1).any())

    def indices(self, weights: np.ndarray) -> np.ndarray:
        """A draw's counts [units] -> the units that it holds, repeated."""
        return np.repeat(np.arange(self.units), weights)


@dataclass(frozen=True)
class BootstrapDraws:
    """A figure of all units, of every draw of them, and with each left out."""

    value: float
    draws: np.ndarray  # f64 [draws]
    without: np.ndarray  # f64 [units]
    estimated: bool = True  # False: the draws cannot differ (Resampling.varies), so that they tell of no uncertainty

    def interval(self) -> Interval:
        return bca(self.value, self.draws, self.without)

    def __sub__(self, other: BootstrapDraws) -> BootstrapDraws:
        return BootstrapDraws(
            self.value - other.value, self.draws - other.draws, self.without - other.without,
            self.estimated and other.estimated,
        )  # fmt: skip


def bca(value: float, draws: np.ndarray, without: np.ndarray) -> Interval:
    """The interval of a figure from its bootstrap draws and its jackknife; draws that are not finite do not count."""
    from scipy.special import ndtr, ndtri  # takes long to import, and every verb imports this module

    draws, without = draws[np.isfinite(draws)], without[np.isfinite(without)]
    if len(draws) < 2 or np.ptp(draws) <= 1e-12 * max(1.0, abs(value)):
        return Interval.exactly(value)
    share = ((draws < value).mean() + (draws <= value).mean()) / 2
    bias = ndtri(np.clip(share, 0.5 / len(draws), 1 - 0.5 / len(draws)))
    away = without.mean() - without if len(without) else np.zeros(1)
    spread = (away**2).sum() ** 1.5
    acceleration = (away**3).sum() / (6 * spread) if spread > 0 else 0.0
    ends = []
    for quantile in ((1 - COVERAGE) / 2, (1 + COVERAGE) / 2):
        z = bias + ndtri(quantile)
        ends.append(float(np.quantile(draws, ndtr(bias + z / (1 - acceleration * z)))))
    return Interval(value, *ends)


def resample(
    sums: Sums, resampling: Resampling, summarise: Callable[[Mapping[str, float]], Mapping[str, float]]
) -> dict[str, BootstrapDraws]:
    """Sums of every unit -> the metrics that `summarise` makes of their means: of all units, of every draw, and with
    each unit left out. A metric that is missing in a draw is nan there."""
    names = list(sums)
    table = np.stack([np.asarray(sums[name], np.float64) for name in names], 1)  # [units, names, 2]

    def of(weights: np.ndarray) -> list[dict[str, float]]:
        totals = np.einsum("du,unk->dnk", weights.astype(np.float64), table)
        return [
            dict(summarise({name: total / count for name, (total, count) in zip(names, row, strict=True) if count}))
            for row in totals.tolist()
        ]

    whole = of(np.ones((1, resampling.units)))[0]
    draws, without = of(resampling.counts), of(resampling.without)
    return {
        name: BootstrapDraws(
            float(value),
            *(np.array([one.get(name, math.nan) for one in many]) for many in (draws, without)),
            resampling.varies,
        )
        for name, value in whole.items()
    }


def drawn(statistic: Callable[[np.ndarray], float], resampling: Resampling) -> BootstrapDraws:
    """Any figure of a set of units: `statistic` is given their indices, with repetitions."""
    value = statistic(np.arange(resampling.units))
    many = ([statistic(resampling.indices(w)) for w in weights] for weights in (resampling.counts, resampling.without))
    return BootstrapDraws(float(value), *(np.array(values, np.float64) for values in many), resampling.varies)


def compare(
    about: Mapping[str, About], model: Mapping[str, BootstrapDraws], others: Mapping[str, Mapping[str, BootstrapDraws]]
) -> dict[str, Metric]:
    """The metrics that `about` names and the model has, each beside those of `others` that have it too; all drawn by
    one Resampling."""
    out = {}
    for name, what in about.items():
        if name not in model:
            continue
        beside = {other: found[name] for other, found in others.items() if name in found}
        out[name] = Metric(
            what,
            model[name].interval(),
            {other: one.interval() for other, one in beside.items()},
            {other: (model[name] - one).interval() for other, one in beside.items()},
            model[name].estimated,
        )
    return out


# -- the verdict ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: `good` as it should be, `fair` not surely, `bad`; and in words."""

    mark: Mark
    sentence: str


def against(
    metric: Metric, name: str, title: str, what: str, *, paired: bool = False, ahead: Mark = "bad", unit: Unit = UNIT
) -> Finding:
    """The model against one baseline. `title`: the baseline in words; `what`: the figure in words. `paired`: being
    better on the same units is sufficient, where the two can never be as far apart as units are. `ahead`: the mark of
    a figure that is better, but not surely. `unit`: the domain's."""
    other, measure = metric.baselines[name], _measure(metric)
    figures = f"{what} {metric.model.formatted(measure)}, {title} {other.formatted(measure)}"
    sign = 1 if metric.about.better == "higher" else -1
    better = sign * (metric.model.value - other.value) > 0
    if not metric.estimated:
        few = f"of too few {unit.many} to tell how surely"
        return Finding(
            "fair" if better else "bad", f"{'Better' if better else 'Not better'} than {title}, {few}: {figures}."
        )
    separated = metric.separated(name)
    if separated == "no":
        return Finding(ahead if better else "bad", f"Not surely better than {title}: {figures}.")
    sentence = f"{'Better' if better else 'Worse'} than {title}"
    if separated == "paired":
        sentence += f", compared {unit.one} by {unit.one}, by {metric.gaps[name].size().formatted(measure)}"
    sentence += f": {figures}"
    if not better:
        return Finding("bad", f"{sentence}.")
    if separated == "apart":
        return Finding("good", f"{sentence}; the intervals are apart.")
    if paired:
        return Finding("good", f"{sentence}.")
    return Finding("fair", f"{sentence}; but the intervals overlap. More held-out {unit.many} would decide.")


def floor(metric: Metric, what: str) -> Finding:
    """The model against the number that the design requires, with the reason where it requires less than usual, or
    nothing. A floor of 0 is no requirement: the sentence does not present it as one."""
    measure, bound, higher = _measure(metric), metric.about.floor, metric.about.better == "higher"
    figure, reason = f"{what} is {metric.model.formatted(measure)}", metric.about.floor_reason
    if bound is None and reason:
        return Finding("good", f"{figure}. Nothing is required of it: {reason}.")
    if not bound:
        return (
            Finding("good", f"{figure}.")
            if metric.meets()
            else Finding("fair", f"{figure}, {'below' if higher else 'above'} 0.")
        )
    required = f"{'at least' if higher else 'at most'} {bound:.3g}{measure}" + (f" ({reason})" if reason else "")
    if metric.meets():
        return Finding("good", f"{figure}; required: {required}.")
    return Finding("fair", f"{figure}, which misses what is required: {required}.")


def _measure(metric: Metric) -> str:
    return " %" if metric.about.unit == "%" else f" {metric.about.unit}" if metric.about.unit else ""


def verdict(findings: Sequence[Finding]) -> Verdict:
    """learnt: all is good. not learnt: something is bad. weak: between them. What is amiss is said first."""
    order = {"bad": 0, "fair": 1, "good": 2}
    marks = {finding.mark for finding in findings}
    word: Word = "not learnt" if "bad" in marks else "weak" if "fair" in marks or not findings else "learnt"
    said = [finding.sentence for finding in sorted(findings, key=lambda finding: order[finding.mark])]
    return Verdict(word, said)
