"""Model, optimizer and counters of a stepped run; to a checkpoint and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from training.engine.checkpoints.index import FORMAT
from training.engine.checkpoints.partial import load_state, split_state
from training.engine.checkpoints.provenance import plain
from training.engine.loading.batches import BatchPlan, mixed
from training.engine.loop.guards import Diverged
from training.engine.loop.progress import Progress
from training.engine.loop.stopping import Patience
from training.engine.process.distributed import Ranks
from training.engine.process.sharding import Sharding, local
from training.engine.step.ema import EMA
from training.engine.step.optimizer import AdamW
from training.engine.step.precision import Precision, apply_dtype_policy
from training.errors import TrainingError, UsageError
from training.recipe import Stepped
from training.settings import RunSettings

OWN_OPTIONS = ("initial_lr", "betas", "eps", "weight_decay")  # of the optimizer: from the settings, not the checkpoint
INITIAL = 0x1417  # makes the seed of the initial weights differ from those of the steps


def planned(settings: RunSettings, plan: BatchPlan) -> int:
    """Optimizer steps of the run: those of all epochs, or `max_steps` if that is less."""
    steps = settings.training.epochs * plan.steps_per_epoch
    return min(steps, settings.training.max_steps) if settings.training.max_steps else steps


class State:
    """Model, optimizer, averages and counters of one run."""

    def __init__(
        self, recipe: Stepped, plan: BatchPlan, ranks: Ranks, constants: Mapping[str, np.ndarray], limit: float = 0.0
    ):
        settings = recipe.settings
        self.limit = limit  # seconds of the budget; 0: none
        self.recipe, self.ranks = recipe, ranks
        self.planned = planned(settings, plan)
        self.constants = {name: torch.as_tensor(np.asarray(value)) for name, value in constants.items()}
        torch.manual_seed(mixed(settings.seed, INITIAL))
        self.model = apply_dtype_policy(recipe.build(dict(constants)), recipe.dtype_policy)
        sharded = recipe.parallel == "fsdp" and ranks.world > 1
        self.sharding = Sharding(recipe, self.model, ranks) if sharded else None
        self.plan = replace(plan, even=sharded)
        if not sharded:
            self.model.to(ranks.device)
            ranks.broadcast({k: v for k, v in self.model.state_dict().items() if isinstance(v, torch.Tensor)})
        self.model.train()
        optim = settings.optim
        groups = [g for g in recipe.parameter_groups(self.model) if g["params"]]
        if not groups:
            raise TrainingError(f"{recipe.title} has no parameter to train.")
        if self.sharding:
            groups = self.sharding.parameter_groups(groups)
        self.fused = all(
            p.is_floating_point() and p.device.type in ("cpu", "cuda") for g in groups for p in g["params"]
        )
        self.optimizer = AdamW(
            groups, lr=optim.lr, betas=optim.betas, eps=optim.eps, weight_decay=optim.weight_decay, fused=self.fused
        )
        for group in self.optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        self.precision = Precision(settings.training, ranks.device, recipe.dtype_policy)
        self.ema = EMA(self.model, settings.training.ema_decay) if settings.training.ema_decay else None
        self.patience = Patience(settings.training.early_stopping)
        self.metrics: dict[str, float] = {}  # the newest evaluation's
        self.progress = Progress(
            samples=plan.samples, global_batch=plan.global_batch, total_steps=self.planned, limit=limit
        )

    @property
    def epoch(self) -> int:
        """Epochs finished."""
        return self.progress.step // self.plan.steps_per_epoch

    def at_epoch_end(self) -> bool:
        """Whether the newest step was the last of an epoch."""
        return self.progress.step > 0 and self.progress.step % self.plan.steps_per_epoch == 0

    def uneven_passes(self) -> AbstractContextManager[None]:
        """The context in which ranks may run the model differently often, without gradients."""
        return self.sharding.uneven_passes() if self.sharding else nullcontext()

    def to_checkpoint(self, provenance: Mapping[str, Any]) -> dict[str, Any]:
        """The content of a checkpoint, of plain containers and tensors: torch.load(weights_only=True) reads it. Where
        parameters are sharded, every rank must call this, and the result is complete on rank 0 alone. Raises Diverged
        for weights that are not finite, which are never saved."""
        model, frozen = split_state(self.recipe, self.model)
        floats = [local(v) for v in model.values() if v.is_floating_point()]
        bad = not torch.stack([torch.isfinite(v).all() for v in floats]).all()
        if self.ranks.any(bad) if self.sharding else bad:
            raise Diverged(f"The weights are not finite after step {self.progress.step}; they were not saved.")
        gathered = self.sharding.gathered if self.sharding else dict
        model = gathered(model)
        ema = gathered(self.ema.state(model)) if self.ema else None
        optimizer = self.sharding.gathered_optimizer(self.optimizer) if self.sharding else self.optimizer.state_dict()
        return {
            "format": FORMAT,
            "family": self.recipe.run,
            "settings": plain(self.recipe.settings),
            "model": model,
            "ema": ema,
            **({"frozen": frozen} if frozen else {}),
            "constants": self.constants,
            "optimizer": optimizer,
            "scaler": self.precision.scaler.state_dict() if self.precision.scaler else None,
            "progress": self.progress.plain(self.epoch, self.progress.step % self.plan.steps_per_epoch),
            "early_stopping": self.patience.state(),
            "metrics": dict(self.metrics),
            "provenance": {**provenance, "seconds": self.progress.seconds},
        }

    def load(self, checkpoint: Mapping[str, Any], name: str) -> None:
        """Load a checkpoint. `name`: for messages. Raises UsageError if it is of another family or of another shape."""
        if checkpoint["family"] != self.recipe.run:
            raise UsageError(f"{name} is a checkpoint of {checkpoint['family']}, not of {self.recipe.run}.")
        try:
            if self.sharding:
                checkpoint = self.sharding.scattered(checkpoint, self.optimizer)
            load_state(self.recipe, self.model, checkpoint, name)
            saved = checkpoint["optimizer"]
            for group in saved["param_groups"]:  # the implementation of the step depends on this host
                group["fused"], group["foreach"] = self.fused, None
            own = [{k: g[k] for k in OWN_OPTIONS} for g in self.optimizer.param_groups]
            self.optimizer.load_state_dict(saved)
            for group, options in zip(self.optimizer.param_groups, own, strict=True):
                group.update(options)
        except (RuntimeError, ValueError, KeyError) as error:
            raise UsageError(
                f"{name} does not fit the model that the settings describe:\n{error}\nUse the settings it was "
                "trained with (its `settings`), or start again without it."
            ) from None
        if self.ema:
            self.ema.load(checkpoint["ema"] or checkpoint["model"])
        if self.precision.scaler and checkpoint["scaler"]:
            self.precision.scaler.load_state_dict(checkpoint["scaler"])
        self.progress = Progress.saved(checkpoint["progress"])
        self.patience.load(checkpoint["early_stopping"])
        self.metrics = dict(checkpoint["metrics"])
        self._replan(checkpoint)

    def _replan(self, checkpoint: Mapping[str, Any]) -> None:
        """Adapt the saved progress to the present run: its data, its length, its rule for early stopping."""
        progress = self.progress
        if (progress.samples, progress.global_batch) != (self.plan.samples, self.plan.global_batch):
            before = max(1, math.ceil(progress.samples / progress.global_batch))
            progress.step = progress.step // before * self.plan.steps_per_epoch
            # in present steps, too: whether the requested run is longer is decided by it
            progress.total_steps = round(progress.total_steps * self.plan.steps_per_epoch / before)
            progress.evaluated = min(progress.evaluated, progress.step)
            progress.archived_step = min(progress.archived_step, progress.step)
            progress.samples, progress.global_batch = self.plan.samples, self.plan.global_batch
        settings = plain(self.recipe.settings)
        if checkpoint["settings"]["data"]["batch_size"] == settings["data"]["batch_size"]:
            self.plan = replace(self.plan, halvings=progress.halvings)
        progress.halvings = self.plan.halvings
        before = checkpoint["settings"]["training"]
        progress.plan_again(self.patience, before, self.recipe.settings.training, self.planned, self.limit)
