"""Metrics that need more than a pass over the held-out split: Stepped.appraise on its first rows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch

from training.data.rows import Row
from training.engine.loop.validate import VALIDATION_SEED, means
from training.engine.process.distributed import Ranks
from training.engine.process.heartbeat import beat
from training.engine.step.precision import Precision
from training.engine.step.step_context import seed_torch
from training.errors import UsageError
from training.recipe import Stepped


class Appraiser:
    """Calls Stepped.appraise on the first `training.appraise_rows` of `rows`, each rank on every `world`-th of them.

    `uneven_passes`: the context in which ranks may run the model differently often."""

    def __init__(
        self, recipe: Stepped, rows: Sequence[Row], ranks: Ranks, precision: Precision,
        uneven_passes: Callable[[], AbstractContextManager[None]] = nullcontext,
    ):  # fmt: skip
        self.uneven_passes = uneven_passes
        self.recipe, self.ranks, self.precision = recipe, ranks, precision
        count = min(recipe.settings.training.appraise_rows, len(rows))
        if type(recipe).appraise is Stepped.appraise:
            count = 0
        self.rows = rows[ranks.rank : count : ranks.world] if count else ()
        self.rounds = math.ceil(count / ranks.world)  # rows of the rank that has most

    def appraise(self, model: torch.nn.Module) -> dict[str, float]:
        """Metrics of `model`, equal on every rank; nan for one whose count is 0, as the time was too short."""
        return self._of(model, self.rows)

    def sanity_check(self, model: torch.nn.Module) -> tuple[dict[str, float], float]:
        """The metrics of the first row of each rank, and the seconds that all rows are expected to take."""
        before = time.monotonic()
        metrics = self._of(model, self.rows[:1])
        taken = (time.monotonic() - before) * self.rounds
        return metrics, min(taken, self.recipe.settings.training.appraise_seconds)

    @torch.no_grad()
    def _of(self, model: torch.nn.Module, rows: Sequence[Row]) -> dict[str, float]:
        if not self.rounds:
            return {}
        was_training = model.training
        model.eval()
        seed_torch(self.ranks.device, VALIDATION_SEED, self.ranks.rank)
        beat()
        try:
            with self.uneven_passes(), self.precision.autocast():
                seconds = self.recipe.settings.training.appraise_seconds
                sums = self.recipe.appraise(model, rows, seconds) if len(rows) else {}
        finally:
            model.train(was_training)
        beat()
        metrics = means(self.ranks, sums or {}, empty=math.nan)
        vectors = [name for name, value in metrics.items() if not isinstance(value, float)]
        if vectors:
            raise UsageError(
                f"{type(self.recipe).__name__}.appraise must give one number a metric; these are vectors: "
                f"{', '.join(vectors)}."
            )
        return metrics
