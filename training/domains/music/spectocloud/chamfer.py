"""Nearest neighbours between two clouds, and the Chamfer distance computed from them.

Shape legend: B clouds, N query points, M candidate points, 3 coordinates.

`nearest` is one operator with its own backward pass, so that torch.compile does not trace into it and no tensor of size
N x M is kept. It searches

- on a CPU with a compiled kernel (chamfer_cpu.py): every pair, float64, so that the choice is exact;
- on CUDA with a fused Triton kernel (chamfer_triton.py), float32 differences, a running minimum in registers;
- elsewhere, and on CUDA without Triton, in blocks of plain torch.

None of them uses |x|^2 + |y|^2 - 2xy, not even to select the neighbour: for nearly touching points, its rounding error
exceeds the distance. The distance to the selected point is computed from the difference of the two. Of equally near
points the first is selected. The result for a cloud does not depend on the rest of the batch.
"""

from __future__ import annotations

import functools
import importlib.util
from typing import NamedTuple

import torch
from torch import Tensor

#: Pairs of points that the blocked search holds at once: 8 Mi pairs are 32 MiB a temporary.
PAIRS_AT_ONCE = 8 << 20


class Nearest(NamedTuple):
    """For each point of a cloud, the nearest point of another."""

    distance: Tensor  # [B, N], Euclidean; its gradient is 0 (not NaN) where points touch
    index: Tensor  # [B, N] int64, into the other cloud


def nearest(x_BN3: Tensor, y_BM3: Tensor) -> Nearest:
    """The point of y that is nearest to each point of x. Differentiable in both; half precision is widened to float32.

    Raises ValueError for clouds of incompatible shapes, and for an empty y.
    """
    if x_BN3.dim() != 3 or y_BM3.dim() != 3 or x_BN3.shape[::2] != y_BM3.shape[::2] or x_BN3.shape[2] != 3:
        raise ValueError(f"clouds are [B, N, 3] and [B, M, 3], not {list(x_BN3.shape)} and {list(y_BM3.shape)}")
    if not y_BM3.shape[1]:
        raise ValueError("an empty cloud has no nearest points")
    dtype = torch.promote_types(torch.promote_types(x_BN3.dtype, y_BM3.dtype), torch.float32)
    return Nearest(*torch.ops.athanor.nearest(x_BN3.to(dtype), y_BM3.to(dtype)))


def both_ways(x_BN3: Tensor, y_BM3: Tensor, stride: int = 1) -> tuple[Nearest, Nearest]:
    """(each `stride`-th x to y, each `stride`-th y to x)."""
    query_x, query_y = x_BN3[:, ::stride], y_BM3[:, ::stride]
    if x_BN3.shape != y_BM3.shape:
        return nearest(query_x, y_BM3), nearest(query_y, x_BN3)
    found = nearest(torch.cat([query_x, query_y]), torch.cat([y_BM3, x_BN3]))  # one search instead of two
    there, back = zip(*(part.unflatten(0, (2, len(x_BN3))) for part in found), strict=True)
    return Nearest(*there), Nearest(*back)


def chamfer(x_BN3: Tensor, y_BM3: Tensor, stride: int = 1) -> Tensor:
    """Symmetric Chamfer distance [B]: the mean over points of the Euclidean distance (not squared) to the nearest
    point of the other cloud, averaged over both directions. With a `stride`, an estimate from every `stride`-th point
    of both clouds, at a cost reduced by that factor."""
    there, back = both_ways(x_BN3, y_BM3, stride)
    return (there.distance.mean(1) + back.distance.mean(1)) / 2


def take(values_BMC: Tensor, index_BN: Tensor) -> Tensor:
    """Rows of `values` [B, M, C] by `index` [B, N] -> [B, N, C]."""
    return values_BMC.gather(1, index_BN[..., None].expand(-1, -1, values_BMC.shape[-1]))


# -- the operator ----------------------------------------------------------------------------------------------------

# torch.library.custom_op would work, too, but imports the compiler (1.5 s, 66 MB) at the first call.
torch.library.define("athanor::nearest", "(Tensor x, Tensor y) -> (Tensor distance, Tensor index)")
torch.library.define(
    "athanor::nearest_backward",
    "(Tensor slope, Tensor x, Tensor y, Tensor distance, Tensor index) -> (Tensor of_x, Tensor of_y)",
)


def _nearest(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if _has_kernel(x):
        from training.domains.music.spectocloud import chamfer_triton

        return chamfer_triton.forward(x, y)
    index = search_in_blocks(x, y)
    return torch.linalg.vector_norm(x - take(y, index), dim=-1), index


def _nearest_cpu(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    from training.domains.music.spectocloud import chamfer_cpu  # compiles for about a second, once per process

    index = chamfer_cpu.search(x, y)
    return torch.linalg.vector_norm(x - take(y, index), dim=-1), index


@torch.library.register_fake("athanor::nearest")
def _(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[:2]), x.new_empty(x.shape[:2], dtype=torch.int64)


def _backward(slope: Tensor, x: Tensor, y: Tensor, distance: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient `slope` [B, N] of the distances -> gradients of x and y. Points that share a neighbour are summed in a
    fixed order on a CPU and in the Triton kernel; plain torch on CUDA uses atomic additions, so the last bits vary."""
    if _has_kernel(x):
        from training.domains.music.spectocloud import chamfer_triton

        return chamfer_triton.backward(slope, x, y, distance, index)
    at = index[..., None].expand(-1, -1, 3)
    length = distance[..., None]
    of_x = slope[..., None] * ((x - y.gather(1, at)) / length).masked_fill_(length == 0, 0)
    return of_x, torch.zeros_like(y).scatter_add_(1, at, -of_x)


@torch.library.register_fake("athanor::nearest_backward")
def _(slope: Tensor, x: Tensor, y: Tensor, distance: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(y)


def _keep(ctx, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)


def _differentiate(ctx, slope: Tensor, _: Tensor | None) -> tuple[Tensor, Tensor]:
    return torch.ops.athanor.nearest_backward(slope, *ctx.saved_tensors)


torch.library.impl("athanor::nearest", "default", _nearest)
torch.library.impl("athanor::nearest", "cpu", _nearest_cpu)
torch.library.impl("athanor::nearest_backward", "default", _backward)
torch.library.register_autograd("athanor::nearest", _differentiate, setup_context=_keep)


def _has_kernel(x: Tensor) -> bool:
    return x.device.type == "cuda" and _triton_installed()


@functools.cache
def _triton_installed() -> bool:
    return importlib.util.find_spec("triton") is not None


def search_in_blocks(x_BN3: Tensor, y_BM3: Tensor) -> Tensor:
    """Index [B, N] of the nearest y to each x in plain torch: direct differences, a limited number of pairs at once."""
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
