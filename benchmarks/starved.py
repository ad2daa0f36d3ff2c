"""Bar 11: the time of evaluating and training on a shared host, and in a container that may use one CPU.

Complete processes, timed from outside, as a user runs them: on the demo corpus, on a CPU. "Beside busy processes": for
every CPU that this process may use, another process computes without a pause, so that half of each CPU is left.
"libgomp as it comes": its defaults, that is, a thread for every visible CPU, which spins for 300,000 rounds while it
waits.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import Row, in_turn, median
from benchmarks.music.demo import prepared_demo
from benchmarks.running import quiet
from training.threads import BLAS_SPINNING, CONFIGURED, THREADS, WAITING
from training.workspace import PROJECT, Workspace

FAMILY = "midi_generator"
BESIDE, QUOTA, COST = 3.0, 1.3, 1.1  # largest permitted ratios
ROUNDS = 3
PATIENCE = 6.0  # a command beside busy processes is ended after this many times what it takes on a quiet host
BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    for _ in range(100_000): pass"
CPUS = len(os.sched_getaffinity(0))
LIBGOMP = {THREADS: str(CPUS), "GOMP_SPINCOUNT": "300000", "OPENBLAS_THREAD_TIMEOUT": "26"}
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Work:
    """A command of `python -m training` that can be repeated: `fresh` removes the results of the last time."""

    bar: str
    words: tuple[str, ...]
    fresh: Callable[[], None]

    def __call__(
        self, given: Mapping[str, str] | None = None, enter: Callable[[], None] | None = None, most: float | None = None
    ) -> float:
        """The seconds that it takes with the environment variables `given`; `most` if it has not ended by then, when it
        is killed. `enter` is called in the new process."""
        self.fresh()
        own = {THREADS, CONFIGURED, *WAITING, *BLAS_SPINNING}
        environment = {name: value for name, value in os.environ.items() if name not in own} | dict(given or {})
        began = time.perf_counter()
        try:
            subprocess.run(
                [sys.executable, "-m", "training", *self.words], cwd=PROJECT, env=environment, preexec_fn=enter,
                check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=most,
            )  # fmt: skip
        except subprocess.CalledProcessError as error:
            raise RuntimeError(f"{self.words[0]} ended with {error.returncode}: {error.stderr[-1000:]!r}") from None
        except subprocess.TimeoutExpired:
            return float(most or 0)
        return time.perf_counter() - began

    def beside(self, given: Mapping[str, str] | None = None, most: float | None = None) -> float:
        """The seconds that it takes beside busy processes."""
        with busy(CPUS):
            return self(given, most=most)


@dataclass(frozen=True)
class _Took:
    """Median seconds by side; how one CPU was granted."""

    seconds: Mapping[str, float]
    how: str
    rounds: int


def measure(small: bool) -> list[Row]:
    """Rows 11a to 11d: evaluating; 11e to 11h: training. With `small`: 11e and 11f."""
    with tempfile.TemporaryDirectory() as place:
        workspace = Workspace(Path(place))
        with quiet():
            prepared_demo(workspace, 10 if small else 30)
        evaluate, train = _works(workspace, small)
        if small:
            return rows_of(train, timed_sides(train, 1, small))
        train()  # a checkpoint to evaluate
        return [row for work in (evaluate, train) for row in _full_rows(work, timed_sides(work, ROUNDS, small))]


def _works(workspace: Workspace, small: bool) -> tuple[Work, Work]:
    common = ("--device", "cpu", "--out", str(workspace.root))
    settings = ("--preset", "debug") if small else (
        "--preset", "demo", "--set", "training.max_steps=40", "--set", "generation.max_tokens=128",
    )  # fmt: skip

    def remove_results() -> None:
        shutil.rmtree(workspace.exports, ignore_errors=True)
        shutil.rmtree(workspace.cache / "baselines", ignore_errors=True)

    train = Work("11e", ("train", FAMILY, *settings, "--resume", "never", *common), lambda: None)
    return Work("11a", ("evaluate", FAMILY, *common), remove_results), train


def timed_sides(work: Work, rounds: int, small: bool) -> _Took:
    with one_cpu() as (enter, how):
        sides = {
            "quiet": work,
            "beside": work.beside,
            "quota": lambda: work(enter=enter),
            "thread": lambda: work({THREADS: "1"}),
        } | ({} if small else {"libgomp": lambda: work(LIBGOMP)})
        seconds = in_turn(sides, rounds, warm=0)
    return _Took({name: median(times) for name, times in seconds.items()}, how, rounds)


def rows_of(work: Work, took: _Took) -> list[Row]:
    seconds, verb = took.seconds, work.words[0]
    return [
        _row(work.bar, 0, f"{verb} beside {CPUS} busy processes on {CPUS} CPUs", seconds["beside"], seconds["quiet"],
             BESIDE, f"against the same in quiet; median of {took.rounds}; load {os.getloadavg()[0]:.1f} at the end"),
        _row(work.bar, 1, f"{verb} under a quota of one CPU", seconds["quota"], seconds["thread"], QUOTA,
             f"against one thread without a quota; {took.how}"),
    ]  # fmt: skip


def _full_rows(work: Work, took: _Took) -> list[Row]:
    """The rows of `rows_of`, and two with libgomp's defaults: on a quiet host, and beside busy processes."""
    alone, libgomp, verb = took.seconds["quiet"], took.seconds["libgomp"], work.words[0]
    most = PATIENCE * alone
    former = work.beside(LIBGOMP, most)
    return [
        *rows_of(work, took),
        _row(work.bar, 2, f"{verb} in quiet, against libgomp as it comes", alone, libgomp, COST,
             f"what it costs not to spin; with one thread it takes {took.seconds['thread']:.3g} s"),
        Row(_name(work.bar, 3), f"{verb} beside {CPUS} busy processes, libgomp as it comes", former, alone, "s",
            former / alone, "stated", True, f"ended after {most:.0f} s, unfinished" if former >= most else "once"),
    ]  # fmt: skip


def _row(bar: str, at: int, what: str, ours: float, baseline: float, most: float, note: str) -> Row:
    return Row(
        _name(bar, at), what, ours, baseline, "s", ours / baseline, f"<= {most:g}x", ours <= most * baseline, note
    )


def _name(bar: str, at: int) -> str:
    return bar[:-1] + chr(ord(bar[-1]) + at)


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Run `processes` processes that compute without a pause until the end of the block, or of this process."""
    started = [subprocess.Popen([sys.executable, "-S", "-c", BUSY]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.wait()


@contextmanager
def one_cpu() -> Iterator[tuple[Callable[[], None], str]]:
    """A function that a new process calls to be limited to one CPU, and a text that states how: by a cgroup's quota if
    this process may create a cgroup, otherwise by its affinity."""
    controller = CGROUP / "cpu" if (CGROUP / "cpu").is_dir() else CGROUP
    group = controller / f"benchmark-{os.getpid()}"
    first = min(os.sched_getaffinity(0))
    try:
        refused = _quota(group)
        if refused:
            yield lambda: os.sched_setaffinity(0, {first}), f"by affinity: no cgroup can be made here ({refused})"
        else:
            yield lambda: _join(group), f"quota of a cgroup ({controller})"
    finally:
        if group.is_dir():
            group.rmdir()


def _quota(group: Path) -> str:
    """Create a cgroup with a quota of one CPU; returns why that failed, or ""."""
    try:
        group.mkdir()
        if (group / "cpu.cfs_quota_us").exists():
            (group / "cpu.cfs_quota_us").write_text((group / "cpu.cfs_period_us").read_text())
        else:
            (group / "cpu.max").write_text("100000 100000")
    except OSError as error:
        return str(error.strerror)
    return ""


def _join(group: Path) -> None:
    (group / "cgroup.procs").write_text("0")
