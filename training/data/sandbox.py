"""Worker processes for code that may hang, crash or swallow memory: one bad file costs one file.

Workers are forked from a clean server process (multiprocessing's forkserver), so neither the caller's threads nor torch
come along; each lives in its own process group and dies with its parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import importlib
import math
import multiprocessing
import os
import pickle
import resource
import selectors
import signal
import sys
import time
import types
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection, forkserver
from pathlib import Path
from typing import Any, NamedTuple

from training.errors import HostError

_START_SECONDS = 120.0  # a worker may take to import what it needs, on a loaded machine
_AHEAD, _DEEPEST = 0.05, 32  # seconds of work, and items at most, that wait for a worker in its pipe
_NAP = 0.005  # seconds that answers may wait for us, while every worker has work for longer
_PIPE = 1 << 20  # bytes of answers that fit on the way: a dozen scores
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
    _expected.update(dict.fromkeys([*(_module(function) for function in functions), *imports]))


def start_server() -> None:
    """Start the server that workers are forked from, unless it runs already. It imports what is expected by itself;
    who knows that files will be decoded soon starts it beforehand."""
    _METHOD.set_forkserver_preload(list(_expected))
    # A worker is one of many: it needs one thread. The server does not get our sys.path by itself.
    paths = [path for path in sys.path if path] or [str(Path.cwd())]
    wanted = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    kept = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        forkserver.ensure_running()
    finally:
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _no_main_module() -> Iterator[None]:
    """Keep multiprocessing from running the caller's script again in every worker: it may import torch, or start us."""
    kept = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = kept


def _module(function: Callable[[Any], Any]) -> str:
    while isinstance(function, functools.partial):
        # the innermost function is what takes long to import: partial(wrapper, decoder) has two
        inner = next((a for a in function.args if callable(a)), None)
        function = inner or function.func
    return function.__module__


def available_cpus() -> int:
    """Processors that this process may use: affinity, and a container's quota."""
    cpus = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cpus = min(cpus, max(1, int(int(quota) / int(period))))
    return cpus


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
        self.process = _METHOD.Process(target=_serve, args=(items, answers, self.code, self.megabytes), daemon=True)
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


# -- in the worker -------------------------------------------------------------------------------------------------


def _serve(items: connection.Connection, answers: connection.Connection, code: bytes, megabytes: int) -> None:
    """The life of a worker: load the function, set the limits, answer items until the pipe closes."""
    os.setpgid(0, 0)  # so that it can be ended together with programs it runs, and Ctrl-C reaches only the caller
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: never outlive the server
    # The server ends when nobody holds this pipe any more; workers inherit it, and would keep it alive by themselves.
    alive = getattr(forkserver._forkserver, "_forkserver_alive_fd", None)
    if alive is not None:
        os.close(alive)
    try:
        function = pickle.loads(code)
        importlib.import_module(_module(function))
    except BaseException as error:  # noqa: BLE001 - told to the caller, who raises it
        answers.send(("unusable", f"{type(error).__name__}: {error}", 0.0))
        return
    quiet = os.open(os.devnull, os.O_WRONLY)  # decoders chatter on both; what matters is raised
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _keep_memory()
    _limit_memory(megabytes)
    answers.send(("ready", None, 0.0))
    while True:
        try:
            item, processor = items.recv()
        except (EOFError, ConnectionError):
            return
        _limit_processor(processor)
        began = time.monotonic()
        kind, value = _answer(function, item)
        answers.send((kind, value, time.monotonic() - began))
        if kind == "memory":
            return


def _answer(function: Callable[[Any], Any], item: Any) -> tuple[str, Any]:
    try:
        return "value", function(item)
    except MemoryError:
        return "memory", None
    except ValueError as error:
        return "error", _one_line(str(error) or "ValueError")
    except HostError as error:  # a missing program is no fault of the file
        return "host", str(error)
    except Exception as error:  # noqa: BLE001 - decoders raise anything on a broken file; it is told as the reason
        return "error", _one_line(f"{type(error).__name__}: {error}")


def _one_line(text: str, length: int = 300) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= length else line[: length - 1] + "…"


def _keep_memory() -> None:
    """Let the allocator keep what is freed, for the next file: giving it back to the system and getting it anew, page
    by page, took a fifth of the time of a MIDI file. glibc only; elsewhere the allocator's own rules stay."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
        mallopt(trim_threshold, 64 * 2**20)
        mallopt(mmap_threshold, 32 * 2**20)


def _limit_memory(megabytes: int) -> None:
    """Cap the address space at what the process has now plus `megabytes`."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return  # no /proc (macOS), where RLIMIT_AS is not enforced either
    limit = pages * resource.getpagesize() + megabytes * 2**20
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _limit_processor(seconds: float) -> None:
    """The kernel ends this process (SIGXCPU) when it has used so much more processor time, in whole seconds."""
    if seconds == float("inf"):
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = math.ceil(used.ru_utime + used.ru_stime + seconds)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, hard))
