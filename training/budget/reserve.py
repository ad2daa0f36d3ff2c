"""Time kept back for the end: evaluation, export and verification of what was trained.

Expected from the size of the models and from how fast this host is at the moment, corrected by how long those stages
took on it before.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median

from training.budget.book import Past, Session, host, paces
from training.host import gpus
from training.workspace import Workspace

BYTES = 16  # of a checkpoint a weight: weights, their average, two of the optimizer
UNKNOWN = 3.0  # a family that has no checkpoint yet may be this much larger than the largest that has one
MARGIN = 1.3  # over what was measured here
CAREFUL = 1.3  # over what is expected, where nothing was measured here
PROBE = (7, 400_000, 0.017)  # probes; additions of one; the seconds that it takes on the cores that STAGES is of
SLOWEST = 10.0  # a host that is slower than that for a moment will not be so for long
LEAST = 0.25  # of what is expected: a stage that found its work done before took no time, and tells nothing


@dataclass(frozen=True)
class Expected:
    """Seconds a family, imports included: a line above what models of the presets debug and demo (0.04 to 1.1 M
    weights) took on two cores with demo data. To families that do not generate samples it is
    generous."""

    base: float
    per_million: float  # weights

    def seconds(self, millions: float) -> float:
        return self.base + self.per_million * millions


#: A GPU evaluates; export and verification are the CPU's work. The line of a GPU is an assumption.
STAGES = {"evaluate": Expected(8.0, 22.0), "export": Expected(15.0, 20.0), "verify": Expected(3.0, 1.0)}
EVALUATED_BY_GPU = Expected(30.0, 6.0)


def millions_of(workspace: Workspace, family: str) -> float | None:
    """Millions of weights of a trained family, by the size of its checkpoint; None without one."""
    sizes = [_bytes(path) for path in workspace.checkpoints(family).glob("*.pt")]
    return max(sizes) / BYTES / 1e6 if sizes else None


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # just replaced
        return 0


def expected(stage: str, millions: Iterable[float]) -> float:
    """Seconds of one stage for models of these sizes; 0 for a stage of which nothing is known beforehand."""
    if stage not in STAGES:
        return 0.0
    line = EVALUATED_BY_GPU if stage == "evaluate" and _has_gpu() else STAGES[stage]
    return sum(line.seconds(size) for size in millions)


def slowness() -> float:
    """Seconds that something takes here at the moment, as a multiple of those it takes on the cores that STAGES is of:
    what the core does, and how many others want it. Takes an eighth of a second."""
    number, additions, reference = PROBE
    times = []
    for _ in range(number):
        before, total = time.perf_counter(), 0
        for value in range(additions):
            total += value & 7
        times.append(time.perf_counter() - before)
    return min(SLOWEST, max(1 / SLOWEST, median(times) / reference))


@cache
def _has_gpu() -> bool:
    return bool(gpus())


def sizes(workspace: Workspace, families: Iterable[str], known: Mapping[str, float] | None = None) -> dict[str, float]:
    """Millions of weights of each family: those `known`, else by its checkpoint; one that has none is taken for larger
    than the others."""
    found = {family: (known or {}).get(family) or millions_of(workspace, family) for family in families}
    largest = max((size for size in found.values() if size is not None), default=None)
    unknown = 0.0 if largest is None else largest * UNKNOWN
    return {family: unknown if size is None else size for family, size in found.items()}


def reserve(
    millions: Sequence[float], slow: float = 1.0, sessions: Iterable[Session] = (), history: Iterable[Past] = ()
) -> float:
    """Seconds to keep back for evaluating, exporting and verifying models of these sizes; `slow`: as slowness tells."""
    here = host()
    measured = [paces(sessions), *(past.pace for past in history if past.host == here)]
    return slow * sum(expected(stage, millions) * _pace(stage, measured) for stage in STAGES)


def _pace(stage: str, measured: Sequence[Mapping[str, float]]) -> float:
    known = [pace[stage] for pace in measured if stage in pace]
    return max(LEAST, max(known) * MARGIN) if known else CAREFUL
