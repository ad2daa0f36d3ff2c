"""Nearest-neighbour search on CUDA, fused: no array of size N x M is written to memory.

Not yet run on a GPU: where Triton is installed, tests run these kernels in its interpreter on a CPU, against float64,
and compile them for Ampere, Ada and Hopper (121 registers per thread or fewer in float32).

Shape legend: B clouds, N query points, M candidate points.

Forward: a program holds ROWS points of x and iterates over y, COLUMNS points at a time. For every pair of lanes it
keeps the smallest square and its position; lanes are reduced once, at the end. A training batch searches in both
directions in one launch, with its clouds concatenated (chamfer.both_ways).

Backward: the gradient of an x is a single term. That of a y is the sum over the x whose nearest neighbour it is. These
are found by comparing indices, tile by tile, instead of atomic additions: as many steps as the search, in registers,
and the same order of additions in every run, so that a seed gives reproducible results.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS, COLUMNS = 32, 64  # of a tile; 2,048 pairs on 128 threads are 16 a thread, twice, in registers


def forward(x_BN3: Tensor, y_BM3: Tensor) -> tuple[Tensor, Tensor]:
    """Distance [B, N] of each x to its nearest y, and that point's index [B, N] int64 (the first of equally near ones).
    float32 or float64."""
    x, y = x_BN3.contiguous(), y_BM3.contiguous()
    (batch, n, _), m = x.shape, y.shape[1]
    distance = x.new_empty((batch, n))
    index = x.new_empty((batch, n), dtype=torch.int64)
    if x.numel():
        with _on(x):
            _search[(batch * triton.cdiv(n, ROWS),)](x, y, distance, index, n, m, ROWS, COLUMNS)
    return distance, index


def backward(slope: Tensor, x_BN3: Tensor, y_BM3: Tensor, distance: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient `slope` [B, N] of the distances -> gradients of x and of y."""
    x, y, slope = x_BN3.contiguous(), y_BM3.contiguous(), slope.contiguous()
    (batch, n, _), m = x.shape, y.shape[1]
    of_x, of_y = torch.empty_like(x), torch.zeros_like(y)
    if x.numel():
        with _on(x):
            _differentiate[(batch * triton.cdiv(n, ROWS),)](slope, x, y, distance, index, of_x, n, m, ROWS)
            _collect[(batch * triton.cdiv(m, ROWS),)](of_x, index, of_y, n, m, ROWS, COLUMNS)
    return of_x, of_y


def _on(x: Tensor) -> torch.cuda.device:
    """Select the tensors' device, because kernels are launched on the current one. (On a CPU, in tests: no effect.)"""
    return torch.cuda.device(x.device if x.is_cuda else -1)


@triton.jit
def _search(x, y, distance, index, n, m, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    tiles = tl.cdiv(n, ROWS)
    cloud = (tl.program_id(0) // tiles).to(tl.int64)
    row = tl.program_id(0) % tiles * ROWS + tl.arange(0, ROWS)
    lane = tl.arange(0, COLUMNS)
    valid = row < n
    x += cloud * n * 3 + row * 3
    y += cloud * m * 3
    x0 = tl.load(x, valid, 0.0)
    x1 = tl.load(x + 1, valid, 0.0)
    x2 = tl.load(x + 2, valid, 0.0)
    smallest = tl.full((ROWS, COLUMNS), float("inf"), x0.dtype)
    seen = tl.zeros((ROWS, COLUMNS), tl.int32)
    for start in range(0, m, COLUMNS):
        column = start + lane
        there = column < m
        y0 = tl.load(y + column * 3, there, float("inf"))
        y1 = tl.load(y + column * 3 + 1, there, float("inf"))
        y2 = tl.load(y + column * 3 + 2, there, float("inf"))
        d0 = x0[:, None] - y0[None, :]
        d1 = x1[:, None] - y1[None, :]
        d2 = x2[:, None] - y2[None, :]
        square = d0 * d0 + d1 * d1 + d2 * d2
        closer = square < smallest  # false for a square that is not finite
        smallest = tl.where(closer, square, smallest)
        seen = tl.where(closer, start, seen)
    best = tl.min(smallest, 1)
    found = tl.where(smallest == best[:, None], seen + lane[None, :], 2147483647)
    at = tl.min(found, 1)
    d0 = (x0 - tl.load(y + at * 3)).to(tl.float64)
    d1 = (x1 - tl.load(y + at * 3 + 1)).to(tl.float64)
    d2 = (x2 - tl.load(y + at * 3 + 2)).to(tl.float64)
    exact = tl.sqrt(d0 * d0 + d1 * d1 + d2 * d2)
    tl.store(distance + cloud * n + row, exact.to(x0.dtype), valid)
    tl.store(index + cloud * n + row, at.to(tl.int64), valid)


@triton.jit
def _differentiate(slope, x, y, distance, index, of_x, n, m, ROWS: tl.constexpr):
    tiles = tl.cdiv(n, ROWS)
    cloud = (tl.program_id(0) // tiles).to(tl.int64)
    row = tl.program_id(0) % tiles * ROWS + tl.arange(0, ROWS)
    valid = row < n
    place = cloud * n + row
    at = cloud * m + tl.load(index + place, valid, 0)
    length = tl.load(distance + place, valid, 1.0)
    touches = length == 0.0
    length = tl.where(touches, 1.0, length)
    scale = tl.where(touches, 0.0, tl.load(slope + place, valid, 0.0))
    for axis in tl.static_range(3):
        apart = tl.load(x + place * 3 + axis, valid, 0.0) - tl.load(y + at * 3 + axis, valid, 0.0)
        tl.store(of_x + place * 3 + axis, apart / length * scale, valid)


@triton.jit
def _collect(of_x, index, of_y, n, m, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    tiles = tl.cdiv(m, ROWS)
    cloud = (tl.program_id(0) // tiles).to(tl.int64)
    row = tl.program_id(0) % tiles * ROWS + tl.arange(0, ROWS)
    lane = tl.arange(0, COLUMNS)
    of_x += cloud * n * 3
    index += cloud * n
    sum0 = tl.zeros((ROWS, COLUMNS), of_x.dtype.element_ty)
    sum1 = tl.zeros((ROWS, COLUMNS), of_x.dtype.element_ty)
    sum2 = tl.zeros((ROWS, COLUMNS), of_x.dtype.element_ty)
    for start in range(0, n, COLUMNS):
        column = start + lane
        there = column < n
        chose = tl.load(index + column, there, -1)[None, :] == row[:, None]
        sum0 += tl.where(chose, tl.load(of_x + column * 3, there, 0.0)[None, :], 0.0)
        sum1 += tl.where(chose, tl.load(of_x + column * 3 + 1, there, 0.0)[None, :], 0.0)
        sum2 += tl.where(chose, tl.load(of_x + column * 3 + 2, there, 0.0)[None, :], 0.0)
    of_y += cloud * m * 3 + row * 3
    kept = row < m
    tl.store(of_y, -tl.sum(sum0, 1), kept)
    tl.store(of_y + 1, -tl.sum(sum1, 1), kept)
    tl.store(of_y + 2, -tl.sum(sum2, 1), kept)
