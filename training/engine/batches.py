"""Which samples make which step, by counting alone, and the loader that brings them.

The samples are cut into chunks (micro-batches) numbered through the global batch; chunk `n` belongs to rank
`n % world`. So one process that accumulates over 2 and two ranks that do not see the same chunks.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from training.recipe import Batch, Examples
from training.settings import Data

SHARED_MEMORY = 256 * 2**20  # bytes free in /dev/shm below which batches travel through pipes (Docker's default: 64 MB)


def mixed(*numbers: int) -> int:
    """A 63-bit seed from whole numbers: SplitMix64 (Steele et al. 2014) folded over them."""
    state = 0
    for number in numbers:
        state = (state ^ number) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1


@dataclass(frozen=True)
class Chunk:
    """One micro-batch."""

    number: int  # within its global batch, over all ranks
    epoch: int  # 0 for the first
    indices: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """Steps -> samples. A pure function: the sampler's whole state is the number of steps done."""

    samples: int  # in an epoch
    batch_size: int  # samples of a chunk
    accumulate: int  # chunks a rank and step
    world: int
    seed: int

    @property
    def global_batch(self) -> int:
        """Samples of one optimizer step, all ranks together."""
        return self.batch_size * self.accumulate * self.world

    @property
    def steps_per_epoch(self) -> int:
        """The last global batch of an epoch is smaller where the samples do not divide."""
        return math.ceil(self.samples / self.global_batch)

    def step_samples(self, step: int) -> np.ndarray:
        """int64 [n]: the samples of the global batch of step `step` (0 is the first), in order."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = _order(self.seed, epoch, self.samples)
        return order[position * self.global_batch : (position + 1) * self.global_batch]

    def chunks(self, step: int, rank: int) -> list[Chunk]:
        """The micro-batches of `rank`; none, where a last, smaller global batch does not reach it."""
        samples = self.step_samples(step)
        count = math.ceil(len(samples) / self.batch_size)
        epoch = step // self.steps_per_epoch
        return [
            Chunk(n, epoch, tuple(samples[n * self.batch_size : (n + 1) * self.batch_size].tolist()))
            for n in range(rank, count, self.world)
        ]


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, samples: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(samples)


# -- the loader ----------------------------------------------------------------------------------------------------


class _Items:
    """Examples as a torch dataset whose keys are (epoch, index)."""

    def __init__(self, examples: Examples):
        self.examples = examples

    def __getitem__(self, key: tuple[int, int]) -> dict[str, np.ndarray]:
        return self.examples.item(*key)


@dataclass(frozen=True)
class _Packed:
    """A tensor as bytes, to pass through a pipe where shared memory is too small."""

    data: bytes
    dtype: torch.dtype
    shape: tuple[int, ...]

    def unpack(self) -> torch.Tensor:
        if not self.data:
            return torch.empty(self.shape, dtype=self.dtype)
        return torch.frombuffer(bytearray(self.data), dtype=self.dtype).reshape(self.shape)


def _pack(collate: Callable[[Any], Batch], items: Sequence[Any]) -> dict[str, _Packed]:
    return {
        key: _Packed(
            tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes(), tensor.dtype, tuple(tensor.shape)
        )
        for key, tensor in collate(items).items()
    }


def _leave_signals_to_parent(worker: int) -> None:
    """Ctrl-C and `timeout` reach the whole process group: the step that is being saved still needs its loader."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def shared_memory_is_small() -> bool:
    """T11: the default /dev/shm of a container kills loader workers."""
    try:
        return shutil.disk_usage("/dev/shm").free < SHARED_MEMORY
    except OSError:
        return True


class _Keys:
    """Chunks as the (epoch, index) keys of a batch sampler."""

    def __init__(self, chunks: Iterable[Chunk]):
        self.chunks = chunks

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return ([(chunk.epoch, index) for index in chunk.indices] for chunk in self.chunks)


class Loader:
    """Chunks in, batches on the device out, in order; prepared ahead by `num_workers` processes, or here for 0.

    One pass over `chunks` an `iter`; a pass may be as long as the run. Close it (it is a context manager): no process
    is left behind. `small`: shared memory is too small for batches (T11), so they come through pipes.
    """

    def __init__(
        self, examples: Examples, chunks: Iterable[Chunk], settings: Data, device: torch.device, *, small: bool = False
    ):
        workers = min(settings.num_workers, len(os.sched_getaffinity(0)))
        self.device = device
        self.packed = workers > 0 and small
        self.loader = DataLoader(
            _Items(examples),  # type: ignore[arg-type]
            batch_sampler=_Keys(chunks),  # type: ignore[arg-type]
            collate_fn=partial(_pack, examples.collate) if self.packed else examples.collate,
            num_workers=workers,
            prefetch_factor=settings.prefetch_factor if workers else None,
            persistent_workers=workers > 0,
            worker_init_fn=_leave_signals_to_parent,
            pin_memory=device.type == "cuda",
        )
        self.passing: Any = None

    def __iter__(self) -> Iterator[Batch]:
        self.passing = iter(self.loader)
        for batch in self.passing:
            if self.packed:
                batch = {key: value.unpack() for key, value in batch.items()}
            if self.device.type != "cpu":
                batch = {key: value.to(self.device, non_blocking=True) for key, value in batch.items()}
            yield batch

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *error: object) -> None:
        workers = getattr(self.passing, "_workers", [])
        if workers:
            self.passing._shutdown_workers()
        for worker in workers:
            if worker.is_alive():  # stuck in an item, and deaf to SIGTERM
                worker.kill()
                worker.join()
        self.passing = None
