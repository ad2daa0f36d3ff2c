"""How far a predicted cloud is from the true one.

Shape legend: B clouds, N predicted points, M target points, 3 coordinates, C channels.

The Chamfer distance here is the mean over points of the Euclidean distance (not squared) to the nearest point of the
other cloud, averaged over both ways. Neighbours are chosen without gradient and the distance to the chosen one is
then recomputed directly, so its gradient is exact and nothing of size N x M is kept. The usual shortcut
|x|^2 + |y|^2 - 2xy is not used even to choose: between nearly touching points its rounding decides.

`nearest` is the one place that searches; a faster search replaces it alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

#: Pairs of points that the blocked search holds at once: 8 Mi pairs are 32 MiB a temporary.
PAIRS_AT_ONCE = 8 << 20


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


def nearest(x_BN3: Tensor, y_BM3: Tensor) -> Tensor:
    """Index [B, N] (int64) of the point of y that is nearest to each point of x. No gradient.

    A k-d tree on the CPU (float64), blocks of direct differences (float32) elsewhere.
    """
    with torch.no_grad():
        if x_BN3.device.type == "cpu":
            return _nearest_by_tree(x_BN3, y_BM3)
        return _nearest_in_blocks(x_BN3.float(), y_BM3.float())


def _nearest_by_tree(x_BN3: Tensor, y_BM3: Tensor) -> Tensor:
    # A tree refuses what is not finite; the distances recomputed from such points are not finite either, so the
    # fault still shows where it is looked for.
    points = [np.nan_to_num(t.detach().double().numpy(), posinf=1e30, neginf=-1e30) for t in (x_BN3, y_BM3)]
    found = [cKDTree(y, balanced_tree=False, compact_nodes=False).query(x)[1] for x, y in zip(*points, strict=True)]
    return torch.from_numpy(np.stack(found).astype(np.int64))


def _nearest_in_blocks(x_BN3: Tensor, y_BM3: Tensor) -> Tensor:
    batch, n, m = len(x_BN3), x_BN3.shape[1], y_BM3.shape[1]
    rows = max(1, min(n, PAIRS_AT_ONCE // m))
    clouds = max(1, PAIRS_AT_ONCE // (rows * m))
    found = x_BN3.new_empty((batch, n), dtype=torch.int64)
    for b in range(0, batch, clouds):
        y = y_BM3[b : b + clouds]
        for r in range(0, n, rows):
            x = x_BN3[b : b + clouds, r : r + rows]
            square = (x[:, :, None, 0] - y[:, None, :, 0]).square_()
            for axis in (1, 2):
                square += (x[:, :, None, axis] - y[:, None, :, axis]).square_()
            found[b : b + clouds, r : r + rows] = square.argmin(-1)
    return found


def take(values_BMC: Tensor, index_BN: Tensor) -> Tensor:
    """Rows of `values` [B, M, C] by `index` [B, N] -> [B, N, C]."""
    return values_BMC.gather(1, index_BN[..., None].expand(-1, -1, values_BMC.shape[-1]))


def distances(x_BN3: Tensor, y_BM3: Tensor, index_BN: Tensor) -> Tensor:
    """Euclidean distance [B, N] of each x to the y chosen for it; its gradient is 0 (not NaN) where they touch."""
    return torch.linalg.vector_norm(x_BN3 - take(y_BM3, index_BN), dim=-1)


def chamfer(x_BN3: Tensor, y_BM3: Tensor) -> Tensor:
    """Symmetric Chamfer distance of each pair of clouds, [B]."""
    there = distances(x_BN3, y_BM3, nearest(x_BN3, y_BM3)).mean(1)
    back = distances(y_BM3, x_BN3, nearest(y_BM3, x_BN3)).mean(1)
    return (there + back) / 2


def chamfer_estimate(x_BN3: Tensor, y_BM3: Tensor, stride: int = 8) -> Tensor:
    """The Chamfer distance [B] measured from every `stride`-th point of both clouds, for that share of its price."""
    x, y = x_BN3[:, ::stride], y_BM3[:, ::stride]
    there = distances(x, y_BM3, nearest(x, y_BM3)).mean(1)
    back = distances(y, x_BN3, nearest(y, x_BN3)).mean(1)
    return (there + back) / 2


def unordered(predicted: Cloud, target: Cloud) -> Terms:
    """Chamfer distance; colour and properties are those of each predicted point's nearest target point."""
    index = nearest(predicted.positions, target.positions)
    there = distances(predicted.positions, target.positions, index).mean(1)
    back_index = nearest(target.positions, predicted.positions)
    back = distances(target.positions, predicted.positions, back_index).mean(1)
    return Terms((there + back) / 2, *_channels(predicted, take(target.colors, index), take(target.properties, index)))


def matched(predicted: Cloud, target: Cloud) -> Terms:
    """Point i against point i: right only because both clouds are ordered by sub-frame and pattern index (N = M)."""
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
    # sqrt has no finite slope at 0, where a freshly collapsed sub-frame would be
    return runs.mean(2), centred.square().mean(2).add(1e-8).sqrt()


def lifeline(predicted: Cloud, target: Cloud, count: int) -> Tensor:
    """Mean absolute error [B] of the sub-frames' centres and spreads: the shape of the line without its particles."""
    ours, theirs = sub_frames(predicted.positions, count), sub_frames(target.positions, count)
    return sum((a - b).abs().mean((1, 2)) for a, b in zip(ours, theirs, strict=True))
