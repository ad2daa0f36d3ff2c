"""Row 29: trainings of a WaveNet and of an LSTM are killed with SIGKILL inside an optimizer step, and must end in the
same files."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial
from typing import Any

from soak.harness import Mutant, Row, Soak, Trial, TrialResult, patched
from soak.kills import loaded
from soak.processes import expect, forked
from soak.runs import beside, expect_done
from tests.domains.amp import killed_job
from tests.domains.amp.killed_job import CAPTURES, LOSSES, STEPS, Kill
from training.domains.amp.student.material import Samples


def killed(trial: Trial) -> None:
    """Kill each training at a random loss, after a save; then run both to their ends."""
    root = trial.folder / "job"
    for item, losses in LOSSES.items():
        kill = Kill(item, trial.random.randrange(losses, losses * STEPS))
        expect_done(forked(partial(killed_job.run, root, kill), seconds=200), -signal.SIGKILL)
    expect_done(forked(partial(killed_job.run, root), seconds=200))
    for item in CAPTURES:
        same = (root / f"{item}.nam").read_bytes() == (trial.soak.folder / "complete" / f"{item}.nam").read_bytes()
        expect(same, f"{item}.nam differs from that of the uninterrupted training")


def _run(soak: Soak) -> Iterator[TrialResult]:
    yield from beside({"complete": killed_job.run}, killed, seconds=600)(soak)


_item = Samples.item


def _item_of_the_process(self: Samples, epoch: int, index: int) -> dict[str, Any]:
    return _item(self, epoch + os.getpid(), index)


ROWS = (
    Row(
        29, "kill -9 in a step of a capture's training, WaveNet and LSTM, each after a save",
        "the same command ends with the same bytes of both files",
        _run, full=20, small=1,
        mutants=(
            Mutant("tones of the process, not of the epoch", patched(Samples, "item", _item_of_the_process)),
            Mutant("optimizer state not restored", loaded(lambda state: state.optimizer.state.clear())),
        ),
    ),
)  # fmt: skip
