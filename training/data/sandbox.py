"""Worker processes for code that may hang, crash or swallow memory: one bad file costs one file.

Workers are forked from a clean server process (multiprocessing's forkserver), so neither the caller's threads nor torch
come along; each lives in its own process group and dies with its parent. What a worker does is in sandboxed.py.
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

_START_SECONDS = 120.0  # a worker may take to import what it needs, on a loaded machine
_AHEAD, _DEEPEST = 0.05, 32  # seconds of work, and items at most, that wait for a worker in its pipe
_NAP = 0.005  # seconds that answers may wait for us, while every worker has work for longer
_SOCKET = 40  # bytes that multiprocessing adds to the temporary folder for the name of its socket
_PIPE = 1 << 20  # bytes of answers that fit on the way: a dozen records
_METHOD = multiprocessing.get_context("forkserver")


@dataclass(frozen=True)
class Outcome:
    """What became of one item."""

    index: int  # of the item in what was given to `run`
    value: Any = None
    error: str | None = None  # None: it went well
    timed_out: bool = False


@dataclass(frozen=True)
class Patience:
    """How long one item may take. What loops burns processor time, what waits (a network drive, a busy machine) does
    not: so the clock on the wall can be generous, and the processor's strict."""

    seconds: float  # on the wall, before the worker is killed and replaced
    processor: float = float("inf")  # seconds of it (rounded up), by the worker itself; not by programs that it starts

    @property
    def total(self) -> float:
        """Grows with either."""
        return self.seconds + self.processor


def run(
    function: Callable[[Any], Any],
    items: Sequence[Any],
    *,
    seconds: float | Callable[[Any], Patience],
    megabytes: int,
    workers: int = 1,
) -> Iterator[Outcome]:
    """Call `function` on every item in worker processes; yields outcomes as they come (see `Outcome.index`).

    Args:
        function: picklable. What it raises is the item's error; a ValueError's text is taken as the reason.
        seconds: wall clock an item may take before its worker is killed and replaced; or how long each item may take.
        megabytes: address space a worker may take beyond what it has before its first item.

    Raises HostError if workers cannot start or `function` raises one, and RuntimeError if they cannot load `function`.
    """
    if not len(items):
        return
    todo = _Todo(items, seconds if callable(seconds) else lambda _: Patience(seconds))
    code = pickle.dumps(function)
    expect(function)
    start_server()
    crew: list[_Worker] = []
    stillborn = 0
    with selectors.DefaultSelector() as answers:

        def hire() -> _Worker:
            worker = _Worker(code, megabytes)
            answers.register(worker.answers, selectors.EVENT_READ)
            return worker

        try:
            crew += [hire() for _ in range(max(1, min(workers, len(todo))))]
            while len(todo) or any(worker.queue for worker in crew):
                for worker in crew:
                    worker.feed(todo, math.ceil(len(todo) / len(crew)))
                # while all have work, answers may gather: to be woken by each would cost us and them a switch an item
                time.sleep(min(_NAP, *(worker.busy() / 4 for worker in crew)) if len(todo) else 0)
                patience = min(worker.deadline() for worker in crew) - time.monotonic()
                ready = {key.fileobj for key, _ in answers.select(max(0.0, min(patience, 3600.0)))}
                for place, worker in enumerate(crew):
                    # late, or did its answer come while ours were being used?
                    late = worker.answers not in ready and worker.deadline() <= time.monotonic()
                    if worker.answers in ready or (late and worker.answers.poll()):
                        yield from worker.gather()
                    elif late:
                        yield from worker.give_up()
                    if not worker.alive:
                        stillborn = 0 if worker.ready else stillborn + 1
                        if stillborn > 3:
                            raise HostError("Worker processes end before they begin; is the machine out of memory?")
                        answers.unregister(worker.answers)
                        worker.stop()
                        todo.put_back(worker.queue)
                        crew[place] = hire()
        finally:
            for worker in crew:
                worker.stop()


class _Todo:
    """What is left to do, in order."""

    def __init__(self, items: Sequence[Any], patience_of: Callable[[Any], Patience]):
        self._fresh = iter(enumerate(items))
        self._patience_of = patience_of
        self._returned: deque[_Job] = deque()
        self._left = len(items)

    def __len__(self) -> int:
        return self._left

    def take(self) -> _Job:
        self._left -= 1
        if self._returned:
            return self._returned.popleft()
        index, item = next(self._fresh)
        return _Job(index, item, self._patience_of(item))

    def put_back(self, jobs: Sequence[_Job]) -> None:
        """Of a worker that ended: they were not begun."""
        self._left += len(jobs)
        self._returned.extendleft(reversed(jobs))


class _Job(NamedTuple):
    index: int
    item: Any
    patience: Patience


_expected: dict[str, None] = {__name__: None}


def expect(*functions: Callable[[Any], Any], imports: Sequence[str] = ()) -> None:
    """Name functions that will be run, and modules that they import late, before the first is run: the server then
    imports all of them once, not every worker anew."""
    _expected.update(dict.fromkeys([*(module_of(function) for function in functions), *imports]))


def start_server() -> None:
    """Start the server that workers are forked from, unless it runs already. It imports what is expected by itself;
    who knows that files will be decoded soon starts it beforehand."""
    _METHOD.set_forkserver_preload(list(_expected))
    # A worker is one of many: it needs one thread. The server does not get our sys.path by itself.
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
    """The server listens at a socket in the temporary folder, and a socket's name has room for 107 bytes: where TMPDIR
    is longer (a cluster's folder of a job), /tmp serves."""
    kept = tempfile.tempdir
    if len(os.fsencode(tempfile.gettempdir())) + _SOCKET > 107:
        tempfile.tempdir = "/tmp"
    try:
        yield
    finally:
        tempfile.tempdir = kept


@contextlib.contextmanager
def _no_main_module() -> Iterator[None]:
    """Keep multiprocessing from running the caller's script again in every worker: it may import torch, or start us."""
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
    queue: deque[_Job] = field(default_factory=deque)  # sent and unanswered; the first is being worked on
    ready: bool = False
    alive: bool = True  # as far as its answers tell
    pace: float = math.inf  # seconds that an item takes, of late

    def __post_init__(self) -> None:
        items, self.items = _METHOD.Pipe(duplex=False)
        self.answers, answers = _METHOD.Pipe(duplex=False)
        if sys.platform == "linux":
            with contextlib.suppress(OSError):  # beyond what a user may have: a small one does, with more switches
                fcntl.fcntl(answers.fileno(), fcntl.F_SETPIPE_SZ, _PIPE)
        self.process = _METHOD.Process(
            target=sandboxed.serve, args=(items, answers, self.code, self.megabytes), daemon=True
        )
        with _no_main_module():
            self.process.start()
        items.close()
        answers.close()
        self.since = time.monotonic()

    def feed(self, todo: _Todo, share: int) -> None:
        """Keep items waiting in the pipe, so that the worker never waits for us: work for _AHEAD seconds, or a second
        item; but no more than its share of what is left."""
        depth = min(max(2, min(_DEEPEST, int(_AHEAD / self.pace))), share)
        while len(self.queue) < depth and len(todo):
            job = todo.take()
            try:
                self.items.send((job.item, job.patience.processor))
            except (BrokenPipeError, ConnectionError):
                todo.put_back([job])
                return  # it died: the wait that follows says so
            if not self.queue and self.ready:
                self.since = time.monotonic()
            self.queue.append(job)

    def busy(self) -> float:
        """For how many seconds, about, it has work."""
        return len(self.queue) * self.pace if self.queue and self.pace < math.inf else 0.0

    def deadline(self) -> float:
        if not self.ready:
            return self.since + _START_SECONDS
        return self.since + self.queue[0].patience.seconds if self.queue else math.inf

    def gather(self) -> Iterator[Outcome]:
        """What became of the items whose answers have come; if it died, of the one that it died of."""
        try:
            yield from self._receive()
            while self.alive and self.answers.poll():
                yield from self._receive()
        except (EOFError, ConnectionError):
            yield from self.bury()

    def _receive(self) -> Iterator[Outcome]:
        """One message."""
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

    def bury(self) -> Iterator[Outcome]:
        """It ended by itself: its first item is to blame."""
        self.alive = False
        self.process.join(10)
        if not self.ready or not self.queue:
            return
        index, _, patience = self.queue.popleft()
        code = self.process.exitcode
        if code == -signal.SIGXCPU:
            yield Outcome(index, error=f"takes longer than {patience.processor:.3g} s to decode", timed_out=True)
        elif code == -signal.SIGKILL:
            yield Outcome(index, error="its decoder was killed by the system, most likely for lack of memory")
        else:
            how = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
            yield Outcome(index, error=f"crashes its decoder ({how})")

    def give_up(self) -> Iterator[Outcome]:
        """It is late: its first item is to blame."""
        self.alive = False
        if self.ready and self.queue:
            index, _, patience = self.queue.popleft()
            yield Outcome(index, error=f"takes longer than {patience.seconds:.3g} s to decode", timed_out=True)

    def stop(self) -> None:
        """End the process and whatever it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self.ready:
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join(10)
        self.items.close()
        self.answers.close()
