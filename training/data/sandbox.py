"""Worker processes for code that may hang, crash or use too much memory: a bad file costs that file, not the run.

Workers are forked from a small server process (multiprocessing's forkserver) and not from the caller. A fork copies
only the calling thread, but it copies all locks, in whatever state the other threads left them: a child of a process
with torch's threads could deadlock. The server has no threads and has not imported torch. Each worker has its own
process group and ends with its parent. The worker's side is in sandboxed.py.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import multiprocessing
import os
import pickle
import selectors
import signal
import sys
import tempfile
import time
import types
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, NamedTuple

from training.data import sandboxed
from training.data.sandboxed import module_of
from training.errors import HostError
from training.host import slow_factor

_START_SECONDS = 300.0  # limit for a worker's imports, on a loaded machine: some compile what they import
_AHEAD, _DEEPEST = 0.05, 32  # items queued in a worker's pipe: for this many seconds of work, up to this many
_MAX_SLEEP = 0.005  # longest time in seconds that answers wait while every worker has enough work
_SOCKET = 40  # bytes that multiprocessing appends to the temporary folder for its socket name
_PIPE = 1 << 20  # bytes of the pipe for answers: a dozen records
_METHOD = multiprocessing.get_context("forkserver")


@dataclass(frozen=True)
class Outcome:
    """The result of one item."""

    index: int  # of the item in the sequence that `run` was given
    value: Any = None
    error: str | None = None  # None: the call succeeded
    timed_out: bool = False


@dataclass(frozen=True)
class TimeLimit:
    """How long one item may take, by two clocks. An endless loop uses processor time; waiting for a network drive or on
    a busy machine does not. So the limit of processor time can be strict while that of wall-clock time is generous."""

    seconds: float  # wall-clock time; then the worker is killed and replaced
    processor: float = float("inf")  # processor seconds (rounded up) of the worker, without programs that it starts

    @property
    def total(self) -> float:
        """The sum of both: one number to compare limits by."""
        return self.seconds + self.processor

    def on_this_host(self) -> TimeLimit:
        """A limit that was chosen for the reference cores, as it is on this host."""
        factor = slow_factor()
        return self if factor == 1 else TimeLimit(self.seconds * factor, self.processor * factor)


def run(
    function: Callable[[Any], Any],
    items: Sequence[Any],
    *,
    seconds: float | Callable[[Any], TimeLimit],
    megabytes: int,
    workers: int = 1,
    imports: Sequence[str] = (),
) -> Iterator[Outcome]:
    """Call `function` on every item in worker processes; yields outcomes in the order in which they finish.

    Args:
        function: picklable. An exception becomes the item's error; of a ValueError, the text alone.
        seconds: limit of wall-clock time for every item; or a function that returns the limits of an item. A worker
            that exceeds it is killed and replaced.
        megabytes: address space that a worker may use beyond what it has before its first item.
        imports: modules that `function` imports late. A worker imports them before its first item, whose limits they
            would use up where the server runs already without them.

    Raises HostError if workers cannot start or `function` raises one, and RuntimeError if they cannot load `function`.
    """
    if not len(items):
        return
    todo = _Todo(items, seconds if callable(seconds) else lambda _: TimeLimit(seconds))
    code = pickle.dumps(function)
    preload(function, imports=imports)
    start_server()
    pool: list[_Worker] = []
    failed_starts = 0
    with selectors.DefaultSelector() as answers:

        def start_worker() -> _Worker:
            worker = _Worker(code, megabytes, tuple(imports))
            answers.register(worker.answers, selectors.EVENT_READ)
            return worker

        try:
            pool += [start_worker() for _ in range(max(1, min(workers, len(todo))))]
            while len(todo) or any(worker.queue for worker in pool):
                for worker in pool:
                    worker.feed(todo, math.ceil(len(todo) / len(pool)))
                # While all workers have enough work, let answers accumulate: waking up for each of them would cost a
                # context switch per item on both sides.
                time.sleep(min(_MAX_SLEEP, *(worker.busy() / 4 for worker in pool)) if len(todo) else 0)
                wait = min(worker.deadline() for worker in pool) - time.monotonic()
                ready = {key.fileobj for key, _ in answers.select(max(0.0, min(wait, 3600.0)))}
                for place, worker in enumerate(pool):
                    # The caller runs while this generator is suspended in a `yield`, for any length of time. A deadline
                    # may have passed meanwhile although the answer arrived in time, so the pipe is polled before the
                    # worker is declared late.
                    late = worker.answers not in ready and worker.deadline() <= time.monotonic()
                    if worker.answers in ready or (late and worker.answers.poll()):
                        yield from worker.gather()
                    elif late:
                        yield from worker.time_out()
                    if not worker.alive:
                        failed_starts = 0 if worker.ready else failed_starts + 1
                        if failed_starts > 3:
                            raise HostError(
                                f"{failed_starts} worker processes in a row ended while they started; is the machine "
                                "out of memory?"
                            )
                        answers.unregister(worker.answers)
                        worker.stop()
                        todo.put_back(worker.queue)
                        pool[place] = start_worker()
        finally:
            for worker in pool:
                worker.stop()


class _Todo:
    """The items that no worker has, in order."""

    def __init__(self, items: Sequence[Any], limit_of: Callable[[Any], TimeLimit]):
        self._fresh = iter(enumerate(items))
        self._limit_of = limit_of
        self._returned: deque[_Job] = deque()
        self._left = len(items)

    def __len__(self) -> int:
        return self._left

    def take(self) -> _Job:
        self._left -= 1
        if self._returned:
            return self._returned.popleft()
        index, item = next(self._fresh)
        return _Job(index, item, self._limit_of(item))

    def put_back(self, jobs: Sequence[_Job]) -> None:
        """Return the unstarted items of a worker that ended."""
        self._left += len(jobs)
        self._returned.extendleft(reversed(jobs))


class _Job(NamedTuple):
    index: int
    item: Any
    limit: TimeLimit


_preloaded: dict[str, None] = {__name__: None}


def preload(*functions: Callable[[Any], Any], imports: Sequence[str] = ()) -> None:
    """Name the functions that will be run, and modules that they import late. The server imports them once, instead of
    every worker for itself. This has an effect only before the server starts."""
    _preloaded.update(dict.fromkeys([*(module_of(function) for function in functions), *imports]))


def start_server() -> None:
    """Start the server that workers are forked from, if it is not running. It imports the preloaded modules in the
    background, so a caller that will decode files soon should call this early."""
    _METHOD.set_forkserver_preload(list(_preloaded))
    # Workers inherit the server's environment. Many of them run side by side, so each must use a single thread. The
    # server does not receive this process's sys.path, hence PYTHONPATH.
    paths = [path for path in sys.path if path] or [str(Path.cwd())]
    wanted = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    wanted["PYTHONSAFEPATH"] = "1"  # what is begun by `python -c` looks in the current folder first
    kept = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        with _short_temporary_folder():
            forkserver.ensure_running()
    finally:
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _short_temporary_folder() -> Iterator[None]:
    """The server listens at a socket in the temporary folder, and a socket's name is limited to 107 bytes: if TMPDIR is
    longer (a cluster's folder of a job), /tmp is used."""
    kept = tempfile.tempdir
    if len(os.fsencode(tempfile.gettempdir())) + _SOCKET > 107:
        tempfile.tempdir = "/tmp"
    try:
        yield
    finally:
        tempfile.tempdir = kept


@contextlib.contextmanager
def _no_main_module() -> Iterator[None]:
    """Keep multiprocessing from importing the caller's script in every worker: it may import torch, or call `run`."""
    kept = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = kept


@dataclass
class _Worker:
    """The caller's side of one worker process."""

    code: bytes
    megabytes: int
    imports: tuple[str, ...]
    queue: deque[_Job] = field(default_factory=deque)  # sent, not yet answered; the worker is busy with the first
    ready: bool = False
    alive: bool = True  # False once its pipe was closed, its memory ran out, or it was late
    pace: float = math.inf  # seconds per item, a moving average

    def __post_init__(self) -> None:
        items, self.items = _METHOD.Pipe(duplex=False)
        self.answers, answers = _METHOD.Pipe(duplex=False)
        if sys.platform == "linux":
            with contextlib.suppress(OSError):  # above the user's limit: the default size works too, but more slowly
                fcntl.fcntl(answers.fileno(), fcntl.F_SETPIPE_SZ, _PIPE)
        self.process = _METHOD.Process(
            target=sandboxed.serve, args=(items, answers, self.code, self.megabytes, self.imports), daemon=True
        )
        with _no_main_module():
            self.process.start()
        items.close()
        answers.close()
        self.since = time.monotonic()

    def feed(self, todo: _Todo, share: int) -> None:
        """Keep items queued in the pipe, so that the worker never waits for this process: enough for _AHEAD seconds,
        but two items or more, and no more than `share`."""
        depth = min(max(2, min(_DEEPEST, int(_AHEAD / self.pace))), share)
        while len(self.queue) < depth and len(todo):
            job = todo.take()
            try:
                self.items.send((job.item, job.limit.processor))
            except (BrokenPipeError, ConnectionError):
                todo.put_back([job])
                return  # the worker died; `gather` reports that
            if not self.queue and self.ready:
                self.since = time.monotonic()
            self.queue.append(job)

    def busy(self) -> float:
        """The estimated time, in seconds, in which the worker finishes its queue."""
        return len(self.queue) * self.pace if self.queue and self.pace < math.inf else 0.0

    def deadline(self) -> float:
        """The time (time.monotonic) at which the worker is late."""
        if not self.ready:
            return self.since + _START_SECONDS
        return self.since + self.queue[0].limit.seconds if self.queue else math.inf

    def gather(self) -> Iterator[Outcome]:
        """The outcomes of all answers that have arrived, and of the item that killed the worker, if it died."""
        try:
            yield from self._receive()
            while self.alive and self.answers.poll():
                yield from self._receive()
        except (EOFError, ConnectionError):
            yield from self.reap()

    def _receive(self) -> Iterator[Outcome]:
        """Process one message of the worker."""
        kind, value, took = self.answers.recv()
        self.since = time.monotonic()
        if kind == "ready":
            self.ready = True
            return
        if kind == "host":
            raise HostError(value)
        if kind == "unusable":
            raise RuntimeError(f"A worker cannot load the function it should run: {value}")
        index = self.queue.popleft().index
        self.pace = took if self.pace == math.inf else 0.8 * self.pace + 0.2 * took
        if kind == "memory":
            self.alive = False
            yield Outcome(index, error=f"needs more than {self.megabytes} MB of memory to decode")
        else:
            yield Outcome(index, value) if kind == "value" else Outcome(index, error=value)

    def reap(self) -> Iterator[Outcome]:
        """Collect a worker that died: the first item of its queue caused that."""
        self.alive = False
        self.process.join(10)
        if not self.ready or not self.queue:
            return
        index, _, limit = self.queue.popleft()
        code = self.process.exitcode
        if code == -signal.SIGXCPU:
            yield Outcome(index, error=f"takes longer than {limit.processor:.3g} s to decode", timed_out=True)
        elif code == -signal.SIGKILL:
            yield Outcome(index, error="the system killed its decoder, most likely because memory ran out")
        else:
            how = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
            yield Outcome(index, error=f"crashes its decoder ({how})")

    def time_out(self) -> Iterator[Outcome]:
        """Stop waiting for a late worker: the first item of its queue caused that."""
        self.alive = False
        if self.ready and self.queue:
            index, _, limit = self.queue.popleft()
            yield Outcome(index, error=f"takes longer than {limit.seconds:.3g} s to decode", timed_out=True)

    def stop(self) -> None:
        """Kill the process and all programs that it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self.ready:
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join(10)
        self.items.close()
        self.answers.close()
