"""Shared parts of all benchmarks: timing two sides in turn, and the rows of the table.

Machines are noisy and throttle, so bars are ratios instead of absolute times where possible: both sides run alternately
in one process (or one pair of processes), and the ratio of their medians is the result. A subject is a module with
`measure(small) -> list[Row]`; `make bench` runs them all (benchmarks/__main__.py).
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

LIBRARIES = ("torch", "triton", "numpy", "scipy", "numba", "onnxruntime", "soundfile", "librosa", "mido",
             "pretty_midi", "miditok", "transformers", "accelerate", "peft", "trl")  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    bar: str  # "3a": the number of the bar in docs/performance.md, and a letter
    what: str  # the measurement
    ours: float | None
    reference: float | None  # None: the bar is absolute
    unit: str  # of both
    ratio: float | None  # the value that the bar limits: speed-up, share, seconds, MB
    wanted: str  # ">= 40x", "<= 100 MB", as text
    met: bool | None  # None: not measured; `note` has the reason
    note: str = ""  # sizes, versions and other conditions
    spread: dict[str, Any] = field(default_factory=dict)  # minimum and maximum of both sides

    def plain(self) -> dict[str, Any]:
        """For results.json: with Python numbers in place of numpy's."""
        return {name: value.item() if isinstance(value, np.generic) else value for name, value in asdict(self).items()}


def not_measured(bar: str, what: str, wanted: str, why: str) -> Row:
    """A row for a figure that cannot be measured here."""
    return Row(bar, what, None, None, "", None, wanted, None, f"not measured: {why}")


def not_installed(*packages: str) -> str:
    """The packages that are not installed, as a reason why a comparison is not made; empty if all are."""
    missing = [package for package in packages if find_spec(package) is None]
    return f"{' and '.join(missing)} not installed (make bench REFERENCES=1)" if missing else ""


def place() -> dict[str, Any]:
    """Machine, time and command of a measurement: the head of a file of results."""
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
    """Seconds of both sides, which ran one after the other in each round."""

    ours: tuple[float, ...]
    reference: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """The speed-up of ours: the median over rounds of the ratio in each round."""
        return statistics.median(r / o for o, r in zip(self.ours, self.reference, strict=True))

    @property
    def spread(self) -> dict[str, list[float]]:
        """Minimum, median and maximum seconds of each side."""
        return {
            name: [min(times), statistics.median(times), max(times)]
            for name, times in (("ours", self.ours), ("reference", self.reference))
        }


def timed(work: Callable[[], object]) -> float:
    """Seconds of one call of `work`, after a garbage collection, so that garbage of earlier work does not count."""
    gc.collect()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def paired(ours: Callable[[], object], reference: Callable[[], object], rounds: int, warm: int = 1) -> Paired:
    """Time both sides in turn, `rounds` times after `warm` rounds that are discarded; the first side alternates."""
    for _ in range(warm):
        ours(), reference()
    first: list[float] = []
    second: list[float] = []
    for number in range(rounds):
        if number % 2:
            second.append(timed(reference))
            first.append(timed(ours))
        else:
            first.append(timed(ours))
            second.append(timed(reference))
    return Paired(tuple(first), tuple(second))


def in_turn(sides: Mapping[str, Callable[[], float]], rounds: int, warm: int = 1) -> dict[str, list[float]]:
    """Run several sides one after the other, `rounds` times after `warm` rounds that are discarded. Each side returns
    its seconds; the side that runs first changes from round to round."""
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
