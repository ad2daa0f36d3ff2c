"""A data loader whose workers are replaced when they fail, so that a killed worker does not end the run."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

import torch

from training.engine.loading.batches import MicroBatch
from training.engine.loading.transfer import Transfer
from training.engine.loading.worker import Worker, WorkerLost
from training.errors import HostError
from training.recipe import Batch, Dataset
from training.settings import Data
from training.threads import share

PATIENCE = 20.0  # seconds without activity after which a worker is replaced
ATTEMPTS = 5  # replacements of all workers in a row, without a batch in between, after which the run ends
AHEAD = 32  # upper limit of `prefetch_factor`: each prefetched batch is an open file


class Stopped(Exception):
    """A stop was requested while the loader waited for a batch, which may take long. The pass is over."""


class Loader:
    """Yields the batch of each micro-batch, in order and on `device`, prefetched by `num_workers` worker processes, or
    made in this process for 0.

    Each `iter` is one pass over `micro_batches`, one at a time; a pass may be as long as the run. Close the loader (it
    is a context manager), which ends the workers.

    When a worker is killed, crashes, is stopped (SIGSTOP) or hangs, that is reported (`say`) and all workers are
    replaced. The new ones start with the first batch that was not delivered. Since a batch is a pure function of its
    micro-batch, no batch is lost, repeated or changed. An error that the dataset raises is raised here instead.
    `patience`: seconds without activity after which a worker counts as hung; one that computes or reads is active,
    however slow it is. The limit doubles with each attempt, for a worker that sleeps because a drive stalls. Raises
    HostError after ATTEMPTS in a row without a batch, and Stopped when `stop` returns true while a batch is waited for.
    """

    def __init__(
        self,
        dataset: Dataset,
        micro_batches: Iterable[MicroBatch],
        settings: Data,
        device: torch.device,
        *,
        say: Callable[[str], None] = print,
        patience: float = PATIENCE,
        stop: Callable[[], bool] = lambda: False,
    ):
        self.dataset, self.micro_batches, self.transfer = dataset, micro_batches, Transfer(device)
        self.say, self.patience, self.stop = say, patience, stop
        self.count = min(settings.num_workers, share())
        self.ahead = self.count * min(settings.prefetch_factor, AHEAD)
        self.workers: list[Worker] = []
        self.requested = 0  # batches requested from the workers and not delivered yet

    def __iter__(self) -> Iterator[Batch]:
        return map(self.transfer, self._from_workers() if self.count else map(self._in_process, self.micro_batches))

    def _in_process(self, micro_batch: MicroBatch) -> Batch:
        return self.dataset.collate([self.dataset.item(micro_batch.epoch, index) for index in micro_batch.indices])

    def _from_workers(self) -> Iterator[Batch]:
        if self.requested:  # a pass was abandoned: its requested batches are not needed
            self.close()
        micro_batches = iter(self.micro_batches)
        undelivered: deque[MicroBatch] = deque()
        lost = turn = 0  # attempts that failed in a row; the index of the worker that has the next batch
        while True:
            while len(undelivered) < self.ahead and (micro_batch := next(micro_batches, None)) is not None:
                undelivered.append(micro_batch)
            if not undelivered:
                return
            try:
                if not self.workers:
                    self._start_workers()
                    turn = 0
                while self.requested < len(undelivered):
                    self.workers[(turn + self.requested) % self.count].request(undelivered[self.requested])
                    self.requested += 1
                batch = self._await(self.workers[turn], self.patience * 2**lost)
            except WorkerLost as loss:
                lost += 1
                self.close()
                self._report(str(loss), undelivered[0], lost)
                continue
            undelivered.popleft()
            self.requested -= 1
            turn, lost = (turn + 1) % self.count, 0
            yield batch

    def _start_workers(self) -> None:
        for _ in range(self.count):
            self.workers.append(Worker(self.dataset, self.workers))

    def _await(self, worker: Worker, patience: float) -> Batch:
        """The batch that was requested first from `worker`. Time is counted in waits, not by the clock: a time in which
        this process itself was stopped (Ctrl-Z, a suspended machine) does not count as a hang."""
        wait = min(0.5, self.patience / 8)
        silent, before = 0.0, worker.activity()
        while (batch := worker.receive(wait)) is None:
            if self.stop():
                raise Stopped
            now = worker.activity()
            silent, before = (silent + wait if now == before else 0.0), now
            stopped = now[0] == "T"
            if silent >= (self.patience if stopped else patience):
                how = "is stopped (SIGSTOP)" if stopped else "hangs"
                raise WorkerLost(f"data loader worker {worker.pid} {how}: no activity for {silent:.0f} s")
        return batch

    def _report(self, loss: str, micro_batch: MicroBatch, lost: int) -> None:
        if lost >= ATTEMPTS:
            raise HostError(
                f"The data loader workers failed {lost} times in a row at the same batch; the last time: {loss}. The "
                f"batch holds the samples {', '.join(map(str, micro_batch.indices))}. If memory is short, lower "
                "data.num_workers, data.prefetch_factor or data.batch_size. With data.num_workers: 0 batches are made "
                "in the training process itself, which shows the error."
            )
        self.say(
            f"{loss[0].upper()}{loss[1:]}. {self.count} new data loader worker{'s' * (self.count > 1)} "
            f"start{'s' * (self.count == 1)} with the batch that was not delivered; none is lost or repeated."
        )

    def close(self) -> None:
        """Kill all workers and wait for their end."""
        for worker in self.workers:
            worker.kill()
        for worker in self.workers:
            worker.reap()
        self.workers.clear()
        self.requested = 0

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
