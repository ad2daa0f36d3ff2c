"""Data-parallel ranks under torchrun. Each step has one collective for counts and flags, and one for the gradients
(sharded parameters have their own: sharding.py).

Every rank must call each method of Ranks, in the same order, also `on_rank_zero`: a rank that waits in a collective
which another one does not enter would wait until TIMEOUT.
"""

from __future__ import annotations

import itertools
import os
import pickle
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from training import threads
from training.engine.process.heartbeat import beat
from training.errors import AthanorError, HostError, Interrupted

TIMEOUT = timedelta(minutes=10)  # of one collective
T = TypeVar("T")
_joinings = itertools.count()


class Ranks:
    """This process as one of `world` ranks. In a world of one rank nothing is communicated."""

    def __init__(self, rank: int, world: int, device: torch.device, store: Any = None):
        self.rank, self.world, self.device = rank, world, device
        self._store, self._turn = store, 0

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, the only one that writes files and prints."""
        return self.rank == 0

    def on_rank_zero(self, work: Callable[[], T]) -> T:
        """Run `work` on rank 0 alone; every rank gets its (picklable) result, or raises its error. The others wait
        for as long as it takes: preparing a corpus may take hours."""
        if self.world == 1:
            return work()
        self._turn += 1
        key = f"first/{self._turn}"
        if self.is_first:
            try:
                result = work()
            except BaseException as error:
                known = isinstance(error, AthanorError | Interrupted)
                sent = error if known else RuntimeError(f"rank 0 failed: {error!r}")
                self._store.set(key, pickle.dumps((None, sent)))
                raise
            self._store.set(key, pickle.dumps((result, None)))
            return result
        while not self._store.check([key]):
            beat()  # waiting does not count as a hang: if rank 0 hangs, its own watchdog ends it
            time.sleep(0.02)
        result, error = pickle.loads(self._store.get(key))
        if error is not None:
            raise error
        return result

    def from_first_host(self, read: Callable[[], T]) -> T:
        """The result of `read` on the host of rank 0. On one host every rank calls `read`. With several hosts rank 0
        sends the (picklable) result to all, since the disks of the others hold no files, or older ones."""
        if int(os.environ.get("LOCAL_WORLD_SIZE", self.world)) == self.world:
            return read()
        found = [read() if self.is_first else None]
        dist.broadcast_object_list(found, 0, device=torch.device("cpu"))
        return found[0]  # type: ignore[return-value]

    def total(self, values: Sequence[float]) -> list[float]:
        """Sums over ranks, in float64 and on the CPU, so that no GPU has to be waited for."""
        if self.world == 1:
            return list(values)
        summed = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(summed)
        return summed.tolist()

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true on any rank."""
        return self.total([float(flag)])[0] > 0

    def gather(self, value: Any) -> list[Any]:
        """Every rank's (picklable) value, in rank order."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def all_reduce(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace each tensor by its sum over ranks."""
        if self.world > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)

    def broadcast(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Replace each tensor by rank 0's."""
        if self.world > 1:
            for tensor in tensors.values():
                dist.broadcast(tensor, 0)


def choose_device(wanted: str) -> torch.device:
    """The device for `cpu`, `cuda` or `auto` (a GPU if there is one). Raises HostError if `cuda` is required and there
    is none, or if there are fewer GPUs than processes on this host."""
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise HostError(
            "A GPU was required, and PyTorch finds none (is the driver installed, and this torch built for CUDA? see "
            "`nvidia-smi`). Train on the CPU with --cpu."
        )
    local = int(os.environ.get("LOCAL_RANK", 0))
    if local >= torch.cuda.device_count():
        raise HostError(
            f"{local + 1} or more processes were started for {torch.cuda.device_count()} GPU(s); one process a "
            "GPU: lower --gpus."
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


def share_cores(workers: int) -> None:
    """Compute with as many threads as CPUs are available to this process, less one if it has data loader workers: with
    one thread too many, a step of a small model takes three times as long. OMP_NUM_THREADS takes precedence where the
    user has set it."""
    if threads.chosen() is None:
        torch.set_num_threads(threads.count(workers))


@contextmanager
def sharing_cores(workers: int) -> Iterator[None]:
    """`share_cores` for as long as the block lasts."""
    before = torch.get_num_threads()
    share_cores(workers)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def joined(device: str = "auto") -> Iterator[Ranks]:
    """The ranks that torchrun started (or this process alone), joined for as long as the block lasts."""
    chosen = choose_device(device)
    world = int(os.environ.get("WORLD_SIZE", 1))
    if world == 1:
        yield Ranks(0, 1, chosen)
        return
    # Each call has its own keys in the store, as one process may train several families one after the other.
    turn = next(_joinings)
    store, rank, world = next(iter(dist.rendezvous("env://", timeout=TIMEOUT)))
    backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
    dist.init_process_group(
        backend, store=dist.PrefixStore(f"collectives/{turn}", store), rank=rank, world_size=world, timeout=TIMEOUT
    )
    try:
        yield Ranks(rank, world, chosen, dist.PrefixStore(f"first/{turn}", store))
        # Without torchrun, whose agent holds the store, rank 0 does: it must not end before the others have read it.
        dist.barrier()
    finally:
        dist.destroy_process_group()
