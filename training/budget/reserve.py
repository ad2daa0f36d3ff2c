"""The reserve: time that is kept for evaluating, exporting and verifying the models at the end of a job.

It is the product of three factors:
- the seconds on the reference cores, which each family declares by its size and training time (`Ending`);
- how slow this host is at the moment (`slowness`);
- the ratio of actual to expected time of the same stages on this host before (`pace`). Where these have not run yet, it
  is the ratio of a fixed export, the stage `trial`.
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

BYTES = 16  # bytes of a checkpoint per parameter: the weight, its EMA, and two states of the optimizer
UNKNOWN = 3.0  # a family of unknown size is assumed to be this many times as large as the largest known one
MARGIN = 1.15  # safety factor on times that were measured on this host
CAREFUL = 1.3  # safety factor on expected times, if none was measured on this host
PROBE = (7, 400_000, 0.0087)  # number of probes; additions in each; seconds of one on the reference cores
SLOWEST = 10.0  # upper limit of the slowness: a host is slower than this only for moments
LEAST = 0.25  # lower limit of the pace: a stage whose work was done already took no time, which shows nothing
TRIAL = "trial"  # the stage in which a fixed export is timed
TRIED_FROM = 2.0  # if at least this many times the trial's duration is left for training, it is run in any case
TRIAL_SECONDS = 9.5  # time of that export on the reference cores
#: Seconds that no session counts (a process's start and end, the report after it): around a family's evaluation, and
#: around export, verify and budget --done, which are run once for all families.
PROCESS, COMMON_PROCESSES = 0.8, 6.6


@dataclass(frozen=True)
class Due:
    """A family that is still to be evaluated, exported and verified."""

    ending: Ending
    millions: float  # millions of parameters
    trained: float = 0.0  # seconds of its training, past or planned

    def seconds(self, stage: str) -> float:
        return self.ending.seconds(stage, self.millions, self.trained)


def expected(stage: str, due: Iterable[Due]) -> float:
    """Seconds of one stage on the reference cores; 0 for a stage that is not predicted."""
    return TRIAL_SECONDS if stage == TRIAL else sum(one.seconds(stage) for one in due)


def millions_of(workspace: Workspace, family: str) -> float | None:
    """Millions of parameters of a trained family, by the size of its checkpoint; None without one."""
    sizes = [_bytes(path) for path in workspace.checkpoints(family).glob("*.pt")]
    return max(sizes) / BYTES / 1e6 if sizes else None


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # just replaced
        return 0


def slowness() -> float:
    """How long a fixed computation takes on this host at the moment, relative to the reference cores. It depends on the
    speed of the core and on how many other processes use it. The measurement takes an eighth of a second."""
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
    """Family -> what it still needs. Its millions of parameters are those of `known`, else of its checkpoint, else of
    its ending; a family of unknown size is assumed to be larger than the others (UNKNOWN). `trained`: seconds of
    training, by family."""
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
    """Whether the last stages of a job, or at least a fixed export, were timed on this host."""
    known = _measured(sessions, history)
    return TRIAL in known or all(stage in known for stage in STAGES)


def trial_pays(to_train: float, reserve: float, takes: float) -> bool:
    """Whether to time a fixed export that takes so many seconds. `to_train`: left for training; `reserve`: kept back
    without a measurement. Either there is ample time, or the smaller margin of what is measured frees more time than
    the trial takes, and some is left."""
    freed = reserve * (1 - MARGIN / CAREFUL)
    return to_train >= TRIED_FROM * takes or (freed > takes and to_train + freed > takes)


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
    """Stage -> pace, the ratio of actual to expected seconds: the largest of this job, else the median of earlier jobs
    on this host."""
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
