"""The loss between a predicted cloud and its target.

Shape legend: B clouds, N points, C channels. Neighbours and the Chamfer distance come from chamfer.py.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from training.domains.music.spectocloud.chamfer import both_ways, take


class Cloud(NamedTuple):
    """A batch of clouds, float32."""

    positions: Tensor  # [B, N, 3]
    colors: Tensor  # [B, N, 4] in [0, 1]
    properties: Tensor  # [B, N, 3] in [0, 1]


class Terms(NamedTuple):
    """Per-cloud loss terms, each [B], means over the points (and channels) of a cloud."""

    position: Tensor
    color: Tensor
    properties: Tensor


def unordered(predicted: Cloud, target: Cloud) -> Terms:
    """Chamfer distance; colours and properties are compared with those of each point's nearest target point."""
    there, back = both_ways(predicted.positions, target.positions)
    position = (there.distance.mean(1) + back.distance.mean(1)) / 2
    colors, properties = (take(part, there.index) for part in (target.colors, target.properties))
    return Terms(position, *_channels(predicted, colors, properties))


def matched(predicted: Cloud, target: Cloud) -> Terms:
    """Point i against point i: valid because both clouds are ordered by sub-frame and pattern index (N = M)."""
    position = torch.linalg.vector_norm(predicted.positions - target.positions, dim=-1).mean(1)
    return Terms(position, *_channels(predicted, target.colors, target.properties))


def _channels(predicted: Cloud, colors: Tensor, properties: Tensor) -> tuple[Tensor, Tensor]:
    color = (predicted.colors - colors).square().mean((1, 2))
    smooth = torch.nn.functional.smooth_l1_loss(predicted.properties, properties, reduction="none")
    return color, smooth.mean((1, 2))


def sub_frames(values_BNC: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each of `count` equal runs of points -> two [B, count, C]."""
    runs = values_BNC.unflatten(1, (count, -1))
    centred = runs - runs.mean(2, keepdim=True)
    # Plus a constant, because the derivative of sqrt is infinite at 0, the value of a collapsed sub-frame.
    return runs.mean(2), centred.square().mean(2).add(1e-8).sqrt()


def lifeline(predicted: Cloud, target: Cloud, count: int) -> Tensor:
    """Mean absolute error [B] of the sub-frames' centres and spreads."""
    ours, theirs = sub_frames(predicted.positions, count), sub_frames(target.positions, count)
    return sum((a - b).abs().mean((1, 2)) for a, b in zip(ours, theirs, strict=True))
