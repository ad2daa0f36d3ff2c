"""Nearest-neighbour search on a CPU: every pair, float64, in vector instructions.

Compiled when this module is first imported, in about a second.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from training.jit import compiled

ROWS = 64  # query points per block: they and their minima fit into the L1 cache
COLUMNS = 4  # candidate points compared per update of the minimum
PAIRS_A_THREAD = 1 << 20  # for fewer pairs (a millisecond), another thread does not pay off


def search(x_BN3: Tensor, y_BM3: Tensor) -> Tensor:
    """Index [B, N] int64 of the point of y that is nearest to each point of x; the first of equally near ones.

    It uses as many threads as torch; the result is the same for any number. Points that are not finite are never the
    nearest; as query points they get index 0, and the distance computed from it is not finite either.
    """
    batch, n, m = len(x_BN3), x_BN3.shape[1], y_BM3.shape[1]
    found = np.empty((batch, n), np.int64)
    x = _by_axis(x_BN3, ROWS, 0.0)
    y = _by_axis(y_BM3, COLUMNS, np.inf)
    np.nan_to_num(y, copy=False, nan=np.inf, posinf=np.inf, neginf=-np.inf)
    blocks = batch * -(-n // ROWS)
    threads = min(torch.get_num_threads(), max(1, blocks * ROWS * m // PAIRS_A_THREAD))
    ends = [blocks * t // threads for t in range(threads + 1)]
    if threads == 1:
        _search(x, y, found, 0, blocks)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda t: _search(x, y, found, ends[t], ends[t + 1]), range(threads)))
    return torch.from_numpy(found)


def _by_axis(points_BN3: Tensor, multiple: int, filler: float) -> np.ndarray:
    """[B, N, 3] -> float64 [B, 3, N'], padded with `filler` to the next multiple N'."""
    batch, n, _ = points_BN3.shape
    out = np.full((batch, 3, -(-n // multiple) * multiple), filler)
    out[:, :, :n] = points_BN3.detach().numpy().transpose(0, 2, 1)
    return out


@compiled("void(f8[:,:,::1], f8[:,:,::1], i8[:,::1], i8, i8)")
def _search(x, y, found, first, last):  # blocks first <= k < last, ROWS points of one cloud each
    n, m = found.shape[1], y.shape[2]
    per_cloud = x.shape[2] // ROWS
    best = np.empty(ROWS)
    group = np.empty(ROWS, np.int64)  # start of the group of COLUMNS points that contains the nearest
    for k in range(first, last):
        b, start = k // per_cloud, k % per_cloud * ROWS
        xs, ys, zs = x[b, 0, start : start + ROWS], x[b, 1, start : start + ROWS], x[b, 2, start : start + ROWS]
        p, q, r = y[b, 0], y[b, 1], y[b, 2]
        best[:] = np.inf
        group[:] = 0
        for j in range(0, m, COLUMNS):
            # Read into locals: because `best` might alias these arrays, the compiler would read them again for every i.
            p0, p1, p2, p3 = p[j], p[j + 1], p[j + 2], p[j + 3]
            q0, q1, q2, q3 = q[j], q[j + 1], q[j + 2], q[j + 3]
            r0, r1, r2, r3 = r[j], r[j + 1], r[j + 2], r[j + 3]
            for i in range(ROWS):
                d0 = (xs[i] - p0) ** 2 + (ys[i] - q0) ** 2 + (zs[i] - r0) ** 2
                d1 = (xs[i] - p1) ** 2 + (ys[i] - q1) ** 2 + (zs[i] - r1) ** 2
                d2 = (xs[i] - p2) ** 2 + (ys[i] - q2) ** 2 + (zs[i] - r2) ** 2
                d3 = (xs[i] - p3) ** 2 + (ys[i] - q3) ** 2 + (zs[i] - r3) ** 2
                d0 = d0 if d0 < d1 else d1
                d2 = d2 if d2 < d3 else d3
                d0 = d0 if d0 < d2 else d2
                closer = d0 < best[i]
                best[i] = d0 if closer else best[i]
                group[i] = j if closer else group[i]
        for i in range(min(ROWS, n - start)):
            at = group[i]
            for j in range(at, at + COLUMNS):
                if (xs[i] - p[j]) ** 2 + (ys[i] - q[j]) ** 2 + (zs[i] - r[j]) ** 2 == best[i]:
                    at = j
                    break
            found[b, start + i] = at
