"""Early stopping: the decision, from values that every rank shares."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from training.settings import EarlyStopping


@dataclass
class Patience:
    """Counts evaluations without an improvement of at least `min_delta` of the monitored value (lower is better)."""

    settings: EarlyStopping
    best: float = math.inf  # the value from which improvement is counted
    waited: int = 0  # evaluations since

    def consider(self, value: float) -> None:
        """Take in one evaluation. A value that is no number is no improvement."""
        if value < self.best - self.settings.min_delta:
            self.best, self.waited = value, 0
        else:
            self.waited += 1

    def exhausted(self, epoch: int, min_epochs: int) -> bool:
        """Whether to stop after `epoch` epochs."""
        return self.settings.enabled and epoch >= min_epochs and self.waited >= self.settings.patience

    def state(self) -> dict[str, Any]:
        """For the checkpoint; with the settings under which it was counted."""
        return {"best": self.best, "waited": self.waited, "settings": self.settings.model_dump(mode="json")}

    def load(self, state: dict[str, Any]) -> None:
        """Continue counting from a checkpoint."""
        self.best, self.waited = state["best"], state["waited"]
