"""A tiny stepped family (regression with dropout, 1 to 4 elements a sample) whose subclasses inject faults."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from training.config import Layer, Section, build
from training.data.manifest import Row
from training.recipe import Loss, Stepped, TrainingProgress
from training.settings import RunSettings
from training.workspace import Workspace


class Model(Section):
    width: int = 16
    dropout: float = 0.0


class Faults(Section):
    """Faults to inject."""

    nan_samples: tuple[int, ...] = ()  # training samples whose target is NaN


class ToySettings(RunSettings):
    model: Model = Model()
    faults: Faults = Faults()


class ToyDataset:
    """y = sum of x, on 1 to 4 elements a sample; item noise depends on the epoch, as an augmentation would."""

    def __init__(self, rows: list[Row], training: bool, faults: Faults):
        self.rows, self.training, self.faults = rows, training, faults

    def __len__(self) -> int:
        return len(self.rows)

    def item(self, epoch: int, index: int) -> dict[str, np.ndarray]:
        number = self.rows[index].values["number"]
        random = np.random.default_rng([number, epoch if self.training else 0])
        x = random.standard_normal((4, 8)).astype(np.float32)
        y = x.sum(1)
        if self.training and number in self.faults.nan_samples:
            y[:] = np.nan
        kept = np.arange(4) < 1 + number % 4
        return {"x": x, "y": y, "kept": kept, "number": np.int64(number)}

    def collate(self, items: list[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
        return {key: torch.as_tensor(np.stack([item[key] for item in items])) for key in items[0]}


class ToyModel(torch.nn.Module):
    def __init__(self, settings: Model, scale: np.ndarray):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(8, settings.width),
            torch.nn.ReLU(),
            torch.nn.Dropout(settings.dropout),
            torch.nn.Linear(settings.width, 1),
        )
        self.register_buffer("scale", torch.as_tensor(scale))
        self.seen: set[torch.dtype] = set()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.layers[0](x * self.scale)
        self.seen.add(hidden.dtype)
        return self.layers[1:](hidden).squeeze(-1)


class ToyRecipe(Stepped):
    family = "toy"
    title = "Toy"
    manifest = "toy"
    settings_type = ToySettings
    log: ClassVar[list[tuple[int, list[int]]]] = []  # (step, sample numbers) of every training micro-batch
    progresses: ClassVar[list[TrainingProgress]] = []
    models: ClassVar[list[torch.nn.Module]] = []
    signal_at: ClassVar[int] = -1  # the training loss of this step sends SIGTERM
    signal_in_validation: ClassVar[int] = -1  # so does this call of validate (two are the sanity check's)
    validations = 0

    def encoders(self) -> dict[str, Any]:
        return {}

    def dataset(self, rows: list[Row], training: bool) -> ToyDataset:
        return ToyDataset(rows, training, self.settings.faults)

    def fit_constants(self, rows: list[Row]) -> dict[str, np.ndarray]:
        return {"scale": np.full(8, 0.5, np.float32)}

    def build(self, constants: dict[str, np.ndarray]) -> ToyModel:
        model = ToyModel(self.settings.model, constants["scale"])
        self.models.append(model)
        return model

    def counts(self, batch: dict[str, torch.Tensor]) -> dict[str, float]:
        return {"error": float(batch["kept"].sum()), "size": float(batch["kept"].sum())}

    def losses(
        self, model: torch.nn.Module, batch: dict[str, torch.Tensor], progress: TrainingProgress
    ) -> dict[str, Loss]:
        self.log.append((progress.step, batch["number"].tolist()))
        self.progresses.append(progress)
        if progress.step == self.signal_at:
            os.kill(os.getpid(), signal.SIGTERM)
        predicted = model(batch["x"]).float()
        error = ((predicted - batch["y"]) ** 2)[batch["kept"]].sum()
        size = predicted.abs()[batch["kept"]].sum()
        return {"error": Loss(error), "size": Loss(size, coefficient=0.0)}

    def validate(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, tuple[torch.Tensor, float]]:
        self.validations += 1
        if self.validations == self.signal_in_validation:
            os.kill(os.getpid(), signal.SIGTERM)
        predicted = model(batch["x"]).float()
        error = ((predicted - batch["y"]) ** 2)[batch["kept"]].sum()
        return {"val_loss": (error, float(batch["kept"].sum()))}

    def graphs(self, model: torch.nn.Module) -> list[Any]:
        return []


def stopped(step: int = -1, validation: int = -1, kind: type[ToyRecipe] = ToyRecipe) -> type[ToyRecipe]:
    """A toy that gets SIGTERM in the middle of a step, or of a validation."""
    return type("Stopped", (kind,), {"signal_at": step, "signal_in_validation": validation})


def hungry(
    size: int, since: int = 0, kind: type[ToyRecipe] = ToyRecipe, error: type[RuntimeError] = torch.OutOfMemoryError
) -> type[ToyRecipe]:
    """A toy whose backward pass runs out of memory for more than `size` samples, from step `since` on."""

    class Refusing(torch.autograd.Function):
        @staticmethod
        def forward(ctx, total):
            return total.clone()

        @staticmethod
        def backward(ctx, gradient):
            raise error("CUDA out of memory. Tried to allocate 2.00 GiB" if error is not RuntimeError else "odd")

    class Hungry(kind):
        def losses(self, model, batch, progress):
            losses = super().losses(model, batch, progress)
            if len(batch["number"]) > size and progress.step >= since:
                losses["error"] = Loss(Refusing.apply(losses["error"].total))
            return losses

    return Hungry


def rows(count: int, start: int = 0) -> list[Row]:
    return [Row({"number": number}, f"toy:{number}") for number in range(start, start + count)]


BASE: dict[str, Any] = {
    "training": {"epochs": 3, "log_every": 1, "early_stopping": {"enabled": False}},
    "data": {"batch_size": 4, "num_workers": 0},
    "optim": {"lr": 0.01},
    "scheduler": {"warmup_steps": 2},
    "logging": {"tensorboard": False},
}


def recipe(kind: type[Stepped] = ToyRecipe, **sections: Any) -> Any:
    """A recipe with the sections `training={...}, data={...}` over settings of a short run."""
    layers = [Layer(BASE), Layer(sections)]
    return kind(build(kind.settings_type, *layers))


def run(root: Path, kind: type[Stepped] = ToyRecipe, *, train_rows: int = 22, val_rows: int = 9, **options: Any) -> Any:
    """Train a toy in `root`; the sections of settings are keyword arguments as in `recipe`."""
    from training.stages.train import train

    known = {name: options.pop(name) for name in ("device", "resume", "left", "limit", "persist") if name in options}
    splits = {"train": rows(train_rows), "val": rows(val_rows, 1000)}
    load: Callable[[str], list[Row]] = splits.__getitem__
    return train(recipe(kind, **options), Workspace(root), **{"device": "cpu", **known}, load=load)
