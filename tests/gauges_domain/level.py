"""A stepped family: one small network per gauge predicts the next level from the last ones."""

from __future__ import annotations

import numpy as np
import torch

from tests.gauges_domain.domain import GAUGES
from tests.gauges_domain.levels import LEVELS, levels_of
from training.config import Section
from training.graphs import Graph, TensorSpec
from training.judgement import About, Judgement, Resampling, against, compare, resample, verdict
from training.recipe import Loss, Stepped
from training.settings import RunSettings

LAGS = 6  # levels that the network gets as input
ABOUT = {"val_loss": About("lower", "", "Mean squared error of the next level.")}


class Model(Section):
    width: int = 16


class LevelSettings(RunSettings):
    model: Model = Model()


def windows(levels: np.ndarray) -> np.ndarray:
    """Levels [n] -> windows [n - LAGS, LAGS + 1]; the last column is to be predicted."""
    return np.lib.stride_tricks.sliding_window_view(levels, LAGS + 1)


class Days:
    """A dataset with one item per day."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def item(self, epoch: int, index: int) -> dict[str, np.ndarray]:
        return {"windows": windows(levels_of(self.rows[index]))}

    def collate(self, items) -> dict[str, torch.Tensor]:
        return {"windows": torch.from_numpy(np.stack([item["windows"] for item in items]))}


class Network(torch.nn.Module):
    """The last levels [batch, LAGS] -> the next [batch, 1]."""

    def __init__(self, width: int, mean: np.ndarray, scale: np.ndarray):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(LAGS, width), torch.nn.Tanh(), torch.nn.Linear(width, 1))
        self.register_buffer("mean", torch.as_tensor(mean))
        self.register_buffer("scale", torch.as_tensor(scale))

    def forward(self, levels: torch.Tensor) -> torch.Tensor:
        return self.layers((levels - self.mean) / self.scale) * self.scale + self.mean


def squared(model, seen: torch.Tensor) -> torch.Tensor:
    """Squared errors of windows [days, n, LAGS + 1]: [days, n]."""
    predicted = model(seen[..., :-1].reshape(-1, LAGS)).reshape(seen.shape[:-1])
    return (predicted.float() - seen[..., -1]) ** 2


class Level(Stepped):
    family, title, manifest, settings_type = "level", "Level", "level", LevelSettings
    dtype_policy, dtype_reason = "float32", "bfloat16 has too few digits for a level"

    def encoders(self):
        return {"levels_path": LEVELS}

    def fit_constants(self, rows):
        levels = np.concatenate([levels_of(row) for row in rows])
        return {"mean": levels.mean(keepdims=True), "scale": levels.std(keepdims=True)}

    def dataset(self, rows, training):
        return Days(rows)

    def build(self, constants):
        return Network(self.settings.model.width, constants["mean"], constants["scale"])

    def counts(self, batch):
        return {"error": float(batch["windows"][..., 0].numel())}

    def losses(self, model, batch, progress):
        return {"error": Loss(squared(model, batch["windows"]).sum())}

    def validate(self, model, batch):
        errors = squared(model, batch["windows"])
        return {"val_loss": (errors.sum(), float(errors.numel()))}

    def evaluate(self, context):
        def sums(predict):
            errors = [
                (predict(seen[:, :-1]) - seen[:, -1]) ** 2 for seen in map(windows, map(levels_of, context.held_out))
            ]
            return {"val_loss": np.array([[error.sum(), len(error)] for error in errors])}

        def own(seen):
            with torch.no_grad():
                return context.model(torch.tensor(seen).to(next(context.model.parameters()))).cpu().numpy()[:, 0]

        resampling = Resampling(len(context.held_out), self.settings.seed)
        others = {"last": resample(sums(lambda seen: seen[:, -1]), resampling, dict)}
        metrics = compare(ABOUT, resample(sums(own), resampling, dict), others)
        found = [against(metrics["val_loss"], "last", "the last level", "error", unit=GAUGES.unit)]
        return Judgement(metrics, verdict(found))

    def graphs(self, model):
        def example(sizes, seed):
            return (np.random.default_rng(seed).uniform(2, 6, (sizes["batch"], LAGS)).astype(np.float32),)

        return [
            Graph(
                "level", model, (TensorSpec("levels", "float32", ("batch", LAGS), "the last levels, oldest first"),),
                (TensorSpec("next", "float32", ("batch", 1), "the next level"),),
                {"batch": (1, 64)}, example, ({"batch": 1}, {"batch": 5}),
            )
        ]  # fmt: skip
