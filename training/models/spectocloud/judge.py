"""How good clouds are: validation metrics, what they are judged against, and how much a model listens.

Correlations are derived from sums of moments, so that they are exact over any batches and ranks. They compare, over the
sub-frames that sound, the mean over a sub-frame's particles of y (pitch), z and size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor, nn

from training.models.spectocloud.config import Loss as LossSettings
from training.models.spectocloud.data import Songs
from training.models.spectocloud.loss import Cloud, sub_frames, unordered
from training.music.clouds.cloud import SUBFRAMES

COMPARED = ("pitch", "z", "size")
PRODUCTS = ("p", "t", "pp", "tt", "pt")
INPUTS = ("logmel", "emotion", "midi_features")
BATCH = 32

Sums = dict[str, tuple[Tensor, float]]


def predict(model: nn.Module, batch: Mapping[str, Tensor]) -> Cloud:
    """The model's clouds for a batch, float32."""
    return Cloud(*(part.float() for part in model(*(batch[key] for key in INPUTS))))


def target_of(batch: Mapping[str, Tensor]) -> Cloud:
    return Cloud(batch["positions"], batch["colors"], batch["properties"])


def measure(predicted: Cloud, batch: Mapping[str, Tensor]) -> Sums:
    """Metric -> (sum, number): Chamfer distance and channel errors over clouds, moments over sounding sub-frames."""
    target = target_of(batch)
    terms = unordered(predicted, target)
    count = float(len(terms.position))
    out: Sums = {
        "pos_loss": (terms.position.sum(), count),
        "color_loss": (terms.color.sum(), count),
        "prop_loss": (terms.properties.sum(), count),
    }
    sounding = batch["sounding"].bool()
    heard = float(sounding.sum())
    for name, p, t in zip(COMPARED, _compared(predicted), _compared(target), strict=True):
        p, t = p[sounding].double(), t[sounding].double()
        for product, value in zip(PRODUCTS, (p, t, p * p, t * t, p * t), strict=True):
            out[f"_{name}_{product}"] = (value.sum(), heard)
    return out


def _compared(cloud: Cloud) -> tuple[Tensor, Tensor, Tensor]:
    place, _ = sub_frames(cloud.positions, SUBFRAMES)
    properties, _ = sub_frames(cloud.properties, SUBFRAMES)
    return place[..., 1], place[..., 2], properties[..., 0]


def summarise(means: Mapping[str, float], weights: LossSettings) -> dict[str, float]:
    """Averaged metrics -> those reported: val_loss (the weighted sum, always with the Chamfer distance), its terms, and
    the correlations pitch_r, z_r and size_r (0 where nothing varies)."""
    out = {name: value for name, value in means.items() if not name.startswith("_")}
    terms = ((weights.position, "pos_loss"), (weights.color, "color_loss"), (weights.properties, "prop_loss"))
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
    """Clouds as a linear function of a few features of the emotion: what can be drawn without listening."""

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


# -- does it listen? -----------------------------------------------------------------------------------------------


def listening(
    model: nn.Module, plain: Songs, with_score: Songs, weights: LossSettings, most: int = 512
) -> dict[str, float]:
    """Held-out windows without a silent sub-frame: metrics (`sounding_*`), the Chamfer distance when another song's
    sound is put in (`swapped_pos_loss`, and `swap_rise`, its relative rise: 1 is + 100 %), and with the score's
    statistics (`with_score_pos_loss`)."""
    device = next(model.parameters()).device
    chosen = [i for i in spread(len(plain), 4 * most) if plain.item(0, i)["sounding"].all()]
    chosen = [chosen[i] for i in spread(len(chosen), most)] if chosen else []
    if not chosen:
        return {}
    whole = {key: torch.cat(parts) for key, parts in _gather(batches(plain, chosen)).items()}
    means = _means(model, whole, device)
    out = {f"sounding_{name}": value for name, value in summarise(means, weights).items() if name != "val_loss"}
    scored = {key: torch.cat(parts) for key, parts in _gather(batches(with_score, chosen)).items()}
    out["with_score_pos_loss"] = _means(model, scored, device)["pos_loss"]
    swaps = [s for part in (1, 2, 3) if (s := swapped(whole["song"].numpy(), len(chosen) * part // 4)) is not None]
    if swaps:
        heard = [_means(model, whole | {"logmel": whole["logmel"][swap]}, device)["pos_loss"] for swap in swaps]
        out["swapped_pos_loss"] = float(np.mean(heard))
        out["swap_rise"] = out["swapped_pos_loss"] / means["pos_loss"] - 1
    return out


def swapped(songs: np.ndarray, offset: int) -> np.ndarray | None:
    """For each window, the index of a window of another song: the first such from `offset` places on. None: one
    song."""
    if len(np.unique(songs)) < 2:
        return None
    count = len(songs)
    out = np.empty(count, np.int64)
    for i in range(count):
        j = (i + offset) % count
        while songs[j] == songs[i]:
            j = (j + 1) % count
        out[i] = j
    return out


def _gather(parts: Iterator[Mapping[str, Tensor]]) -> dict[str, list[Tensor]]:
    out: dict[str, list[Tensor]] = {}
    for part in parts:
        for key, value in part.items():
            out.setdefault(key, []).append(value)
    return out


def _means(model: nn.Module, whole: Mapping[str, Tensor], device: torch.device) -> dict[str, float]:
    with torch.inference_mode():
        return average(
            measure(predict(model, batch), batch)
            for at in range(0, len(whole["song"]), BATCH)
            for batch in [{key: value[at : at + BATCH].to(device) for key, value in whole.items()}]
        )


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
