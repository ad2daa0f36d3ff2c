"""How long evaluating, exporting and verifying a family takes on the reference cores.

Uses the standard library only: domains declare it in their FamilyFacts, which are read before there is an environment.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from training.host import gpus

STAGES = ("evaluate", "export", "verify")


@dataclass(frozen=True)
class Line:
    """A linear model of seconds on the reference cores, by the size of a model."""

    base: float
    per_million: float  # seconds per million parameters

    def seconds(self, millions: float) -> float:
        return self.base + self.per_million * millions


@dataclass(frozen=True)
class Ending:
    """How long each of the last stages of a family takes on the reference cores (two, of an AMD EPYC of the Zen 5
    generation), imports included. The default is more than a family needs that writes no samples and has one graph."""

    evaluate: Line = Line(8.0, 22.0)
    export: Line = Line(15.0, 20.0)
    verify: Line = Line(3.0, 1.0)
    #: The time of trained baselines (EvaluationContext.train_baseline): as a share of the training's seconds, and its
    #: upper limit.
    baseline_share: float = 0.0
    baseline_most: Line = Line(0.0, 0.0)
    millions: float | None = None  # millions of parameters, used while there is no checkpoint; None: not known

    def seconds(self, stage: str, millions: float, trained: float) -> float:
        """Seconds of one stage after `trained` seconds of training; 0 for a stage that is not predicted."""
        if stage not in STAGES:
            return 0.0
        if stage != "evaluate":
            return getattr(self, stage).seconds(millions)
        if _has_gpu():
            return EVALUATED_BY_GPU.seconds(millions)
        baselines = min(self.baseline_share * trained, self.baseline_most.seconds(millions))
        return self.evaluate.seconds(millions) + baselines


#: A GPU is used for the evaluation, not for export and verification. These numbers are assumed, not measured.
EVALUATED_BY_GPU = Line(30.0, 6.0)


@cache
def _has_gpu() -> bool:
    return bool(gpus())
