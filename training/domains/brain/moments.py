"""Sums over batches that give the correlation over time of every column: the metrics of a validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

_TINY = 1e-6  # share of a column's mean square that is rounding of float32
_PARTS = ("p", "y", "pp", "yy", "py")


def sums_of(
    predicted: torch.Tensor, measured: torch.Tensor, weight: torch.Tensor
) -> dict[str, tuple[torch.Tensor, float]]:
    """Name -> (sum float32 [S C], number of volumes) of predictions and measurements [B, S, T, C]. `weight`: [B, S, T],
    1 where there is a measurement."""
    weight = weight[..., None]
    sums = {
        "n": weight.expand_as(measured), "p": predicted * weight, "y": measured * weight,
        "pp": predicted**2 * weight, "yy": measured**2 * weight, "py": predicted * measured * weight,
    }  # fmt: skip
    volumes = float(measured.shape[0] * measured.shape[2])
    return {name: (of.sum((0, 2)).flatten(), volumes) for name, of in sums.items()}


def correlations_of(means: Mapping[str, Any]) -> np.ndarray:
    """The correlation of every column that has volumes, float64, whatever their scale: 0 where prediction or
    measurement is constant."""
    n = np.asarray(means["n"], np.float64)
    some = n > 0
    p, y, pp, yy, py = (np.asarray(means[name], np.float64)[some] / n[some] for name in _PARTS)
    left, right = pp - p * p, yy - y * y
    varies = (left > _TINY * pp) & (right > _TINY * yy)
    size = np.sqrt(np.maximum(left, 0) * np.maximum(right, 0))
    return np.divide(py - p * y, size, out=np.zeros_like(size), where=varies)


def squared_errors(predicted: torch.Tensor, measured: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Squared errors [B, S, T, C], 0 where the weight [B, S, T] is."""
    return (predicted.float() - measured.float()) ** 2 * weight[..., None]
