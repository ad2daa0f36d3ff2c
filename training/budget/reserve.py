"""Time kept back for the end: evaluation, export and verification of what was trained.

Seconds on the reference cores (`Ending`: of each family, by its size and by how long it trained), times how slow this
host is at the moment (`slowness`), times how long the same stages took on it before, as a multiple of that; where none
has run yet, times what a fixed export takes (the stage `trial`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from training.budget.book import Past, Session, host, paces
from training.budget.ending import STAGES, Ending
from training.workspace import Workspace

BYTES = 16  # of a checkpoint a weight: weights, their average, two of the optimizer
UNKNOWN = 3.0  # a family of which nothing is known yet may be this much larger than the largest that is known
MARGIN = 1.15  # over what was measured here
CAREFUL = 1.3  # over what is expected, where nothing was measured here
PROBE = (7, 400_000, 0.0087)  # probes; additions of one; the seconds that it takes on the reference cores
SLOWEST = 10.0  # a host that is slower than that for a moment will not be so for long
LEAST = 0.25  # of what is expected: a stage that found its work done before took no time, and tells nothing
TRIAL = "trial"  # the stage in which a fixed export is timed
TRIAL_SECONDS = 9.5  # that it takes on the reference cores
#: Seconds that no session counts (a process's start and end, the report after it): around a family's evaluation, and
#: around the export, the verification and the end of the count, which serve all families.
PROCESS, COMMON_PROCESSES = 0.8, 6.6


@dataclass(frozen=True)
class Due:
    """A family whose end is to come."""

    ending: Ending
    millions: float
    trained: float = 0.0  # seconds that it has trained for, or is going to have

    def seconds(self, stage: str) -> float:
        return self.ending.seconds(stage, self.millions, self.trained)


def expected(stage: str, due: Iterable[Due]) -> float:
    """Seconds of one stage on the reference cores; 0 for a stage of which nothing is known beforehand."""
    return TRIAL_SECONDS if stage == TRIAL else sum(one.seconds(stage) for one in due)


def millions_of(workspace: Workspace, family: str) -> float | None:
    """Millions of weights of a trained family, by the size of its checkpoint; None without one."""
    sizes = [_bytes(path) for path in workspace.checkpoints(family).glob("*.pt")]
    return max(sizes) / BYTES / 1e6 if sizes else None


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # just replaced
        return 0


def slowness() -> float:
    """Seconds that something takes here at the moment, as a multiple of those it takes on the reference cores: what the
    core does, and how many others want it. Takes an eighth of a second."""
    number, additions, reference = PROBE
    times = []
    for _ in range(number):
        before, total = time.perf_counter(), 0
        for value in range(additions):
            total += value & 7
        times.append(time.perf_counter() - before)
    return min(SLOWEST, max(1 / SLOWEST, median(times) / reference))


def due(
    workspace: Workspace,
    endings: Mapping[str, Ending],
    trained: Mapping[str, float] | None = None,
    known: Mapping[str, float] | None = None,
) -> dict[str, Due]:
    """Family -> its end. Its millions of weights are those `known`, else by its checkpoint, else what its ending says;
    a family of which none of them is known is taken for larger than the others. `trained`: seconds, by family."""
    found = {
        family: (known or {}).get(family) or millions_of(workspace, family) or ending.millions
        for family, ending in endings.items()
    }
    largest = max((size for size in found.values() if size is not None), default=None)
    unknown = 0.0 if largest is None else largest * UNKNOWN
    return {
        family: Due(endings[family], unknown if size is None else size, (trained or {}).get(family, 0.0))
        for family, size in found.items()
    }


def is_measured(sessions: Iterable[Session], history: Iterable[Past]) -> bool:
    """Whether it is known how long the end takes on this host, or at least what a fixed export takes."""
    known = _measured(sessions, history)
    return TRIAL in known or all(stage in known for stage in STAGES)


def reserves(
    due: Mapping[str, Due], slow: float = 1.0, sessions: Iterable[Session] = (), history: Iterable[Past] = ()
) -> dict[str, float]:
    """Family -> seconds to keep back for evaluating, exporting and verifying it; `slow`: from `slowness`."""
    known = _measured(sessions, history)
    of_processes = {TRIAL: max(known[stage] for stage in STAGES)} if all(stage in known for stage in STAGES) else known
    processes = (PROCESS + COMMON_PROCESSES / max(1, len(due))) * _pace(TRIAL, of_processes)
    return {
        family: slow * (processes + sum(one.seconds(stage) * _pace(stage, known) for stage in STAGES))
        for family, one in due.items()
    }


def _measured(sessions: Iterable[Session], history: Iterable[Past]) -> dict[str, float]:
    """Stage -> multiple of the expected seconds: this job's worst, else the median of earlier jobs of this host."""
    history = tuple(history)
    here = host() if history else ""
    before: dict[str, list[float]] = {}
    for past in history:
        for stage, pace in past.pace.items() if past.host == here else ():
            before.setdefault(stage, []).append(pace)
    return {stage: median(found) for stage, found in before.items()} | paces(sessions)


def _pace(stage: str, known: Mapping[str, float]) -> float:
    measured = known.get(stage, known.get(TRIAL))
    return CAREFUL if measured is None else max(LEAST, measured * MARGIN)
