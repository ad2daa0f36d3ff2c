"""Micro-batches in, batches on the device out, prepared ahead by processes that may fail."""

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

PATIENCE = 20.0  # seconds without a heartbeat after which a worker is replaced
ATTEMPTS = 5  # crews lost in a row, without a batch from any
AHEAD = 32  # batches a worker at most, whatever `prefetch_factor` says: each is an open file


class Stopped(Exception):
    """The run was asked to stop while a batch was waited for, which may take long. The pass is over."""


class Loader:
    """Micro-batches in, batches on the device out, in order; prepared ahead by `num_workers` processes, or here for 0.

    One pass over `micro_batches` an `iter`, one at a time; a pass may be as long as the run. Close it (it is a context
    manager): no process is left behind.

    A worker that is killed, crashes, is stopped or hangs is reported (`say`), and all are replaced: the new ones begin
    with the first batch that was not delivered, and since a batch is a pure function of its micro-batch none is lost,
    none comes twice, and all are the same. What an item raises is no such case: it is raised here. `patience`: seconds
    without a sign of life (a worker that computes or reads gives signs, however slow it is) until a worker is taken
    for stuck; one that is merely asleep gets twice as long at each further attempt. Raises HostError when ATTEMPTS in
    a row brought nothing, and Stopped when `stop` came true while a batch was waited for.
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
        self.requested = 0  # batches that the crew is to bring

    def __iter__(self) -> Iterator[Batch]:
        return map(self.transfer, self._from_workers() if self.count else map(self._in_process, self.micro_batches))

    def _in_process(self, micro_batch: MicroBatch) -> Batch:
        return self.dataset.collate([self.dataset.item(micro_batch.epoch, index) for index in micro_batch.indices])

    def _from_workers(self) -> Iterator[Batch]:
        if self.requested:  # a pass was abandoned: its requested batches are not needed
            self.close()
        micro_batches = iter(self.micro_batches)
        undelivered: deque[MicroBatch] = deque()
        lost = turn = 0  # crews lost in a row; the worker whose batch is next
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
        """The batch that was requested first from `worker`. Time is counted in waits, not by the clock: while this
        process was stopped (Ctrl-Z, a suspended machine) no worker counts as silent."""
        wait = min(0.5, self.patience / 8)
        silent, before = 0.0, worker.activity()
        while (batch := worker.receive(wait)) is None:
            if self.stop():
                raise Stopped
            signs = worker.activity()
            silent, before = (silent + wait if signs == before else 0.0), signs
            stopped = signs[0] == "T"
            if silent >= (self.patience if stopped else patience):
                how = "is stopped (SIGSTOP)" if stopped else "hangs"
                raise WorkerLost(f"data loader worker {worker.pid} {how}: no heartbeat for {silent:.0f} s")
        return batch

    def _report(self, loss: str, micro_batch: MicroBatch, lost: int) -> None:
        if lost >= ATTEMPTS:
            raise HostError(
                f"The loader's processes failed {lost} times in a row at the same batch; the last time: {loss}. It "
                f"was to hold the samples {', '.join(map(str, micro_batch.indices))}. If memory is short, lower "
                "data.num_workers, data.prefetch_factor or data.batch_size; with data.num_workers: 0 batches are made "
                "in the training process itself, which shows what goes wrong."
            )
        self.say(
            f"{loss[0].upper()}{loss[1:]}. {self.count} new data loader worker{'s' * (self.count > 1)} "
            f"{'go' if self.count > 1 else 'goes'} on with the batch that was not delivered; none is lost or repeated."
        )

    def close(self) -> None:
        """End all workers, now."""
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
