"""Bar 3: the Chamfer distance of a batch, forward and backward, against common implementations.

A batch of 32 pairs of clouds of 1,200 points in three dimensions, float32, gradient for the predicted cloud.
"""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.harness import Paired, Row, paired
from training.domains.music.spectocloud.chamfer import chamfer

Distance = Callable[[Tensor, Tensor], Tensor]


def by_broadcast(x: Tensor, y: Tensor) -> Tensor:
    """The formula written out: every difference, its length, the minima."""
    lengths = (x[:, :, None] - y[:, None]).norm(dim=-1)
    return (lengths.min(2).values.mean(1) + lengths.min(1).values.mean(1)) / 2


def by_cdist(x: Tensor, y: Tensor) -> Tensor:
    """With torch.cdist, which uses |x|^2 + |y|^2 - 2xy for clouds of this size."""
    lengths = torch.cdist(x, y)
    return (lengths.min(2).values.mean(1) + lengths.min(1).values.mean(1)) / 2


def by_tree(x: Tensor, y: Tensor) -> Tensor:
    """With scipy's k-d tree: the neighbours without a gradient, then the distances to them."""
    from scipy.spatial import cKDTree

    def there(a: Tensor, b: Tensor) -> Tensor:
        found = [cKDTree(q).query(p)[1] for p, q in zip(a.detach().numpy(), b.detach().numpy(), strict=True)]
        index = torch.stack([torch.from_numpy(i) for i in found])
        return (a - b.gather(1, index[..., None].expand(-1, -1, 3))).norm(dim=-1).mean(1)

    return (there(x, y) + there(y, x)) / 2


def measure(small: bool) -> list[Row]:
    batch, count, rounds = (2, 60, 2) if small else (32, 1200, 7)
    x, y = clouds(batch, count)
    note = f"B {batch}, {count} x {count}, {torch.get_num_threads()} threads"
    rows = []
    for bar, reference, name, wanted in (
        ("3a", by_broadcast, "the broadcast", 10),
        ("3b", by_cdist, "torch.cdist", 1),
        ("3c", by_tree, "scipy's k-d tree", 1),
    ):
        times = paired(step(chamfer, x, y), step(reference, x, y), rounds)
        rows.append(_faster(bar, name, times, wanted, note))
    rows.append(_memory(batch, count))
    rows.append(_exactness(batch, count))
    return rows


def clouds(batch: int, count: int, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """A predicted cloud, which requires a gradient, and a target: uniform in the unit cube."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(batch, count, 3, generator=generator).to(device) for _ in range(2))
    return x.requires_grad_(), y


def step(distance: Distance, x: Tensor, y: Tensor) -> Callable[[], Tensor]:
    """Forward and backward, as in a training step."""
    return lambda: torch.autograd.grad(distance(x, y).mean(), x)[0]


def _faster(bar: str, name: str, times: Paired, wanted: float, note: str) -> Row:
    ours, reference = (times.spread[side][1] * 1e3 for side in ("ours", "reference"))
    what = f"Chamfer, forward and backward, against {name}"
    met = times.ratio >= wanted
    return Row(bar, what, ours, reference, "ms", times.ratio, f">= {wanted}x", met, note, times.spread)


# -- memory ----------------------------------------------------------------------------------------------------------


def _memory(batch: int, count: int) -> Row:
    ours, once = extra_memory("chamfer", batch, count)
    reference, _ = extra_memory("by_broadcast", batch, count)
    note = f"its compiler takes {once:.0f} MB, once per process"
    return Row("3d", "Chamfer, memory beyond the clouds", ours, reference, "MB", ours, "<= 100 MB", ours <= 100, note)


def extra_memory(name: str, batch: int, count: int) -> tuple[float, float]:
    """(MB that a step adds to the peak of a new process that has run a small step before, MB that the small step
    added). Linux only."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peaks, (name, batch, count))


def _peaks(name: str, batch: int, count: int) -> tuple[float, float]:
    distance: Distance = globals()[name]
    began = _resident("VmRSS")
    step(distance, *clouds(1, 8))()
    x, y = clouds(batch, count)
    x.grad = torch.zeros_like(x)
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    step(distance, x, y)()
    return _resident("VmHWM") - before, before - began


def _resident(key: str) -> float:
    """MB of this process: VmRSS now, VmHWM at its peak."""
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024 / 1e6


# -- exactness -------------------------------------------------------------------------------------------------------


def _exactness(batch: int, count: int) -> Row:
    """The largest relative error of a cloud's distance, over clouds whose points are 1e-2 to 1e-6 apart."""
    ours = reference = 0.0
    for power in range(2, 7):
        x, y = near_touching(min(batch, 4), count, 10.0**-power)
        true = by_broadcast(x.double(), y.double())
        ours = max(ours, float((chamfer(x, y) / true - 1).abs().max()))
        reference = max(reference, float((by_cdist(x, y) / true - 1).abs().max()))
    note = "points 1e-2 to 1e-6 apart; against torch.cdist"
    return Row("3e", "Chamfer, largest relative error", ours, reference, "", ours, "<= 1e-5", ours <= 1e-5, note)


def near_touching(batch: int, count: int, apart: float) -> tuple[Tensor, Tensor]:
    """A cloud, and the same in another order with every point moved by about `apart`."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(batch, count, 3, generator=generator)
    order = torch.randperm(count, generator=generator)
    return x, x[:, order] + apart * torch.randn(batch, count, 3, generator=generator)
