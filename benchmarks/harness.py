"""What every benchmark shares: two sides timed in turn, a bar, a row of the table.

Machines are noisy and throttle, so no absolute time is a bar: both sides run alternately in one process (or one pair of
processes), and the ratio of their medians counts. A subject is a module with `measure(scale) -> list[Row]`;
`make bench` runs them all (benchmarks/__main__.py).
"""

from __future__ import annotations

import gc
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import numpy as np

from training.host import available_cpus, cpu_name

LIBRARIES = ("torch", "triton", "numpy", "scipy", "numba", "onnxruntime", "symusic", "soundfile", "librosa", "mido",
             "pretty_midi", "miditok", "transformers", "accelerate")  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    bar: str  # "3a": the number of the bar in docs/performance.md, and a letter
    what: str  # what was measured
    ours: float | None
    rival: float | None  # None: the bar is absolute
    unit: str  # of both
    ratio: float | None  # what the bar is about: speed-up, share, seconds, MB
    wanted: str  # ">= 40x", "<= 100 MB": as a person reads it
    met: bool | None  # None: it was not measured, and `note` says why
    note: str = ""  # sizes, versions, what a reader must know
    spread: dict[str, Any] = field(default_factory=dict)  # minimum and maximum of both sides

    def plain(self) -> dict[str, Any]:
        """For results.json: Python's own numbers, whatever a subject reckoned with."""
        return {name: value.item() if isinstance(value, np.generic) else value for name, value in asdict(self).items()}


def not_measured(bar: str, what: str, wanted: str, why: str) -> Row:
    """A row that stands for a figure which cannot be had here."""
    return Row(bar, what, None, None, "", None, wanted, None, f"not measured: {why}")


def lacking(*packages: str) -> str:
    """Why a comparison with these rivals cannot be made here; empty where it can."""
    missing = [package for package in packages if find_spec(package) is None]
    return f"{' and '.join(missing)} not installed (make bench RIVALS=1)" if missing else ""


def place() -> dict[str, Any]:
    """Where, when and by which command something is measured: the head of a file of results."""
    found: dict[str, str | None] = {}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = None
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "command": shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        "python": platform.python_version(),
        "processor": cpu_name(),
        "cores": available_cpus(),
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB",
        "load": round(os.getloadavg()[0], 2),  # of the minute before
        "libraries": found,
    }


median = statistics.median


@dataclass(frozen=True)
class Paired:
    """Seconds of both sides, each round of which ran one after the other."""

    ours: tuple[float, ...]
    rival: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """How many times faster ours is: the median over rounds of the rounds' own ratios."""
        return statistics.median(r / o for o, r in zip(self.ours, self.rival, strict=True))

    @property
    def spread(self) -> dict[str, list[float]]:
        """Minimum, median and maximum seconds of each side."""
        return {
            name: [min(times), statistics.median(times), max(times)]
            for name, times in (("ours", self.ours), ("rival", self.rival))
        }


def timed(work: Callable[[], object]) -> float:
    """Seconds that `work` takes once, without a garbage collection that another piece of work deserved."""
    gc.collect()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def paired(ours: Callable[[], object], rival: Callable[[], object], rounds: int, warm: int = 1) -> Paired:
    """Both sides in turn, `rounds` times, after `warm` rounds that do not count; who goes first alternates."""
    for _ in range(warm):
        ours(), rival()
    first: list[float] = []
    second: list[float] = []
    for number in range(rounds):
        if number % 2:
            second.append(timed(rival))
            first.append(timed(ours))
        else:
            first.append(timed(ours))
            second.append(timed(rival))
    return Paired(tuple(first), tuple(second))


def in_turn(sides: Mapping[str, Callable[[], float]], rounds: int, warm: int = 1) -> dict[str, list[float]]:
    """Several sides, each of which returns its own seconds, one after the other, `rounds` times after `warm` rounds
    that do not count; who goes first changes from round to round."""
    names = list(sides)
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-warm, rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            gc.collect()
            seconds = sides[name]()
            if number >= 0:
                times[name].append(seconds)
    return times
