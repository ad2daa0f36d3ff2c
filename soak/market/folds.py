"""Row 27: a job of fold models and an ensemble of them is killed with SIGKILL while one of the models is updated, and
must end in the same file."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from soak.harness import Mutant, Row, Soak, Trial, TrialResult, patched
from soak.processes import expect, forked
from soak.runs import beside, expect_done
from tests.domains.market import killed_job
from tests.domains.market.killed_job import CHUNK, FAMILIES, FOLDS, ROUNDS, STEPS, Kill
from training.domains.market.trees import recipe as trees
from training.domains.market.trees.state import Boosted
from training.engine.step import step_context as step

FILE = "ensemble.onnx"


def killed(trial: Trial) -> None:
    """Kill the job in a fold of each family, after a random save; then run it to its end."""
    root = trial.folder / "job"
    for kill in (Kill("xgboost", _fold(trial), trial.random.randrange(CHUNK, ROUNDS, CHUNK)),
                 Kill("gru", _fold(trial), trial.random.randrange(1, STEPS))):  # fmt: skip
        expect_done(forked(partial(killed_job.run, root, kill), seconds=200), -signal.SIGKILL)
    expect_done(forked(partial(killed_job.run, root), seconds=200))
    same = (root / FILE).read_bytes() == (trial.soak.folder / "complete" / FILE).read_bytes()
    expect(same, f"{FILE} differs from that of the uninterrupted job")


def _fold(trial: Trial) -> int:
    return trial.random.randrange(FOLDS + 1)


def _run(soak: Soak) -> Iterator[TrialResult]:
    from training.domains.market.networks import families  # noqa: F401  imports here once, not in every process

    yield from beside({"complete": killed_job.run}, killed, seconds=600)(soak)


def _seed_of_the_process(seed: int, model: int, first: int) -> int:
    return int(np.random.SeedSequence([seed, model, first, os.getpid()]).generate_state(1)[0]) >> 1


def _margins_of_the_prior(self: Boosted, features: np.ndarray, number: int, rows: np.ndarray | None = None) -> Any:
    return np.repeat(self.prior[number][None], len(features) if rows is None else len(rows), 0)


ROWS = (
    Row(
        27, f"kill -9 in a fold of {FAMILIES[0]} and in one of {FAMILIES[1]}, each after a save",
        f"the same command ends with the same bytes of {FILE}",
        _run, full=20, small=1,
        mutants=(
            Mutant("random numbers of the process, not of the chunk", patched(trees, "seed_of", _seed_of_the_process)),
            Mutant("random numbers of the process, not of the step", patched(step, "seed_torch", lambda *a: None), 4),
            Mutant("grows on the margins of no tree", patched(Boosted, "margins", _margins_of_the_prior)),
        ),
    ),
)  # fmt: skip
