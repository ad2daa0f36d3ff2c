"""Stop signals to a run: a second one, one before training, one during a save."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.engine import toy
from tests.engine.test_engine_resume import saved
from training.engine.checkpoints.checkpoint_folder import CheckpointFolder
from training.errors import Interrupted

HELD_UP = """
import os, sys, time
from pathlib import Path
from tests.engine import toy

class HeldUp(toy.ToyRecipe):
    def losses(self, model, batch, progress):
        if progress.step == 3:
            Path(sys.argv[1], "here").touch()
            time.sleep(60)  # a step that does not end: the handler of SIGTERM returns, and the sleep continues
        return super().losses(model, batch, progress)

toy.run(Path(sys.argv[1]), HeldUp)
"""


def test_a_second_signal_ends_the_process_at_once(tmp_path):
    project = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", HELD_UP, str(tmp_path)], env={**os.environ, "PYTHONPATH": str(project)}, cwd=project
    )
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "here").exists():
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.3)  # the first signal waits for the end of the step
        process.terminate()
        assert process.wait(5) == -15
    finally:
        process.kill()
    assert saved(tmp_path)["progress"]["step"] == 0


def test_a_signal_before_training_ends_the_run_at_once(tmp_path):
    """There is nothing to save yet."""
    reached = []

    class Fitting(toy.ToyRecipe):
        def fit_constants(self, rows):
            os.kill(os.getpid(), signal.SIGTERM)
            reached.append("the end")
            return super().fit_constants(rows)

    with pytest.raises(Interrupted):
        toy.run(tmp_path, Fitting)
    assert not reached


@pytest.mark.parametrize("save", [1, 2, 4])
def test_a_signal_in_a_save_is_not_lost(tmp_path, monkeypatch, save):
    """In the trial save (1), in that of an epoch (2), and in the last one (4), after which no step reads the signal."""
    real, left = CheckpointFolder.save, [save]

    def struck(*arguments):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    monkeypatch.setattr(CheckpointFolder, "save", struck)
    with pytest.raises(Interrupted):
        toy.run(tmp_path)
    again = toy.run(tmp_path)
    assert again.step == 18 and again.already == (save == 4)


def test_signal_handlers_are_restored_after_a_run(tmp_path):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    toy.run(tmp_path, training={"epochs": 1})
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
