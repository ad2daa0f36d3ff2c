"""The held-out split, averaged exactly over batches and ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch

from training.engine.loading.batches import MicroBatch
from training.engine.loading.loader import Loader, Stopped
from training.engine.process.distributed import Ranks
from training.engine.process.heartbeat import beat
from training.engine.step.precision import Precision
from training.engine.step.step_context import seed_torch
from training.errors import UsageError
from training.recipe import Dataset, Recipe

VALIDATION_SEED = 0x7A11


class Interruption(Exception):
    """A stop was asked for in the middle of a validation: it will be done over."""


class HeldOut:
    """The held-out examples, `size` at a time: rank r takes every `world`-th micro-batch, in the same order every
    time."""

    def __init__(
        self, examples: Dataset, recipe: Recipe, ranks: Ranks, precision: Precision, size: int, *,
        say: Callable[[str], None] = print, stop: Callable[[], bool] = lambda: False,
    ):  # fmt: skip
        self.stop = stop
        self.recipe, self.ranks, self.precision = recipe, ranks, precision
        self.micro_batches = held_out_micro_batches(len(examples), size)
        self.rounds = math.ceil(len(self.micro_batches) / ranks.world)
        own = self.micro_batches[ranks.rank :: ranks.world]
        self.loader = Loader(examples, own, recipe.settings.data, ranks.device, say=say, stop=stop)

    def judge(self, model: torch.nn.Module) -> dict[str, float]:
        """Metrics of `model`, equal on every rank. Raises Interruption if `stop` is true on any rank on the way."""
        sums: dict[str, list[torch.Tensor | float]] = {}
        model_was_training = model.training
        model.eval()
        batches: Iterator = iter(self.loader)
        lacking = False  # a batch was not waited for: the ranks leave together
        try:
            for number in range(self.rounds):
                if self.ranks.any(lacking or self.stop()):
                    raise Interruption
                try:
                    batch = next(batches, None)
                except Stopped:
                    lacking = True
                    continue
                if batch is not None:
                    self._add(model, batch, number, sums)
                beat()
            if self.ranks.any(lacking):
                raise Interruption
        finally:
            model.train(model_was_training)
        own = {name: (float(total), count) for name, (total, count) in sums.items()}
        merged: dict[str, list[float]] = {}
        for part in self.ranks.gather(own):
            for name, (total, count) in part.items():
                at = merged.setdefault(name, [0.0, 0.0])
                at[0] += total
                at[1] += count
        return self.summarise({name: total / count for name, (total, count) in merged.items() if count})

    def rehearse(self, model: torch.nn.Module, examples: Dataset, micro_batches: Sequence[MicroBatch]) -> None:
        """Judge a few batches and forget the result: what validation would raise after an epoch, it raises now."""
        sums: dict[str, list[torch.Tensor | float]] = {}
        model.eval()
        for micro_batch in micro_batches:
            batch = examples.collate([examples.item(micro_batch.epoch, index) for index in micro_batch.indices])
            self._add(
                model, {key: value.to(self.ranks.device) for key, value in batch.items()}, micro_batch.number, sums
            )
        model.train()
        self.summarise({name: float(total) / count for name, (total, count) in sums.items() if count})

    @torch.no_grad()
    def _add(self, model: torch.nn.Module, batch: dict[str, torch.Tensor], number: int, sums: dict) -> None:
        seed_torch(self.ranks.device, VALIDATION_SEED, number * self.ranks.world + self.ranks.rank)
        with self.precision.autocast():
            metrics = self.recipe.validate(model, batch)
        for name, (total, count) in metrics.items():
            at = sums.setdefault(name, [0.0, 0.0])
            at[0] = at[0] + total.detach().double()
            at[1] += count

    def summarise(self, means: dict[str, float]) -> dict[str, float]:
        """Recipe.summarise, held to its promise."""
        metrics = self.recipe.summarise(means)
        monitor = self.recipe.settings.training.early_stopping.monitor
        for name in ("val_loss", monitor):
            if name not in metrics:
                raise UsageError(
                    f"training.early_stopping.monitor: `{monitor}` is no validation metric of "
                    f"{self.recipe.title}; there are "
                    f"{', '.join(sorted(metrics))}."
                    if name == monitor
                    else f"{type(self.recipe).__name__}.summarise gives no val_loss."
                )
        return metrics

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
