"""Validation metrics of clouds, baselines, and grades of exported files.

Correlations are derived from sums of moments, so that they do not depend on batches and ranks. They compare, over the
sub-frames that are not silent, the mean over a sub-frame's particles of y (pitch), z and size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor, nn

from training.domains.music.clouds.cloud import SUBFRAMES
from training.domains.music.spectocloud.config import Loss as LossSettings
from training.domains.music.spectocloud.data import Songs
from training.domains.music.spectocloud.loss import Cloud, sub_frames, unordered

COMPARED = ("pitch", "z", "size")
PRODUCTS = ("p", "t", "pp", "tt", "pt")
TARGET = ("positions", "colors", "properties")
INPUTS = ("logmel", "emotion", "midi_features")
BATCH = 32

Sums = dict[str, tuple[Tensor, float]]


def predict(model: nn.Module, batch: Mapping[str, Tensor]) -> Cloud:
    """The model's clouds for a batch, float32."""
    return Cloud(*(part.float() for part in model(*(batch[key] for key in INPUTS))))


def target_of(batch: Mapping[str, Tensor]) -> Cloud:
    return Cloud(*(batch[key] for key in TARGET))


def measure(predicted: Cloud, batch: Mapping[str, Tensor]) -> Sums:
    """Metric -> (sum, number): Chamfer distance and channel errors over clouds, moments over sounding sub-frames."""
    each = measure_each(predicted, batch)
    heard = float(batch["sounding"].sum())
    return {
        name: (values.sum(), heard if name.startswith("_") else float(len(values))) for name, values in each.items()
    }


def measure_each(predicted: Cloud, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`measure` of every cloud separately: metric -> sums [B]."""
    target = target_of(batch)
    terms = unordered(predicted, target)
    out = {"pos_loss": terms.position, "color_loss": terms.color, "prop_loss": terms.properties}
    sounding = batch["sounding"].double()
    for name, p, t in zip(COMPARED, _compared(predicted), _compared(target), strict=True):
        p, t = p.double(), t.double()
        for product, value in zip(PRODUCTS, (p, t, p * p, t * t, p * t), strict=True):
            out[f"_{name}_{product}"] = (value * sounding).sum(1)
    return out


def variances(batch: Mapping[str, Tensor]) -> dict[str, float]:
    """How much each of COMPARED varies over the sounding sub-frames of the target clouds: what a correlation needs."""
    sounding = batch["sounding"].bool()
    return {
        name: float(values[sounding].double().var(unbiased=False)) if sounding.any() else 0.0
        for name, values in zip(COMPARED, _compared(target_of(batch)), strict=True)
    }


def _compared(cloud: Cloud) -> tuple[Tensor, Tensor, Tensor]:
    place, _ = sub_frames(cloud.positions, SUBFRAMES)
    properties, _ = sub_frames(cloud.properties, SUBFRAMES)
    return place[..., 1], place[..., 2], properties[..., 0]


def summarise(means: Mapping[str, float], weights: LossSettings) -> dict[str, float]:
    """Averaged metrics -> reported metrics: val_loss (the weighted sum, always with the Chamfer distance) if none of
    its terms is missing, its terms, and the correlations pitch_r, z_r and size_r (0 without variance)."""
    out = {name: value for name, value in means.items() if not name.startswith("_")}
    terms = ((weights.position, "pos_loss"), (weights.color, "color_loss"), (weights.properties, "prop_loss"))
    if all(name in means for _, name in terms):
        out = {"val_loss": sum(weight * means[name] for weight, name in terms)} | out
    for name in COMPARED:
        p, t, pp, tt, pt = (means.get(f"_{name}_{product}", 0.0) for product in PRODUCTS)
        scale = (pp - p * p) * (tt - t * t)
        out[f"{name}_r"] = (pt - p * t) / scale**0.5 if scale > 1e-16 else 0.0
    return out


def average(measured: Iterator[Sums]) -> dict[str, float]:
    """Sums over batches -> means."""
    totals: dict[str, list[float]] = {}
    for sums in measured:
        for name, (total, count) in sums.items():
            entry = totals.setdefault(name, [0.0, 0.0])
            entry[0] += float(total)
            entry[1] += count
    return {name: total / count if count else 0.0 for name, (total, count) in totals.items()}


def batches(songs: Songs, indices: Sequence[int] | None = None, device: torch.device | str = "cpu") -> Iterator[dict]:
    """Batches of the items of `songs` (all of them, or those of `indices`), in order."""
    chosen = range(len(songs)) if indices is None else indices
    for at in range(0, len(chosen), BATCH):
        batch = songs.collate([songs.item(0, i) for i in chosen[at : at + BATCH]])
        yield {key: value.to(device) for key, value in batch.items()}


def spread(count: int, most: int) -> list[int]:
    """Up to `most` of `count` indices, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()


# -- baselines -----------------------------------------------------------------------------------------------------


class Regression(nn.Module):
    """A baseline without the sound: clouds as a linear function of a few features of the emotion."""

    def __init__(self, features: Callable[[Tensor], Tensor]):
        super().__init__()
        self.features = features

    def fit(self, training: Sequence[Mapping[str, Tensor]]) -> Regression:
        """Least squares (ridge 1e-3) over batches."""
        x = torch.cat([self.features(batch["emotion"]) for batch in training]).double()
        y = torch.cat([torch.cat(target_of(batch), -1).flatten(1) for batch in training]).double()
        ridge = 1e-3 * torch.eye(x.shape[1], dtype=torch.float64)
        self.weights = torch.linalg.solve(x.T @ x + ridge, x.T @ y).float()
        return self

    def forward(self, logmel: Tensor, emotion: Tensor, midi_features: Tensor) -> tuple[Tensor, ...]:
        flat = self.features(emotion) @ self.weights
        return flat.unflatten(1, (-1, 10)).split([3, 4, 3], -1)


def constant(emotion: Tensor) -> Tensor:
    return torch.ones(len(emotion), 1)


def circumplex(emotion: Tensor) -> Tensor:
    """1, valence, arousal, intensity, their squares and products, and arousal above 0: [B, 11]."""
    first = torch.cat([torch.ones(len(emotion), 1), emotion[:, :3]], 1)
    i, j = torch.triu_indices(4, 4)
    return torch.cat([first[:, i] * first[:, j], emotion[:, 1:2].clamp(min=0)], 1)


# -- exported files ------------------------------------------------------------------------------------------------


def grade(outputs: Mapping[str, np.ndarray], references: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Chamfer distance, and mean absolute errors of colours and properties at the nearest points (numpy, float64)."""
    distance, color, prop = [], [], []
    for b in range(len(outputs["positions"])):
        ours, theirs = outputs["positions"][b].astype(np.float64), references["positions"][b].astype(np.float64)
        there, index = cKDTree(theirs).query(ours)
        back, _ = cKDTree(ours).query(theirs)
        distance.append((there.mean() + back.mean()) / 2)
        color.append(np.abs(outputs["colors"][b] - references["colors"][b][index]).mean())
        prop.append(np.abs(outputs["properties"][b] - references["properties"][b][index]).mean())
    return {
        "chamfer": float(np.mean(distance)),
        "color_error": float(np.mean(color)),
        "prop_error": float(np.mean(prop)),
    }
