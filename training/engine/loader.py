"""Chunks in, batches on the device out: the processes that prepare them ahead."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from training.engine.batches import Chunk
from training.recipe import Batch, Examples
from training.settings import Data

SHARED_MEMORY = 256 * 2**20  # bytes free in /dev/shm below which batches travel through pipes (Docker's default: 64 MB)


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
