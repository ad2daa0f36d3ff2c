"""Statistics of held-out metrics: bootstrap intervals over sampling units, comparisons with baselines, and a verdict.

Samples within one unit of a domain (training/sampling_unit.py) are alike, and only different units are independent. So
complete units are drawn with replacement, and the model and its baselines are judged on the same draws. Intervals are
BCa (bias-corrected and accelerated: Efron 1987, "Better bootstrap confidence intervals"; DiCiccio and Efron 1996), with
95 % confidence and a fixed seed, and widened for few units (`bca`).
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
#: Fewer units (or clusters) show nothing: by chance, all of n lie on one side of the true value in 2 of 2^n cases.
LEAST_UNITS = 4
FEW = {"estimated": False}  # in metrics.json, of a metric whose intervals mean nothing

#: Metric -> (sum, number of elements) of every unit: f64 [units, 2].
Sums = Mapping[str, np.ndarray]
Word = Literal["learnt", "weak", "not learnt"]
Mark = Literal["good", "fair", "bad"]


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % confidence interval."""

    value: float
    low: float
    high: float

    @classmethod
    def exactly(cls, value: float) -> Interval:
        """An interval of zero width: the value is exact, or its interval is not known."""
        return cls(float(value), float(value), float(value))

    def apart(self, other: Interval) -> bool:
        """Whether the two intervals do not overlap."""
        return self.high < other.low or other.high < self.low

    def size(self) -> Interval:
        """The absolute value of a difference whose interval does not contain 0."""
        return self if self.low > 0 else Interval(-self.value, -self.high, -self.low)

    def formatted(self, unit: str = "") -> str:
        """As text: 1.23 (1.1 to 1.4)."""
        certain = self.low == self.value == self.high
        return f"{self.value:.3g}{unit}" + ("" if certain else f" ({self.low:.3g} to {self.high:.3g})")


@dataclass(frozen=True)
class About:
    """The description of a metric."""

    better: Literal["lower", "higher"]
    unit: str
    meaning: str  # a sentence for people who do not know the field
    floor: float | None = None  # the value that the design requires, if any; 0 is not presented as a requirement
    floor_reason: str | None = None  # a clause: why less than the design names is required, or nothing
    title: str | None = None  # for people, where the key of the metric is not clear


@dataclass(frozen=True)
class Metric:
    """A metric of the model, and the same metric of its baselines."""

    about: About
    model: Interval
    baselines: Mapping[str, Interval] = field(default_factory=dict)
    #: baseline -> model - baseline on the same units. If this interval does not contain 0, the two differ even where
    #: their intervals overlap.
    gaps: Mapping[str, Interval] = field(default_factory=dict)
    estimated: bool = True  # False: of too few units for an interval (BootstrapDraws.estimated)

    def separated(self, name: str) -> Literal["apart", "paired", "no"]:
        """Whether the two differ significantly: "apart" if their intervals do not overlap, "paired" if only the
        interval of the paired difference shows it."""
        if self.model.apart(self.baselines[name]):
            return "apart"
        gap = self.gaps.get(name)
        return "paired" if gap is not None and gap.low * gap.high > 0 else "no"

    def beats(self, name: str) -> Literal["apart", "paired", "no"]:
        """Whether the model is better than a baseline: "apart" if their intervals do not overlap, "paired" if only the
        interval of the paired difference shows it, "no" if it is worse or the difference is not significant."""
        sign = 1 if self.about.better == "higher" else -1
        return self.separated(name) if sign * (self.model.value - self.baselines[name].value) > 0 else "no"

    def meets(self) -> bool:
        """Whether the model reaches the floor; true if there is none."""
        if self.about.floor is None:
            return True
        sign = 1 if self.about.better == "higher" else -1
        return sign * (self.model.value - self.about.floor) >= 0

    def plain(self) -> dict[str, Any]:
        """The entry in metrics.json."""
        baselines = {name: vars(value) for name, value in self.baselines.items()}
        for name, gap in self.gaps.items():
            baselines[name] = baselines[name] | {"gap": vars(gap)}
        about = {key: value for key, value in vars(self.about).items() if value is not None}
        return {"model": vars(self.model), "baselines": baselines} | about | ({} if self.estimated else FEW)


@dataclass(frozen=True)
class Verdict:
    word: Word
    why: Sequence[str]


@dataclass(frozen=True)
class Judgement:
    """The result of evaluating a model. `more`: additional entries for metrics.json, in a format of the family."""

    metrics: Mapping[str, Metric]
    verdict: Verdict
    more: Mapping[str, Any] = field(default_factory=dict)


# -- resampling ----------------------------------------------------------------------------------------------------


class Resampling:
    """Draws of units, which the model and its baselines share.

    `strata`: int [units]; if given, units are drawn within each stratum only (a class, for example). `clusters`: int
    [units]; if given, clusters of units (the questions about one database, for example) are drawn, and then the units
    of each drawn cluster (a two-stage bootstrap: Davison and Hinkley 1997, section 3.8).
    """

    def __init__(
        self,
        units: int,
        seed: int,
        strata: np.ndarray | None = None,
        draws: int = DRAWS,
        clusters: np.ndarray | None = None,
    ):
        random = np.random.default_rng((seed, 0xB007))
        if clusters is not None:
            self._draw_clusters(random, np.asarray(clusters), draws)
            return
        strata = np.zeros(units, np.int64) if strata is None else np.asarray(strata)
        self.counts = np.zeros((draws, units), np.int64)  # how often each unit is drawn
        for stratum in np.unique(strata):
            own = np.flatnonzero(strata == stratum)
            self.counts[:, own] = random.multinomial(len(own), np.full(len(own), 1 / len(own)), size=draws)
        # each unit left out once: BCa needs the jackknife; without the only one, nothing is left to measure
        self.without = (1 - np.eye(units, dtype=np.int64))[: units if units > 1 else 0]
        self.units = units

    def _draw_clusters(self, random: np.random.Generator, clusters: np.ndarray, draws: int) -> None:
        members = [np.flatnonzero(clusters == cluster) for cluster in np.unique(clusters)]
        self.units = len(clusters)
        self.counts = np.zeros((draws, self.units), np.int64)
        drawn = random.multinomial(len(members), np.full(len(members), 1 / len(members)), size=draws)
        for own, times in zip(members, drawn.T, strict=True):
            # a cluster that is drawn twice contributes two independent draws of its units
            self.counts[:, own] = random.multinomial(times * len(own), np.full(len(own), 1 / len(own)))
        self.without = np.ones((len(members), self.units), np.int64)  # each cluster left out once
        for number, own in enumerate(members):
            self.without[number, own] = 0
        if len(members) < 2:  # one cluster shows nothing about others
            self.counts[:] = 1
            self.without = self.without[:0]

    @property
    def suffices(self) -> bool:
        """Whether the draws show how certain a figure is: they differ, and are of LEAST_UNITS units or clusters."""
        return self.varies and len(self.without) >= LEAST_UNITS

    @property
    def varies(self) -> bool:
        """Whether the draws differ: with one unit, or one per stratum, all are equal, and there is no interval."""
        return bool((self.counts != 1).any())

    def indices(self, weights: np.ndarray) -> np.ndarray:
        """The counts of a draw [units] -> the indices of its units, with repetitions."""
        return np.repeat(np.arange(self.units), weights)


@dataclass(frozen=True)
class BootstrapDraws:
    """A metric over all units, over every draw, and with each unit left out."""

    value: float
    draws: np.ndarray  # f64 [draws]
    without: np.ndarray  # f64 [units]
    estimated: bool = True  # False: of too few units (Resampling.suffices) for an interval that means anything

    def interval(self) -> Interval:
        return bca(self.value, self.draws, self.without)

    def __sub__(self, other: BootstrapDraws) -> BootstrapDraws:
        return BootstrapDraws(
            self.value - other.value, self.draws - other.draws, self.without - other.without,
            self.estimated and other.estimated,
        )  # fmt: skip


def bca(value: float, draws: np.ndarray, without: np.ndarray) -> Interval:
    """The BCa interval of a metric from its bootstrap draws and its jackknife; values that are not finite are
    ignored.

    Of n units, the normal distribution's quantiles are replaced by those of Student's t with n - 1 degrees of freedom,
    times sqrt(n / (n - 1)), as in the expanded percentile interval of Hesterberg (2015, "What Teachers Should Know
    About the Bootstrap"): the draws vary less than the figure does. Without that, a difference that is 0 on average has
    an interval above 0 in 8 % of samples of six units and in 5 % of ten, and not in 2.5 %.
    """
    from scipy.special import ndtr, ndtri, stdtrit  # slow to import, and every verb imports this module

    draws, without = draws[np.isfinite(draws)], without[np.isfinite(without)]
    if len(draws) < 2 or np.ptp(draws) <= 1e-12 * max(1.0, abs(value)):
        return Interval.exactly(value)
    share = ((draws < value).mean() + (draws <= value).mean()) / 2
    bias = ndtri(np.clip(share, 0.5 / len(draws), 1 - 0.5 / len(draws)))
    away = without.mean() - without if len(without) else np.zeros(1)
    spread = (away**2).sum() ** 1.5
    acceleration = (away**3).sum() / (6 * spread) if spread > 0 else 0.0
    units, upper, ends = len(without), (1 + COVERAGE) / 2, []
    reach = stdtrit(units - 1, upper) * math.sqrt(units / (units - 1)) if units > 1 else ndtri(upper)
    for quantile in (-reach, reach):
        z = bias + quantile
        ends.append(float(np.quantile(draws, ndtr(bias + z / (1 - acceleration * z)))))
    return Interval(value, *ends)


def resample(
    sums: Sums, resampling: Resampling, summarise: Callable[[Mapping[str, float]], Mapping[str, float]]
) -> dict[str, BootstrapDraws]:
    """The metrics that `summarise` makes of the means of `sums`: over all units, over every draw, and with each unit
    left out. A metric that is missing in a draw is nan there."""
    names = list(sums)
    table = np.stack([np.asarray(sums[name], np.float64) for name in names], 1)  # [units, names, 2]

    def of(weights: np.ndarray) -> list[dict[str, float]]:
        totals = np.einsum("du,unk->dnk", weights.astype(np.float64), table)
        return [
            dict(summarise({name: total / count for name, (total, count) in zip(names, row, strict=True) if count}))
            for row in totals.tolist()
        ]

    values = of(np.ones((1, resampling.units)))[0]
    draws, without = of(resampling.counts), of(resampling.without)
    return {
        name: BootstrapDraws(
            float(value),
            *(np.array([one.get(name, math.nan) for one in many]) for many in (draws, without)),
            resampling.suffices,
        )
        for name, value in values.items()
    }


def drawn(statistic: Callable[[np.ndarray], float], resampling: Resampling) -> BootstrapDraws:
    """The draws of any statistic, which gets the indices of a draw's units, with repetitions."""
    value = statistic(np.arange(resampling.units))
    many = ([statistic(resampling.indices(w)) for w in weights] for weights in (resampling.counts, resampling.without))
    return BootstrapDraws(float(value), *(np.array(values, np.float64) for values in many), resampling.suffices)


def compare(
    about: Mapping[str, About], model: Mapping[str, BootstrapDraws], others: Mapping[str, Mapping[str, BootstrapDraws]]
) -> dict[str, Metric]:
    """The metrics of `about` that the model has, each with the same metric of those `others` that have it. All must be
    drawn with one Resampling."""
    out = {}
    for name, what in about.items():
        if name not in model:
            continue
        same = {other: found[name] for other, found in others.items() if name in found}
        out[name] = Metric(
            what,
            model[name].interval(),
            {other: one.interval() for other, one in same.items()},
            {other: (model[name] - one).interval() for other, one in same.items()},
            model[name].estimated,
        )
    return out


# -- the verdict ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """The result of one comparison: a mark (`good`; `fair`: not certain; `bad`) and a sentence that explains it."""

    mark: Mark
    sentence: str


def against(
    metric: Metric, name: str, title: str, what: str, *, paired: bool = False, ahead: Mark = "bad", unit: Unit = UNIT
) -> Finding:
    """Compare the model with one baseline. `title`: the baseline in words; `what`: the metric in words. `paired`: a
    significant paired difference is sufficient, since units differ from each other far more than model and baseline
    can. `ahead`: the mark for a value that is better, but not significantly. `unit`: the domain's."""
    other, measure = metric.baselines[name], _measure(metric)
    figures = f"{what} {metric.model.formatted(measure)}, {title} {other.formatted(measure)}"
    sign = 1 if metric.about.better == "higher" else -1
    better = sign * (metric.model.value - other.value) > 0
    if not metric.estimated:
        few = f"of too few {unit.many} to say how certain that is"
        return Finding(
            "fair" if better else "bad", f"{'Better' if better else 'Not better'} than {title}, {few}: {figures}."
        )
    separated = metric.separated(name)
    if separated == "no":
        return Finding(ahead if better else "bad", f"Not significantly better than {title}: {figures}.")
    sentence = f"{'Better' if better else 'Worse'} than {title}"
    if separated == "paired":
        sentence += f", compared {unit.one} by {unit.one}, by {metric.gaps[name].size().formatted(measure)}"
    sentence += f": {figures}"
    if not better:
        return Finding("bad", f"{sentence}.")
    if separated == "apart":
        return Finding("good", f"{sentence}; the intervals do not overlap.")
    if paired:
        return Finding("good", f"{sentence}.")
    return Finding("fair", f"{sentence}; but the intervals overlap. More held-out {unit.many} would decide.")


def floor(metric: Metric, what: str) -> Finding:
    """Compare the model with the value that the design requires, with the reason if less than usual, or nothing, is
    required. A floor of 0 is a bound and not a requirement, so the sentence does not call it required."""
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
    """`learnt` if all findings are good, `not learnt` if one is bad, else `weak`. Bad findings are listed first."""
    order = {"bad": 0, "fair": 1, "good": 2}
    marks = {finding.mark for finding in findings}
    word: Word = "not learnt" if "bad" in marks else "weak" if "fair" in marks or not findings else "learnt"
    why = [finding.sentence for finding in sorted(findings, key=lambda finding: order[finding.mark])]
    return Verdict(word, why)
