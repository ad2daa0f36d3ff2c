"""A run whose checkpoints are damaged or missing: all of them, or the best one."""

from __future__ import annotations

import pytest

from tests.engine import toy
from tests.engine.test_engine_resume import RICH, folder, saved
from training.engine.checkpoints.checkpoint_folder import CheckpointFolder
from training.errors import HostError, UsageError
from training.stages.trained import load_trained
from training.workspace import Workspace


def damage(root):
    for path in folder(root).glob("*.pt"):
        path.write_bytes(path.read_bytes()[:-100])


def test_a_run_is_refused_where_checkpoints_exist_and_none_is_intact(tmp_path):
    """Exit 6, and nothing is changed: whether to pay for the training again is for the user to decide."""
    toy.run(tmp_path, training={"epochs": 1})
    damage(tmp_path)
    before = {path.name: path.read_bytes() for path in folder(tmp_path).glob("*.pt")}
    for doing in (lambda: toy.run(tmp_path), lambda: load_trained("toy", Workspace(tmp_path))):
        with pytest.raises(
            HostError, match=r"None of the checkpoints in .* intact.*last\.pt.*training restore"
        ) as caught:
            doing()
        assert caught.value.exit_code == 6
    assert before == {path.name: path.read_bytes() for path in folder(tmp_path).glob("*.pt")}


def test_a_run_whose_best_checkpoint_is_lost_says_that_another_one_is_exported(tmp_path, capsys):
    still = RICH | {"optim": {"lr": 1e-30}}  # no weight changes: the first evaluation is the best
    toy.run(tmp_path, **still)
    progress = saved(tmp_path)["progress"]
    best = progress["best_step"]
    lost = [name for name, entry in CheckpointFolder(folder(tmp_path)).listed().items() if entry.step == best]
    assert best < progress["step"] and "best.pt" in lost
    capsys.readouterr()
    toy.run(tmp_path, **still)
    assert "is lost" not in capsys.readouterr().out
    for name in lost:
        (folder(tmp_path) / name).write_bytes(b"damaged")
    toy.run(tmp_path, **still)
    assert f"the best evaluation (step {best}) is lost: unless a later one is better, the best of the others is" in (
        capsys.readouterr().out
    )
    with pytest.raises(UsageError, match="no model family"):  # the registry does not know the toy
        load_trained("toy", Workspace(tmp_path))
    assert "best.pt is damaged or missing; before_last.pt, the best of the others, is used" in capsys.readouterr().err


def test_resume_never_keeps_damaged_checkpoints_aside(tmp_path):
    first = toy.run(tmp_path, training={"epochs": 1})
    damage(tmp_path)
    trained = toy.run(tmp_path, training={"epochs": 1}, resume="never")
    assert (folder(tmp_path) / "previous" / first.run.name / "last.pt").is_file()
    assert not trained.already and "no checkpoint of the one that is there" in (trained.run / "log.txt").read_text()


def test_a_new_run_begins_where_every_listed_file_is_missing(tmp_path):
    """A run that was moved away, by a user or by a `set_aside` that was killed before it removed the index."""
    toy.run(tmp_path, training={"epochs": 1})
    for path in folder(tmp_path).glob("*.pt"):
        path.unlink()
    assert not toy.run(tmp_path, training={"epochs": 1}).already
