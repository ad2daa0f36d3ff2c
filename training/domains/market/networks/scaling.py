"""Scaling of features by median and interquartile range, fitted on the decisions of one model."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

CLIP = 5.0


def fitted(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median and scale, each float32 [F], of features float32 [n, F]. The scale is the interquartile range; the
    standard deviation where that is 0, as for a feature that is mostly 0; 1 for a constant."""
    low, median, high = np.percentile(features, [25, 50, 75], 0)
    spread, deviation = high - low, features.std(0, dtype=np.float64)
    scale = np.where(spread > 0, spread, np.where(deviation > 0, deviation, 1.0))
    return median.astype(np.float32), scale.astype(np.float32)


class Scaler(nn.Module):
    """(x - median) / scale, clipped to -5 .. 5: [..., F] -> [..., F]."""

    def __init__(self, median: np.ndarray, scale: np.ndarray):
        super().__init__()
        self.register_buffer("median", torch.as_tensor(np.array(median)))
        self.register_buffer("scale", torch.as_tensor(np.array(scale)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return ((x - self.median) / self.scale).clamp(-CLIP, CLIP)
