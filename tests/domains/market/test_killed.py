"""A job that is killed inside folds, after something was saved, ends in the same bytes of ensemble.onnx."""

from __future__ import annotations

import signal
from multiprocessing import get_context

from training.engine.checkpoints.checkpoint_folder import CheckpointFolder
from training.workspace import Workspace

from .killed_job import CHUNK, ITEM, Kill, run


def ended(root, kill=None) -> int | None:
    """The exit code of the job in a new interpreter."""
    process = get_context("spawn").Process(target=run, args=(root, kill))
    process.start()
    process.join()
    return process.exitcode


def step(root, family: str) -> int:
    listed = CheckpointFolder(Workspace(root).checkpoints(f"{family}/{ITEM}")).listed().values()
    return max((entry.step for entry in listed), default=-1)


def test_the_ensemble_has_the_same_bytes_after_kills_in_fold_3_of_the_trees_and_in_fold_2_of_a_network(tmp_path):
    complete, killed = tmp_path / "complete", tmp_path / "killed"
    assert ended(complete) == 0
    assert ended(killed, Kill("xgboost", 2, CHUNK)) == -signal.SIGKILL
    assert step(killed, "xgboost") == CHUNK and step(killed, "gru") == -1
    assert ended(killed, Kill("gru", 1, 3)) == -signal.SIGKILL
    assert step(killed, "gru") in (1, 2, 3) and not (killed / "ensemble.onnx").exists()
    assert ended(killed) == 0
    assert (killed / "ensemble.onnx").read_bytes() == (complete / "ensemble.onnx").read_bytes()
