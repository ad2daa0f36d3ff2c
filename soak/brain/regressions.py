"""Row 28: a training of the brain domain's families, which begin as ridge regression, is killed with SIGKILL at a
random moment, ridge included, and must end with the bits of an uninterrupted one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from soak.harness import Mutant, Row, Soak, Trial, TrialResult, edited, patched
from soak.kills import loaded
from soak.processes import expect, forked
from soak.runs import ENDED, beside, expect_done, expect_same, kill_somewhere
from tests.domains.brain.killed_job import FAMILIES, STEPS, train
from training.domains.brain.encoding import windows
from training.engine.step import step_context as step
from training.workspace import Workspace

READY = "ready"  # a file in the folder of the data, once it is complete


def killed(trial: Trial) -> None:
    """Kill a run at a random moment, in the first of every two trials of a family one after a save; then run the same
    command again."""
    family = FAMILIES[trial.index % len(FAMILIES)]
    after_a_save = trial.index // len(FAMILIES) % 2 == 0  # a mutant of what a checkpoint holds shows in no other trial
    steps = range(1, STEPS - 1) if after_a_save else range(-1, STEPS)
    root = trial.folder / "run"
    run = partial(train, root, _place(trial.soak), family)
    while kill_somewhere(run, root, trial.random, steps, family, 200, start_too=not after_a_save) == ENDED:
        shutil.rmtree(root)
    expect_done(forked(run, seconds=200))
    expect_same(root, trial.soak.folder / family, family)


def _run(soak: Soak) -> Iterator[TrialResult]:
    place = _place(soak)
    if not (place / READY).exists():
        ended = forked(_prepare, place, seconds=300)
        if ended.code != 0 or ended.timed_out:
            yield TrialResult("the film and the BOLD", False, ended.tail, judged=False)
            return
    setups = {family: partial(train, prepared=place, family=family) for family in FAMILIES}
    yield from beside(
        setups, killed, seconds=600, name=lambda index: FAMILIES[index % len(FAMILIES)],
        needs=lambda index: FAMILIES[index % len(FAMILIES)],
    )(soak)  # fmt: skip


def _place(soak: Soak) -> Path:
    """The workspace of the data, which all passes over the row share."""
    return soak.folder.parent / "brain"


def _prepare(place: Path) -> None:
    """A small laboratory: three subjects, 300 volumes."""
    from training.domain import Job
    from training.domains.brain.demo.making import write_world
    from training.domains.brain.demo.world import simulate
    from training.domains.brain.prepare import prepare

    files = place / "files"
    write_world(files, simulate(300, 3, 5, side=9))
    options = {"movie": files / "film.mp4", "annotations": files / "words.tsv", "fmri": files / "bold"}
    prepare(Job(Workspace(place), options, workers=1, say=str))
    expect((place / "data").is_dir(), "prepare has written nothing")
    (place / READY).touch()


_WINDOW = "np.random.default_rng((self.seed, epoch, index))"
ROWS = (
    Row(
        28, f"kill -9 at a random moment of a training of {FAMILIES[0]} or {FAMILIES[1]}, ridge included",
        "the same command ends with the same bits of weights, averages, optimizer, patience and metrics",
        _run, full=20, small=2,
        mutants=(
            Mutant("random numbers of the process, not of the step", patched(step, "seed_torch", lambda *a: None), 4),
            Mutant("windows of the process, not of the epoch",
                   edited(windows.BoldWindows, "item", _WINDOW, "np.random.default_rng(__import__('os').getpid())"), 4),
            Mutant("optimizer state not restored", loaded(lambda state: state.optimizer.state.clear()), 4),
        ),
    ),
)  # fmt: skip
