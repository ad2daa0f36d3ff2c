"""What the rows of docs/reliability.md share: counting trials, running them in processes, and applying faults.

A row states a fault, what must hold in spite of it (`bar`), the number of trials, and the mutants that must make the
same trials fail: a test that cannot fail proves nothing. A mutant removes one safeguard (by a monkeypatch in this
package, never in the product); it is caught when a trial raises NotHeld under it. A trial that ends with any other
error counts as failed too, but it catches no mutant, as a broken harness proves nothing either.

    from soak.harness import Mutant, Row, Trial, each, patched
    from soak.processes import expect, start

    def flipped(trial: Trial) -> None:
        ...
        expect(checkpoint_file.listed_entry(path) is None, f"a flip of bit {bit} in {path.name} was not noticed")

    ROWS = (
        Row(6, "newest checkpoint bit-flipped", "noticed; the one before is used", each(flipped), full=500, small=20,
            mutants=(Mutant("no SHA-256", patched(checkpoint_file, "listed_entry", lambda *_: ...)),)),
    )

Linux only: processes are killed when their parent ends (PR_SET_PDEATHSIG), and are waited for by pidfd.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import random
import shutil
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from soak.processes import Ended, start

#: Environment variable that names the mutant under test: commands that trials start apply it too, see `command`.
MUTANT = "ATHANOR_SOAK_MUTANT"


# -- rows ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrialResult:
    """The result of one trial."""

    name: str  # "17", or "17 (fsync, 3 bytes short)": enough to find it
    held: bool
    seen: str = ""  # what was observed if it did not hold
    judged: bool = True  # False: the trial itself failed, so it shows nothing about the product


@dataclass(frozen=True)
class Mutant:
    """One safeguard removed: `fault` returns a context manager within which it is disabled."""

    name: str
    fault: Callable[[], AbstractContextManager[Any]]
    trials: int | None = None  # at most, as the first that does not hold ends them; None: the row's small count
    sign: str = ""  # text that the failure must contain, where a failure of another kind would prove nothing


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    number: int
    fault: str
    bar: str  # what must hold
    run: Callable[[Soak], Iterator[TrialResult]]  # yields results as they come; most rows use `each(trial)`
    full: int  # number of trials
    small: int  # number of trials with --small
    mutants: tuple[Mutant, ...] = ()
    unable: Callable[[], str] = lambda: ""  # why it cannot be run on this host ("no container engine"); "": it can
    note: Callable[[], str] = lambda: ""  # how it was run here ("tmpfs", "RLIMIT_FSIZE: not root"), for the table


@dataclass(frozen=True)
class Soak:
    """One pass over a row's trials: with the code as it is, or under one mutant."""

    row: int
    count: int  # how many trials
    seed: int
    folder: Path  # scratch, empty; removed afterwards
    only: frozenset[int] | None = None  # trials to run; None: all
    mutant: bool = False  # under a mutant, the first trial that does not hold decides: the others need not be run

    @property
    def indices(self) -> list[int]:
        return [index for index in range(self.count) if self.only is None or index in self.only]

    def random(self, index: int) -> random.Random:
        """The random numbers of a trial: the same for the same seed, row and index."""
        return random.Random(f"{self.seed} {self.row} {index}")


@dataclass(frozen=True)
class Trial:
    """The argument of a trial function."""

    index: int
    random: random.Random
    folder: Path  # for this trial alone; empty
    soak: Soak


def each(
    function: Callable[[Trial], Any], seconds: float = 60.0, name: Callable[[int], str] = str
) -> Callable[[Soak], Iterator[TrialResult]]:
    """A row whose trials are independent calls of `function`, each in a separate forked process.

    `function` raises NotHeld (`expect`) if what must hold does not; after `seconds` it is killed, which counts as not
    held too. `name`: a label of the trial with the given index, shown beside its number.
    """

    def run(soak: Soak) -> Iterator[TrialResult]:
        for index in soak.indices:
            folder = soak.folder / str(index)
            folder.mkdir()
            title = str(index) if name is str else f"{index} ({name(index)})"
            ended = start(function, Trial(index, soak.random(index), folder, soak)).wait(seconds)
            yield result_of(title, ended)
            shutil.rmtree(folder, ignore_errors=True)

    return run


def once(function: Callable[[Soak], Sequence[TrialResult]], seconds: float) -> Callable[[Soak], Iterator[TrialResult]]:
    """A row whose trials are all made by one call (on a folder of 300 files, say), in one forked process."""

    def run(soak: Soak) -> Iterator[TrialResult]:
        ended = start(function, soak).wait(seconds)
        if ended.value is None:
            yield result_of("all", ended)
        else:
            yield from ended.value

    return run


def result_of(name: str, ended: Ended) -> TrialResult:
    """The result of the trial that ran in a process, from how the process ended."""
    if ended.not_held is not None:
        return TrialResult(name, False, ended.not_held)
    if ended.timed_out:
        return TrialResult(name, False, f"did not end within {ended.seconds:.0f} s\n{ended.tail}")
    if ended.code != 0:
        return TrialResult(name, False, f"the trial ended with {ended.code}\n{ended.tail}", judged=False)
    return TrialResult(name, True)


def command(*arguments: str) -> list[str]:
    """`python -m training ARGUMENTS` for subprocess: a new interpreter, in which the mutant under test applies too."""
    return [sys.executable, "-m", "soak.command", *arguments]


# -- faults --------------------------------------------------------------------------------------------------------


def patched(owner: Any, name: str, value: Any) -> Callable[[], AbstractContextManager[None]]:
    """A fault: the attribute `name` of a module or class is `value`. Raises AttributeError if there is no such
    attribute: a mutant of code that no longer exists would show nothing."""

    @contextmanager
    def fault() -> Iterator[None]:
        before = getattr(owner, name)
        raw = owner.__dict__.get(name, before) if isinstance(owner, type) else before
        setattr(owner, name, value)
        try:
            yield
        finally:
            setattr(owner, name, raw)

    return fault


def edited(owner: Any, name: str, old: str, new: str) -> Callable[[], AbstractContextManager[None]]:
    """A fault in the middle of a function or method: its source with `new` in place of `old`. Raises LookupError if
    the source does not contain `old` (any more)."""
    function = getattr(owner, name)
    source = textwrap.dedent(inspect.getsource(function))
    if old not in source:
        raise LookupError(f"{function.__qualname__} does not contain: {old}")
    made: dict[str, Any] = {}
    exec(compile(source.replace(old, new), f"{function.__qualname__} (a mutant)", "exec"), function.__globals__, made)
    return patched(owner, name, made[name])


def several(*faults: Callable[[], AbstractContextManager[Any]]) -> Callable[[], AbstractContextManager[None]]:
    """A fault made of more than one patch."""

    @contextmanager
    def fault() -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for one in faults:
                stack.enter_context(one())
            yield

    return fault


# -- counting ------------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """The counts of a row."""

    row: Row
    tried: int = 0
    held: int = 0
    seconds: float = 0.0
    failures: list[TrialResult] = field(default_factory=list)
    mutants: list[dict[str, Any]] = field(default_factory=list)  # name, caught, tried, seen
    unable: str = ""

    @property
    def caught(self) -> int:
        return sum(mutant["caught"] for mutant in self.mutants)

    @property
    def passed(self) -> bool:
        """Whether all trials held, there were some, and every mutant was caught. A row that could not be run has
        neither passed nor failed: see `unable`."""
        return self.tried > 0 and self.held == self.tried and self.caught == len(self.mutants)

    def plain(self) -> dict[str, Any]:
        """The row of the JSON results."""
        return {
            "row": self.row.number, "fault": self.row.fault, "bar": self.row.bar, "tried": self.tried,
            "held": self.held, "seconds": round(self.seconds, 1), "mutants": self.mutants,
            "failures": [vars(outcome) for outcome in self.failures], "not_run": self.unable,
            "note": "" if self.unable else self.row.note(), "passed": self.passed,
        }  # fmt: skip


def tally(
    row: Row, *, small: bool, seed: int, scratch: Path, only: frozenset[int] | None = None,
    say: Callable[[str], None] = print,
) -> Tally:  # fmt: skip
    """Run a row's trials, then its mutants (not when `only` some trials are requested)."""
    result = Tally(row, unable=row.unable())
    if result.unable:
        return result
    began = time.monotonic()
    for outcome in _outcomes(row, row.small if small else row.full, seed, scratch, only):
        result.tried += 1
        result.held += outcome.held
        if not outcome.held:
            result.failures.append(outcome)
            say(f"    row {row.number}, trial {outcome.name}: {outcome.seen}")
    for mutant in row.mutants if only is None else ():
        result.mutants.append(_try_mutant(row, mutant, seed, scratch))
        if not result.mutants[-1]["caught"]:
            say(f"    row {row.number}, mutant not caught: {mutant.name}: {result.mutants[-1]['seen']}")
    result.seconds = time.monotonic() - began
    return result


def _try_mutant(row: Row, mutant: Mutant, seed: int, scratch: Path) -> dict[str, Any]:
    tried, seen = 0, "all its trials held"
    os.environ[MUTANT] = f"{row.number}:{mutant.name}"
    try:
        made = _outcomes(row, mutant.trials or row.small, seed, scratch, mutant=True)
        with mutant.fault(), contextlib.closing(made) as outcomes:
            for outcome in outcomes:
                tried += 1
                if not outcome.held:
                    seen = outcome.seen
                    if outcome.judged and mutant.sign in outcome.seen:
                        return {"name": mutant.name, "caught": True, "tried": tried, "seen": seen}
    finally:
        del os.environ[MUTANT]
    return {"name": mutant.name, "caught": False, "tried": tried, "seen": seen}


def _outcomes(
    row: Row, count: int, seed: int, scratch: Path, only: frozenset[int] | None = None, mutant: bool = False
) -> Iterator[TrialResult]:  # fmt: skip
    folder = Path(tempfile.mkdtemp(prefix=f"row{row.number}-", dir=scratch))
    try:
        yield from row.run(Soak(row.number, count, seed, folder, only, mutant))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
