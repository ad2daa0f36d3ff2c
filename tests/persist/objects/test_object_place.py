"""An object store as the second place: a training's copies, and a new host that continues from them."""

import shutil

import pytest

from tests.engine import toy
from tests.persist.copied import WHERE, a_run, intact, persist, restore
from training.engine.checkpoints import checkpoint_file
from training.errors import Interrupted


def test_all_results_are_copied_and_restored(here, there, tmp_path, capsys):
    a_run(here)
    persist(here, there)
    output = capsys.readouterr().out
    assert "checkpoints of toy: step 2, best of step 1, 2 kept epochs" in output and "exports: 2 files" in output
    assert "runs: 2 files" in output and "data/manifests: 1 files" in output
    new = tmp_path / "new"
    restore(there, new)
    assert intact(new / WHERE) == intact(here / WHERE)
    for name in ("runs/toy/r/metrics.jsonl", "runs/budget.json", "data/manifests/midi_train.jsonl", "exports/toy.onnx",
                 "exports/toy.mlpackage/Data/weights.bin"):  # fmt: skip
        assert (new / name).read_bytes() == (here / name).read_bytes(), name
    assert not (new / "cache").exists()


def test_a_new_host_continues_where_the_old_one_was_taken_away(here, there, tmp_path, capsys):
    """Bit for bit what an uninterrupted run gives."""
    straight = toy.run(tmp_path / "straight")
    with pytest.raises(Interrupted, match="Stopped at step"):
        toy.run(here, toy.stopped(step=9), persist=there)
    persist(here, there)
    shutil.rmtree(here)  # the host is gone
    restore(there, tmp_path / "new")
    assert "toy: restored step 10 of run" in capsys.readouterr().out
    ended = toy.run(tmp_path / "new", persist=there)
    one, other = checkpoint_file.read(straight.last), checkpoint_file.read(ended.last)
    assert all(one["model"][name].equal(other["model"][name]) for name in one["model"])
