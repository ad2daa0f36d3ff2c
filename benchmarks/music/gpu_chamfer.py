"""Bar 3 on a GPU: exactness of the fused kernel, and its time and memory against the broadcast and torch.cdist."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.gpu_place import Place
from benchmarks.harness import Row, in_turn, median, not_measured
from benchmarks.music.chamfer import Distance, by_broadcast, by_cdist, clouds, near_touching, step
from training.domains.music.spectocloud.chamfer import chamfer


def measure(here: Place) -> list[Row]:
    """Rows 10k to 10q."""
    batch, count, times = (2, 60, 2) if here.small else (32, 1200, 20)
    x, y = clouds(batch, count)
    x, y = x.detach().to(here.device).requires_grad_(), y.to(here.device)
    note = f"B {batch}, {count} x {count}, float32"
    sides = {"ours": chamfer, "broadcast": by_broadcast, "cdist": by_cdist}
    seconds = in_turn({name: _turn(here, step(one, x, y), times) for name, one in sides.items()}, here.rounds)
    rows = []
    for bar, reference, name in (("10k", "broadcast", "the broadcast"), ("10l", "cdist", "torch.cdist")):
        ratio = median(r / o for o, r in zip(seconds["ours"], seconds[reference], strict=True))
        ours, other = (1e3 * median(seconds[side]) / times for side in ("ours", reference))
        spread = {side: [min(seconds[side]), median(seconds[side]), max(seconds[side])] for side in ("ours", reference)}
        what = f"Chamfer on a GPU, forward and backward, against {name}"
        rows.append(Row(bar, what, ours, other, "ms", ratio, ">= 1x", ratio >= 1, note, spread))
    return [*rows, _memory(here, x, y, note), *exactness(here, batch, count), _repeated(x, y)]


def _turn(here: Place, work: Callable[[], Tensor], times: int) -> Callable[[], float]:
    def seconds() -> float:
        work()
        here.synchronize()
        began = time.perf_counter()
        for _ in range(times):
            work()
        here.synchronize()
        return time.perf_counter() - began

    return seconds


def _memory(here: Place, x: Tensor, y: Tensor, note: str) -> Row:
    what, wanted = "Chamfer on a GPU, memory beyond the clouds", "<= 100 MB"
    if here.device != "cuda":
        return not_measured("10m", what, wanted, "counted by CUDA's allocator")
    ours, reference = (_peak(step(one, x, y)) for one in (chamfer, by_broadcast))
    return Row("10m", what, ours, reference, "MB", ours, wanted, ours <= 100, note)


def _peak(work: Callable[[], Tensor]) -> float:
    """Peak MB that `work` allocates in addition to what was allocated before."""
    work()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def exactness(here: Place, batch: int, count: int) -> list[Row]:
    """Rows 10n and 10o: the largest relative error of a cloud's distance and of its gradient against float64, over
    clouds whose points are 1 to 1e-6 apart."""
    ours = reference = gradient = 0.0
    for power in (0, 2, 3, 4, 5, 6):
        pair = clouds(min(batch, 4), count) if not power else near_touching(min(batch, 4), count, 10.0**-power)
        x, y = (cloud.detach().to(here.device) for cloud in pair)
        true, slope = _with_gradient(by_broadcast, x.double(), y.double())
        found, own = _with_gradient(chamfer, x, y)
        ours = max(ours, float((found / true - 1).abs().max()))
        reference = max(reference, float((by_cdist(x, y) / true - 1).abs().max()))
        if power <= 2:  # for nearer points, the difference of two float32 coordinates has too few digits
            gradient = max(gradient, float((own - slope).abs().max() / slope.abs().max()))
    return [
        Row("10n", "Chamfer on a GPU, largest relative error against float64", ours, reference, "", ours, "<= 1e-5",
            ours <= 1e-5, "points 1 to 1e-6 apart; against torch.cdist"),
        Row("10o", "the same, of its gradient", gradient, None, "", gradient, "<= 1e-4", gradient <= 1e-4,
            "points 1 to 1e-2 apart; relative to the largest"),
    ]  # fmt: skip


def _with_gradient(distance: Distance, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_()
    found = distance(x, y)
    return found.detach(), torch.autograd.grad(found.sum(), x)[0].double()


def _repeated(x: Tensor, y: Tensor) -> Row:
    """Whether gradients are reproducible: repeated passes give the same bits."""
    first = step(chamfer, x, y)()
    other = sum(not torch.equal(step(chamfer, x, y)(), first) for _ in range(10))
    what = "Chamfer on a GPU: repeated gradients with other bits, of ten"
    return Row("10p", what, other, None, "", other, "<= 0", not other)
