"""Rows 1 and 3: runs that are killed with SIGKILL, once or many times, must end with the bits of uninterrupted ones."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from soak.harness import Mutant, Row, Soak, Trial, TrialResult, patched
from soak.processes import expect, forked
from soak.runs import (
    ENDED,
    STEPS,
    beside,
    expect_done,
    expect_same,
    history,
    kill_somewhere,
    songs,
    step_of,
    train,
    train_family,
)  # fmt: skip
from training.engine.loading import batches
from training.engine.loop.state import State
from training.engine.loop.stopping import Patience
from training.engine.step import step_context as step
from training.engine.step.ema import EMA

FAMILIES = ("spectocloud", "midi_generator")
EVERY = 20  # one trial in this many is of a real family

LONG = {"training": {"epochs": 3, "early_stopping": {"enabled": False}}}  # 3 epochs of 30 steps
LONG_ROWS = 120
KILLS = 10

#: Settings of the real families, beside their debug presets: averaged weights, and a save at every step.
FAMILY_SETTINGS = {"training": {"max_steps": 6, "epochs": 9, "ema_decay": 0.9, "save_minutes": 1e-9}}


# -- row 1 ---------------------------------------------------------------------------------------------------------


def killed(trial: Trial) -> None:
    """Kill a run at a random moment from its start to its last file; then run the same command again."""
    family = _family_of(trial.index)
    root, workers = trial.folder / "run", {"data": {"num_workers": trial.index % 3}}
    run = partial(train, root, **workers) if family == "toy" else partial(train_family, root, family, **FAMILY_SETTINGS)
    steps = range(-1, STEPS if family == "toy" else FAMILY_SETTINGS["training"]["max_steps"])
    while kill_somewhere(run, root, trial.random, steps, family) == ENDED:
        shutil.rmtree(root)
    expect_done(forked(run))
    expect_same(root, trial.soak.folder / family, family)


def _family_of(index: int) -> str:
    return FAMILIES[index // EVERY % 2] if index % EVERY == EVERY // 2 else "toy"


def _run_killed(soak: Soak) -> Iterator[TrialResult]:
    for family in {_family_of(index) for index in soak.indices} - {"toy"}:
        songs(family)
    yield from beside({"toy": train, **_families()}, killed, needs=_family_of, name=_named)(soak)


def _families() -> dict[str, Callable[[Path], Any]]:
    return {family: partial(_family, family=family) for family in FAMILIES}


def _family(root: Path, family: str) -> None:
    train_family(root, family, **FAMILY_SETTINGS)


def loaded(change: Callable[[State], None]) -> Callable[[], AbstractContextManager[None]]:
    """A fault: `change` is applied to the state after a checkpoint was loaded into it."""
    real = State.load

    def load(self: State, *arguments: Any) -> None:
        real(self, *arguments)
        change(self)

    return patched(State, "load", load)


def _named(index: int) -> str:
    return f"{_family_of(index)}, {index % 3} workers"


def _order_of_the_process(seed: int, epoch: int, samples: int, shards: batches.Shards | None) -> np.ndarray:
    return np.random.default_rng([seed, epoch, os.getpid()]).permutation(samples)


# -- row 3 ---------------------------------------------------------------------------------------------------------


def killed_often(trial: Trial) -> None:
    """Kill a run of three epochs ten times: its weights must have seen the samples that the reference's saw, in the
    same order."""
    root, kills = trial.folder / "run", []
    run = partial(train, root, rows=LONG_ROWS, **LONG)
    while len(kills) < KILLS:
        at = max(step_of(root), 0)
        kills.append(kill_somewhere(run, root, trial.random, range(at + 1, at + 6)))
        if kills[-1] == ENDED:  # it ended before the kill: start again
            shutil.rmtree(root)
            kills.clear()
    epochs = [at // 30 for at in kills]
    expect(max(map(epochs.count, epochs)) >= 3, f"no epoch was killed three times: the kills were after steps {kills}")
    expect_done(forked(run))
    seen, wanted = history(root), history(trial.soak.folder / "long")
    first = next((n for n, (a, b) in enumerate(zip(seen, wanted, strict=False)) if a != b), min(len(seen), len(wanted)))
    expect(
        seen == wanted,
        f"after kills at steps {kills}: the weights saw {len(seen)} samples, the reference's {len(wanted)}; the first "
        f"difference is at {first}: {seen[first : first + 8]}, {wanted[first : first + 8]}",
    )
    for epoch in range(3):
        once = sorted(seen[epoch * LONG_ROWS : (epoch + 1) * LONG_ROWS]) == list(range(LONG_ROWS))
        expect(once, f"epoch {epoch + 1} did not have every sample once")
    expect_same(root, trial.soak.folder / "long")


def _at_the_epochs_begin(state: State) -> None:
    state.progress.step -= state.progress.step % state.plan.steps_per_epoch


ROWS = (
    Row(
        1, "kill -9 at a random moment of a run",
        "the same command ends with the same bits: weights, averages, optimizer",
        _run_killed, full=200, small=11,
        mutants=(
            Mutant("random numbers of the process, not of the step", patched(step, "seed_torch", lambda *a: None), 8),
            Mutant("order of the process, not of the epoch", patched(batches, "_order", _order_of_the_process), 8),
            Mutant("optimizer state not restored", loaded(lambda state: state.optimizer.state.clear()), 8),
            Mutant("averaged weights not restored", patched(EMA, "load", lambda self, state: None), 8),
            Mutant("patience not restored", patched(Patience, "load", lambda self, state: None), 8),
        ),
    ),
    Row(
        3, "10 kills in one run, several in one epoch",
        "its weights saw the samples that the reference's saw, in that order: none lost, none twice",
        beside({"long": partial(train, rows=LONG_ROWS, **LONG)}, killed_often, 300), full=10, small=1,
        mutants=(
            Mutant("resumes at the beginning of the epoch", loaded(_at_the_epochs_begin)),
            Mutant("order of the process, not of the epoch", patched(batches, "_order", _order_of_the_process)),
        ),
    ),
)  # fmt: skip
