"""The device and the sizes for bar 10: a GPU with sizes that fit it, or a CPU with small sizes for a test."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.reference_loops import Shape

LARGE = 40e9  # bytes of GPU memory that hold the config's full batch in float32, too


@dataclass(frozen=True)
class Place:
    """The device of a measurement, and its sizes. In each turn `steps` steps are timed, after `warm` steps, which
    allocate the memory that the other side freed."""

    device: str
    name: str  # of the device
    small: bool
    folder: Path
    shape: Shape
    batch: int
    workers: int  # data loader workers
    steps: int
    warm: int
    rounds: int

    def synchronize(self) -> None:
        """Wait until the device has finished all queued work."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def free_cache(self) -> None:
        """Free the cached memory of one side for the other."""
        if self.device == "cuda":
            torch.cuda.empty_cache()


def place_here(folder: Path) -> Place:
    """The first GPU with full sizes; without a GPU, the CPU with small ones."""
    if not torch.cuda.is_available():
        name = "no GPU: a CPU, small sizes"
        return Place("cpu", name, True, folder, Shape(64, 32, 2, 2), 4, 0, steps=2, warm=1, rounds=1)
    properties = torch.cuda.get_device_properties(0)
    batch = 64 if properties.total_memory > LARGE else 16
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # under torchrun
    workers = max(0, min(8, len(os.sched_getaffinity(0)) // ranks - 1))
    name = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
    return Place("cuda", name, False, folder, Shape(1024), batch, workers, steps=30, warm=5, rounds=5)


def turn(here: Place, work: Callable[[int], object], precision: str = "high") -> Callable[[], float]:
    """A function that returns the seconds of `here.steps` steps of `work`, with float32 matrix products in `precision`
    (highest: no TF32)."""

    def seconds() -> float:
        torch.set_float32_matmul_precision(precision)
        try:
            work(here.warm)
            here.synchronize()
            began = time.perf_counter()
            work(here.steps)
            here.synchronize()
            return time.perf_counter() - began
        finally:
            torch.set_float32_matmul_precision("high")
            here.free_cache()

    return seconds
