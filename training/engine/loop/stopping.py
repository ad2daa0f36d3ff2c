"""Which evaluation is the best one, and when to stop early. The values are the same on all ranks, and so the result."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from training.settings import EarlyStopping


@dataclass(frozen=True)
class Merit:
    """How good an evaluation is. Of both numbers, lower is better; the violation counts first."""

    violation: float = 0.0  # by how much `early_stopping.constraint` is missed; 0: it is satisfied, or there is none
    value: float = math.inf  # the monitored metric, negated where higher is better; inf: nothing was evaluated yet

    @classmethod
    def of(cls, metrics: Mapping[str, float], stopping: EarlyStopping) -> Merit:
        """The merit of an evaluation, which must hold the monitored and the constrained metric."""
        value, constraint = metrics[stopping.monitor], stopping.constraint
        value = value if stopping.direction == "lower" else -value
        if constraint.metric is None:
            return cls(0.0, value)
        bounded = metrics[constraint.metric]
        most, least = constraint.at_most, constraint.at_least  # one of the two is set
        violation = bounded - most if most is not None else least - bounded  # type: ignore[operator]
        return cls(math.inf if math.isnan(violation) else max(0.0, violation), value)

    @property
    def feasible(self) -> bool:
        """Whether the constraint is satisfied."""
        return not self.violation

    def improves_on(self, best: Merit, min_delta: float = 0.0) -> bool:
        """Whether it is better than `best`: a smaller violation, or, where violations are equal, a value lower by more
        than `min_delta`. NaN is never better."""
        if not self.value < math.inf:
            return False
        if best.value == math.inf:
            return True
        if self.violation != best.violation:
            return self.violation < best.violation
        return self.value < best.value - min_delta


class Patience:
    """Counts evaluations without an improvement of the merit (of at least `min_delta` in the monitored value)."""

    def __init__(self, settings: EarlyStopping):
        self.settings = settings
        self.best = Merit()  # the merit from which improvement is counted
        self.waited = 0  # evaluations since

    def consider(self, merit: Merit) -> None:
        """Count one evaluation."""
        if merit.improves_on(self.best, self.settings.min_delta):
            self.best, self.waited = merit, 0
        else:
            self.waited += 1

    def exhausted(self, epoch: int, min_epochs: int) -> bool:
        """Whether to stop after `epoch` epochs."""
        return self.settings.enabled and epoch >= min_epochs and self.waited >= self.settings.patience

    def state(self) -> dict[str, Any]:
        """For the checkpoint, with the settings under which evaluations were counted."""
        state = {"best": self.best.value, "waited": self.waited, "settings": self.settings.model_dump(mode="json")}
        return state | ({"violation": self.best.violation} if self.best.violation else {})

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue counting from a checkpoint."""
        self.best, self.waited = Merit(state.get("violation", 0.0), state["best"]), state["waited"]


def same_merit(before: EarlyStopping, now: EarlyStopping) -> bool:
    """Whether both rules rank evaluations in the same order."""
    return all(getattr(before, key) == getattr(now, key) for key in ("monitor", "direction", "constraint"))


def missing_metrics(metrics: Mapping[str, float], stopping: EarlyStopping) -> list[str]:
    """`setting: metric` of every metric that the rule needs and `metrics` does not hold."""
    needed = {"monitor": stopping.monitor, "constraint.metric": stopping.constraint.metric}
    return [
        f"training.early_stopping.{key}: `{name}`"
        for key, name in needed.items()
        if name is not None and name not in metrics
    ]
