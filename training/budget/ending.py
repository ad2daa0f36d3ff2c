"""What a family's end takes on the reference cores.

Standard library alone: domains state it among their facts, which a plan is made of before there is an environment.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from training.host import gpus

STAGES = ("evaluate", "export", "verify")


@dataclass(frozen=True)
class Line:
    """Seconds on the reference cores, by the size of a model."""

    base: float
    per_million: float  # weights

    def seconds(self, millions: float) -> float:
        return self.base + self.per_million * millions


@dataclass(frozen=True)
class Ending:
    """What a family's end takes on the reference cores (two, of an AMD EPYC of the Zen 5 generation), imports included.
    The default is generous to families that write no samples and have one graph."""

    evaluate: Line = Line(8.0, 22.0)
    export: Line = Line(15.0, 20.0)
    verify: Line = Line(3.0, 1.0)
    #: Trained baselines (EvaluationContext.train_baseline): the share of the training's own seconds that they take, and
    #: the most.
    baseline_share: float = 0.0
    baseline_most: Line = Line(0.0, 0.0)
    millions: float | None = None  # weights, as long as there is no checkpoint; None: not known

    def seconds(self, stage: str, millions: float, trained: float) -> float:
        """Of one stage, after `trained` seconds of training; 0 for a stage of which nothing is known beforehand."""
        if stage not in STAGES:
            return 0.0
        if stage != "evaluate":
            return getattr(self, stage).seconds(millions)
        if _has_gpu():
            return EVALUATED_BY_GPU.seconds(millions)
        baselines = min(self.baseline_share * trained, self.baseline_most.seconds(millions))
        return self.evaluate.seconds(millions) + baselines


#: A GPU evaluates; export and verification are the CPU's work. The line of a GPU is an assumption.
EVALUATED_BY_GPU = Line(30.0, 6.0)


@cache
def _has_gpu() -> bool:
    return bool(gpus())
