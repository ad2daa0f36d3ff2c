"""A held-out loss that rises while training continues is reported: on the console, and in the report."""

from __future__ import annotations

import json

import pytest

from training.engine.loop.evaluation import conclude
from training.engine.loop.progress import Progress
from training.engine.loop.stopping import Patience
from training.report.runs import read
from training.settings import Training


class Kept:
    """A tracker that keeps what it is given."""

    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)

    def record(self, *_):
        pass


def after(*losses: float) -> list[str]:
    tracker, progress, training = Kept(), Progress(), Training()
    patience = Patience(training.early_stopping)
    for step, loss in enumerate(losses, 1):
        progress.step = step
        conclude(progress, patience, {"val_loss": loss}, training, tracker, epoch=step, where="a step", seconds=1.0)
    return [line for line in tracker.lines if "overfitting" in line]


def test_two_rises_in_a_row_are_reported_with_the_best_step():
    (line,) = after(1.3, 1.085, 1.15, 1.219)
    assert "2 evaluations in a row" in line and "that of step 2" in line
    assert len(after(1.0, 1.1, 1.2, 1.3)) == 2


@pytest.mark.parametrize("losses", [(1.0, 0.9, 0.8), (1.0, 1.1, 1.0, 1.1), (1.0, 1.1, 1.1), (1.0, float("nan"), 1.1)])
def test_a_loss_that_falls_or_wavers_is_not(losses):
    assert after(*losses) == []


def test_a_resumed_run_continues_counting():
    progress = Progress()
    for loss in (1.0, 1.1):
        progress.note_loss(loss)
    resumed = Progress.saved(progress.plain(0, 0))
    resumed.note_loss(1.2)
    assert resumed.rising == 2


def log(folder, held_out, trained):
    lines = []
    for step, (loss, train) in enumerate(zip(held_out, trained, strict=True), 1):
        lines.append({"kind": "train", "step": 10 * step, "loss": train})
        lines.append({"kind": "validation", "step": 10 * step, "epoch": step, "val_loss": loss})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read(folder)


def test_the_report_tells_it_from_a_training_that_diverges(tmp_path):
    assert log(tmp_path, [1.3, 1.08, 1.15, 1.22], [0.9, 0.5, 0.1, 0.007]).overfitting["step"] == 20
    assert log(tmp_path, [1.3, 1.08, 1.15, 1.22], [0.9, 0.5, 0.9, 2.0]).overfitting is None
    assert log(tmp_path, [1.3, 1.2, 1.1, 1.2], [0.9, 0.5, 0.1, 0.007]).overfitting is None
