"""Validation: metrics over the held-out split, averaged exactly over batches and ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch

from training.engine.loading.batches import MicroBatch
from training.engine.loading.loader import Loader, Stopped
from training.engine.loop.stopping import missing_metrics
from training.engine.process.distributed import Ranks
from training.engine.process.heartbeat import beat
from training.engine.step.precision import Precision
from training.engine.step.step_context import seed_torch
from training.errors import UsageError
from training.recipe import Dataset, Recipe, Stepped, Sums

VALIDATION_SEED = 0x7A11


class Interruption(Exception):
    """A stop was requested during a validation, which the resumed run will repeat."""


class HeldOut:
    """Evaluates models on the held-out dataset in micro-batches of `size`. Rank r evaluates every `world`-th one,
    always in the same order. `uneven_passes`: the context in which ranks may run the model differently often."""

    def __init__(
        self, dataset: Dataset, recipe: Stepped, ranks: Ranks, precision: Precision, size: int, *,
        say: Callable[[str], None] = print, stop: Callable[[], bool] = lambda: False,
        uneven_passes: Callable[[], AbstractContextManager[None]] = nullcontext,
    ):  # fmt: skip
        self.stop, self.uneven_passes = stop, uneven_passes
        self.recipe, self.ranks, self.precision = recipe, ranks, precision
        self.micro_batches = held_out_micro_batches(len(dataset), size)
        self.rounds = math.ceil(len(self.micro_batches) / ranks.world)
        own = self.micro_batches[ranks.rank :: ranks.world]
        self.loader = Loader(dataset, own, recipe.settings.data, ranks.device, say=say, stop=stop)

    def evaluate(self, model: torch.nn.Module) -> dict[str, float]:
        """Metrics of `model`, equal on every rank. Raises Interruption if `stop` returns true on any rank meanwhile."""
        sums: dict[str, list[Any]] = {}
        model_was_training = model.training
        model.eval()
        batches: Iterator = iter(self.loader)
        try:
            for number in range(self.rounds):
                batch, stopped = None, self.stop()
                try:
                    batch = None if stopped else next(batches, None)
                except Stopped:  # by the loader, which waited for a batch
                    stopped = True
                if self.ranks.any(stopped):
                    raise Interruption
                with self.uneven_passes():
                    if batch is not None:
                        self._add(model, batch, number, sums)
                beat()
        finally:
            model.train(model_was_training)
        return self.summarise(means(self.ranks, sums))

    def sanity_check(
        self, model: torch.nn.Module, dataset: Dataset, micro_batches: Sequence[MicroBatch]
    ) -> dict[str, float]:
        """Evaluate a few batches on this rank, to raise now what validation would raise after the first epoch."""
        sums: dict[str, list[Any]] = {}
        model.eval()
        for micro_batch in micro_batches:
            batch = dataset.collate([dataset.item(micro_batch.epoch, index) for index in micro_batch.indices])
            self._add(
                model, {key: value.to(self.ranks.device) for key, value in batch.items()}, micro_batch.number, sums
            )
        model.train()
        return self.summarise({name: plain(total) / count for name, (total, count) in sums.items() if count})

    @torch.no_grad()
    def _add(self, model: torch.nn.Module, batch: dict[str, torch.Tensor], number: int, sums: dict) -> None:
        seed_torch(self.ranks.device, VALIDATION_SEED, number * self.ranks.world + self.ranks.rank)
        with self.precision.autocast():
            metrics = self.recipe.validate(model, batch)
        for name, (total, count) in metrics.items():
            at = sums.setdefault(name, [0.0, 0.0])
            at[0] = at[0] + total.detach().double()
            at[1] += count

    def summarise(self, averages: Mapping[str, Any]) -> dict[str, float]:
        """Recipe.summarise. Raises UsageError if it gives no `val_loss`, or a metric that is not one number."""
        metrics = self.recipe.summarise(averages)
        where = f"{type(self.recipe).__name__}.summarise"
        if "val_loss" not in metrics:
            raise UsageError(f"{where} gives no val_loss.")
        vectors = [name for name, value in metrics.items() if np.ndim(value)]
        if vectors:
            raise UsageError(f"{where} must give one number a metric; these are vectors: {', '.join(vectors)}.")
        return {name: float(value) for name, value in metrics.items()}

    def __enter__(self) -> HeldOut:
        return self

    def __exit__(self, *error: object) -> None:
        self.loader.__exit__(*error)


def held_out_micro_batches(samples: int, size: int) -> Sequence[MicroBatch]:
    """The held-out samples in their own order, `size` at a time."""
    return [
        MicroBatch(n, 0, tuple(range(start, min(start + size, samples))))
        for n, start in enumerate(range(0, samples, size))
    ]


def plain(total: Any) -> Any:
    """A sum as a number, or as a float64 vector."""
    if isinstance(total, torch.Tensor):
        total = total.cpu()
    return np.asarray(total, np.float64) if np.ndim(total) else float(total)


def means(ranks: Ranks, sums: Sums | Mapping[str, Sequence[Any]], empty: float | None = None) -> dict[str, Any]:
    """Metric -> its mean over all ranks: a number, or a float64 vector. A metric whose count is 0 is left out, or gets
    the value `empty`."""
    own = {name: (plain(total), count) for name, (total, count) in sums.items()}
    merged: dict[str, list[Any]] = {}
    for part in ranks.gather(own):
        for name, (total, count) in part.items():
            at = merged.setdefault(name, [0.0, 0.0])
            at[0] = at[0] + total
            at[1] += count
    found = {name: total / count for name, (total, count) in merged.items() if count}
    return found if empty is None else dict.fromkeys(merged, empty) | found


def require_metrics(metrics: Mapping[str, float], recipe: Recipe) -> None:
    """Raise UsageError if an evaluation does not hold a metric that early stopping needs."""
    training = recipe.settings.training
    missing = missing_metrics(metrics, training.early_stopping)
    if missing:
        appraises = isinstance(recipe, Stepped) and type(recipe).appraise is not Stepped.appraise
        appraises = appraises and not training.appraise_rows
        raise UsageError(
            f"{' and '.join(missing)} is not a validation metric of {recipe.title}; its metrics are "
            f"{', '.join(sorted(metrics))}."
            + (" Those of `appraise` are measured where training.appraise_rows is above 0." if appraises else "")
        )
