"""Rows 4 and 17: the number of data loader workers, and killing or stopping them, must not change a run's result."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from soak.harness import Mutant, Row, Trial, each, edited, patched
from soak.processes import Child, expect, forked, start
from soak.runs import STEPS, Toy, beside, expect_done, expect_same, history, step_of, train
from tests.engine import toy
from training.engine.loading import worker
from training.engine.loading.loader import PATIENCE, Loader

BAR = 30.0  # seconds within which a run must recover, with the product's PATIENCE
SOON = 15.0  # the same where a silent worker is noticed after QUICK seconds
QUICK = 1.0  # seconds of patience in most of the trials; every eighth uses PATIENCE
KINDS = ("one is killed", "one is stopped", "all are killed", "the run is killed, a worker being in an item")


# -- row 4 ---------------------------------------------------------------------------------------------------------


class Uneven(Toy):
    """Items take different times, so that batches are not ready in the order in which they are needed."""

    def dataset(self, rows: list[Any], training: bool) -> toy.ToyDataset:
        dataset = super().dataset(rows, training)
        made = dataset.item

        def item(epoch: int, index: int) -> dict[str, np.ndarray]:
            time.sleep(index * 7919 % 13 / 2000)
            return made(epoch, index)

        dataset.item = item
        return dataset


def by_number_of_workers(trial: Trial) -> None:
    """Runs with 0, 1 and 2 data loader workers must be the same, with different settings in every trial."""
    settings = {
        "seed": trial.index,
        "rows": trial.random.randint(15, 30),
        "data": {"batch_size": trial.random.randint(1, 4), "prefetch_factor": trial.random.randint(1, 4)},
        "training": {"grad_accum_steps": trial.random.randint(1, 3), "epochs": 2},
    }
    for workers in (0, 1, 2):
        data = settings["data"] | {"num_workers": workers}
        kind = Uneven if workers else Toy
        expect_done(forked(partial(train, trial.folder / f"{workers}", kind, **settings | {"data": data})))
    orders = [history(trial.folder / f"{workers}") for workers in (0, 1, 2)]
    for workers in (1, 2):
        label = f"{settings}: with {workers} workers {orders[workers][:12]}..., with none {orders[0][:12]}..."
        expect(orders[workers] == orders[0], label)
        expect_same(trial.folder / f"{workers}", trial.folder / "0")


def _first_come(self: Loader, wanted: worker.Worker, patience: float) -> Any:
    while True:
        for one in self.workers:
            if (batch := one.receive(0.001)) is not None:
                return batch


# -- row 17 --------------------------------------------------------------------------------------------------------


class Sticking(Toy):
    """A worker that finds the file `stick` creates `stuck`, and hangs in its item."""

    folder: Path

    def dataset(self, rows: list[Any], training: bool) -> toy.ToyDataset:
        dataset = super().dataset(rows, training)
        made, main, folder = dataset.item, os.getpid(), self.folder

        def item(epoch: int, index: int) -> dict[str, np.ndarray]:
            if os.getpid() != main and (folder / "stick").exists():
                (folder / "stuck").touch()
                time.sleep(600)
            return made(epoch, index)

        dataset.item = item
        return dataset


def killed_or_stopped(trial: Trial) -> None:
    """At a random moment of a run one of its workers, all of them, or the run itself is killed or stopped."""
    kind = KINDS[trial.index % len(KINDS)]
    patience = PATIENCE if trial.index % 8 == 5 else QUICK
    root = trial.folder / "run"
    child = start(_with_patience, root, patience, type("Here", (Sticking,), {"folder": trial.folder}))
    goal = trial.random.randint(0, STEPS // 2)  # in the first half, so that the rest of the run must notice it
    while step_of(root) < goal:
        expect(child.running, f"it ended before step {goal}\n{child.output[-2000:]}")
        time.sleep(0.002)
    if kind == KINDS[3]:
        _kill_the_run(trial, child)
        expect_done(forked(_with_patience, root, patience))  # the folder's lock is free
    else:
        at = _kill_or_stop_workers(trial, child, kind)
        bar = BAR if patience == PATIENCE else SOON
        left = _wait(child, at + bar)
        ended = child.wait(0)
        expect(not ended.timed_out, f"{kind} at step {goal}: not recovered within {bar:g} s\n{ended.tail}")
        expect_done(ended)
        expect(not left, f"{kind} at step {goal}: left behind: {left}")
        expect("none is lost or repeated" in ended.output, f"{kind} at step {goal}: not reported\n{ended.tail}")
    expect_same(root, trial.soak.folder / "reference")


def _with_patience(root: Path, patience: float, kind: type[Toy] = Toy) -> None:
    Loader.__init__.__kwdefaults__["patience"] = patience  # type: ignore[index]
    train(root, kind, data={"num_workers": 2})


def _kill_or_stop_workers(trial: Trial, child: Child, kind: str) -> float:
    while not (workers := _workers(child.pid)) and child.running:
        time.sleep(0.001)
    chosen = workers if kind == KINDS[2] else [trial.random.choice(workers)]
    for pid in chosen:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP if kind == KINDS[1] else signal.SIGKILL)
    return time.monotonic()


def _kill_the_run(trial: Trial, child: Child) -> None:
    (trial.folder / "stick").touch()
    until = time.monotonic() + 10
    while not (trial.folder / "stuck").exists() and time.monotonic() < until:
        time.sleep(0.002)
    expect((trial.folder / "stuck").exists(), "no worker reached the item that hangs")
    (trial.folder / "stick").unlink()
    child.kill()
    left = _wait(child, time.monotonic() + 2)
    expect(not left, f"a second after the run was killed these processes of it still exist: {left}")
    child.wait(0)


def _wait(child: Child, until: float) -> list[int]:
    """Wait for the end of `child`, and then a second for that of its process group; returns the ids that are left."""
    while child.running and time.monotonic() < until:
        time.sleep(0.005)
    until = time.monotonic() + 1
    while (left := _group(child.pid)) and not child.running and time.monotonic() < until:
        time.sleep(0.005)
    return left


def _workers(leader: int) -> list[int]:
    """Data loader workers of a process group."""
    found = []
    for pid in _group(leader):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().strip() == "loader":
                found.append(pid)
    return found


def _group(leader: int) -> list[int]:
    """Ids of the living processes of a process group, without its leader."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, _, group = (path / "stat").read_text(errors="replace").rpartition(")")[2].split()[:3]
            if int(group) == leader and state not in "ZX" and int(path.name) != leader:
                found.append(int(path.name))
    return found


AGAIN = "lost += 1"  # the line of Loader._from_workers that handles a lost worker


def _recovery(change: str) -> Any:
    return edited(Loader, "_from_workers", AGAIN, f"{AGAIN}; {change}")


ROWS = (
    Row(
        4, "0, 1 and 2 data loader workers, whose batches are ready in any order", "the same samples in the same order",
        each(by_number_of_workers, 180), full=30, small=2,
        mutants=(Mutant("the batch that is ready first", patched(Loader, "_await", _first_come)),),
    ),
    Row(
        17, "a data loader worker is killed or stopped, or all of them, or the run itself",
        f"continues within {BAR:g} s with the same bits; no process and no memory is left behind",
        beside({"reference": train}, killed_or_stopped, name=lambda index: KINDS[index % len(KINDS)]), full=20, small=4,
        mutants=(
            Mutant("a recovery skips a batch", _recovery("undelivered.popleft()")),
            Mutant("a recovery repeats a batch", _recovery("undelivered.appendleft(undelivered[0])")),
            Mutant("a stopped worker is waited for", edited(Loader, "_await", "if silent >=", "if 0 and silent >="), 2),
            Mutant("workers outlive their run", patched(worker, "_prctl", lambda *arguments: None)),
        ),
    ),
)  # fmt: skip
