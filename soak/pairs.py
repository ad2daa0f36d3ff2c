"""Row 10: two runs are started at the same time in one folder."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from soak.harness import Mutant, Row, Trial, patched
from soak.processes import Child, expect, start
from soak.runs import Toy, beside, expect_done, expect_same, folder_of, train
from training.stages import train as stage

LEAVES_WITHIN = 2.0  # seconds


class Holding(Toy):
    """A run that waits at step 3 for the file `sign`, so that it still holds the folder when the other one starts."""

    sign: Path

    def before_loss(self, step: int) -> None:
        until = time.monotonic() + 20
        while step == 3 and not self.sign.exists() and time.monotonic() < until:
            time.sleep(0.005)


def together(trial: Trial) -> None:
    """One run gets the folder, and ends as it would alone; the other one ends at once. In every second trial the winner
    is killed, and the next start must need no clean-up."""
    root, gate, sign = trial.folder / "run", trial.folder / "gate", trial.folder / "continue"
    kind = type("Held", (Holding,), {"sign": sign})

    def run() -> None:
        while not gate.exists():
            time.sleep(0.0005)
        train(root, kind)

    pair = [start(run), start(run)]
    time.sleep(trial.random.uniform(0, 0.02))
    gate.touch()
    opened = time.monotonic()
    loser = _first_to_end(pair, 20)
    took = time.monotonic() - opened
    expect(loser is not None, "both runs continue in one folder")
    winner = pair[1 - pair.index(loser)]
    left = loser.wait(1)
    expect(left.code == 6, f"the loser ended with {left.code} in place of 6\n{left.tail}")
    expect("is in use by process" in left.output, f"the loser does not print why\n{left.tail}")
    expect(took <= LEAVES_WITHIN, f"the loser took {took:.1f} s")
    if trial.index % 2:
        winner.kill(signal.SIGKILL)
        winner.wait(5)
        sign.touch()
        expect_done(start(partial(train, root)).wait(60))
    else:
        sign.touch()
        expect_done(winner.wait(60))
    expect_same(root, trial.soak.folder / "alone")
    expect(not (folder_of(root) / "previous").exists(), "a run was moved aside")


def _first_to_end(pair: list[Child], seconds: float) -> Child | None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for child in pair:
            if not child.running:
                return child
        time.sleep(0.001)
    return None


@contextlib.contextmanager
def _shared(folder: Path, purpose: str) -> Iterator[None]:
    """No lock."""
    folder.mkdir(parents=True, exist_ok=True)
    yield


@contextlib.contextmanager
def _by_file(folder: Path, purpose: str) -> Iterator[None]:
    """A lock that is a file: a process that is killed leaves it behind."""
    from training.errors import HostError

    folder.mkdir(parents=True, exist_ok=True)
    try:
        (folder / ".held").touch(exist_ok=False)
    except FileExistsError:
        raise HostError(f"{folder} is in use by process 0.") from None
    yield
    (folder / ".held").unlink()


def _alone(root: Path) -> Any:
    return train(root)


ROWS = (
    Row(
        10, "pairs of runs started together in one folder; half of the winners are killed with -9",
        "one winner each; the loser leaves within 2 s, exit 6; no clean-up after a kill",
        beside({"alone": _alone}, together), full=100, small=8,
        mutants=(
            Mutant("no lock", patched(stage, "exclusive", _shared)),
            Mutant("a lock that outlives its holder", patched(stage, "exclusive", _by_file)),
        ),
    ),
)  # fmt: skip
