"""`restore`: a new host continues from a second place. Newer files here are kept, damaged ones there are skipped."""

import os
import shutil
import signal
import subprocess
import sys

import pytest

from tests.engine import toy
from tests.engine.test_engine_checkpoint import die_at, number_in, put
from tests.persist.copied import WHERE, a_run, intact, persist, restore, write
from training.engine.checkpoints import checkpoint_file
from training.engine.checkpoints.checkpoint_folder import CheckpointFolder
from training.engine.checkpoints.index import BEST, FORMAT, epoch_name
from training.errors import HostError, Interrupted
from training.workspace import PROJECT, exclusive


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
    assert ended.run.name == CheckpointFolder(there / WHERE).listed()["last.pt"].run_id
    one, other = checkpoint_file.read(straight.last), checkpoint_file.read(ended.last)
    assert all(one["model"][name].equal(other["model"][name]) for name in one["model"])
    assert (there / WHERE / "last.pt").read_bytes() == ended.last.read_bytes()


def vanish(here, there):
    """A run that is killed in the middle of a step, once the second place has a step or two."""

    class Vanishing(toy.ToyRecipe):
        def losses(self, model, batch, progress):
            if progress.step == 14:
                while (
                    CheckpointFolder(there / WHERE).listed()["last.pt"].step < 6
                ):  # what a slow drive would have by then
                    os.sched_yield()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().losses(model, batch, progress)

    toy.run(here, Vanishing, persist=there)


def test_a_run_killed_with_its_host_continues_from_the_background_copies(here, there, tmp_path):
    """kill -9 in the middle of a run that only copied in the background: the new host ends in the same bits."""
    code = "import pathlib, sys; from tests.persist import test_restore_stage as killed; "
    code += "killed.vanish(*map(pathlib.Path, sys.argv[1:]))"
    # not a fork: this process may have threads, and locks that they hold would never be released in the child
    child = subprocess.run([sys.executable, "-c", code, here, there], cwd=PROJECT, timeout=300)
    assert child.returncode == -signal.SIGKILL
    shutil.rmtree(here)
    restore(there, tmp_path / "new")
    assert CheckpointFolder(tmp_path / "new" / WHERE).listed()["last.pt"].step >= 6
    ended, straight = toy.run(tmp_path / "new", persist=there), toy.run(tmp_path / "straight")
    for one, other in ((ended.last, straight.last), (ended.best, straight.best)):
        weights, expected = checkpoint_file.read(one)["model"], checkpoint_file.read(other)["model"]
        assert all(expected[name].equal(weights[name]) for name in expected)


def test_a_host_with_newer_checkpoints_keeps_them(here, there, capsys):
    a_run(here)
    persist(here, there)
    put(here / WHERE, 3)
    CheckpointFolder(here / WHERE).apply_retention(1)  # what it evicted does not come back
    restore(there, here)
    assert "step 3 is here, nothing newer is there" in capsys.readouterr().out
    assert intact(here / WHERE) == {"last.pt": 3, "before_last.pt": 2, "best.pt": 1, "checkpoint_epoch_2.pt": 2}


def test_a_host_with_older_checkpoints_of_the_same_run_gets_the_newer_ones(here, there, tmp_path):
    a_run(here)
    persist(here, there)
    restore(there, tmp_path / "second")
    put(tmp_path / "second" / WHERE, 3, [BEST, epoch_name(3)], 0.05)
    CheckpointFolder(tmp_path / "second" / WHERE).apply_retention(1)
    persist(tmp_path / "second", there)
    with pytest.raises(HostError, match=r"is ahead: it holds step 3.* only step 2"):
        persist(here, there)
    restore(there, here)
    assert intact(here / WHERE).items() >= {"last.pt": 3, "best.pt": 3, "checkpoint_epoch_1.pt": 1}.items()
    persist(here, there)


def another_run(folder, step):
    entry = {"step": step, "epoch": step, "value": 0.3, "run_id": "another"}
    CheckpointFolder(folder).save({"format": FORMAT, "family": "toy", "model": {}}, entry, [BEST])


def test_an_older_run_here_is_set_aside_and_a_newer_one_stays(here, there, tmp_path, capsys):
    put(here / WHERE, 9)
    another_run(there / WHERE, 4)
    restore(there, here)
    assert "the older run that was here is now in" in capsys.readouterr().out
    assert intact(here / WHERE) == {"last.pt": 4, "best.pt": 4}
    assert intact(here / WHERE / "previous" / "r") == {"last.pt": 9}
    second = tmp_path / "second"
    put(second / WHERE, 1)  # begun later, though it is not as far
    restore(there, second)
    assert intact(second / WHERE) == {"last.pt": 1}


def test_of_other_files_the_newer_stays(here, there):
    write(here / "runs/toy/r/log.txt", "newer here", at=2000)
    write(there / "runs/toy/r/log.txt", "older there", at=1000)
    write(here / "exports/toy.onnx", "older here", at=1000)
    write(there / "exports/toy.onnx", "newer there", at=2000)
    restore(there, here)
    assert (here / "runs/toy/r/log.txt").read_text() == "newer here"
    assert (here / "exports/toy.onnx").read_text() == "newer there"


def test_what_is_damaged_there_is_passed_over_and_reported(here, there, tmp_path, capsys):
    for number in (1, 2, 3):
        put(here / WHERE, number)
        persist(here, there)
    (there / WHERE / "last.pt").write_bytes(b"damaged")
    new = tmp_path / "new"
    restore(there, new)
    assert "damaged there, and passed over: last.pt; restored step 2" in capsys.readouterr().out
    assert number_in(CheckpointFolder(new / WHERE).latest()) == 2
    assert number_in(CheckpointFolder(there / WHERE).latest()) == 2  # it no longer claims to have step 3
    persist(new, there)
    assert intact(there / WHERE) == {"last.pt": 2, "before_last.pt": 2}
    put(new / WHERE, 3)
    persist(new, there)
    assert number_in(there / WHERE / "last.pt") == 3


def test_what_is_here_stays_if_all_that_is_newer_there_is_damaged(here, there, tmp_path, capsys):
    put(here / WHERE, 1)
    persist(here, there)
    restore(there, tmp_path / "second")
    put(here / WHERE, 2)
    put(tmp_path / "second" / WHERE, 3)
    persist(tmp_path / "second", there)
    (there / WHERE / "last.pt").write_bytes(b"damaged")
    restore(there, here)
    assert "damaged there, and passed over: last.pt; step 2 is here" in capsys.readouterr().out
    assert number_in(here / WHERE / "last.pt") == 2


def test_a_copy_that_was_killed_between_its_renames_can_be_restored(here, there, tmp_path):
    """Killed between the two renames: the file that the index lists as last.pt is before_last.pt."""
    for number in (1, 2):
        put(here / WHERE, number)
        persist(here, there)
    (there / WHERE / "last.pt").replace(there / WHERE / "before_last.pt")
    restore(there, tmp_path / "new")
    assert number_in(CheckpointFolder(tmp_path / "new" / WHERE).latest()) == 2


def test_a_place_of_which_nothing_is_intact_is_not_treated_as_empty(here, there, tmp_path):
    """Exit 6: training again would cost the money a second time, so the user must decide."""
    a_run(here)
    persist(here, there)
    for path in (there / WHERE).glob("*.pt"):
        path.write_bytes(b"damaged")
    with pytest.raises(HostError, match=r"none of them is intact.*move that folder away"):
        restore(there, tmp_path / "new")
    assert not CheckpointFolder(tmp_path / "new" / WHERE).listed()


def test_what_is_damaged_here_is_restored_from_there(here, there, capsys):
    a_run(here)
    persist(here, there)
    (here / WHERE / "best.pt").unlink()
    (here / WHERE / "best.pt").write_bytes(b"damaged")
    restore(there, here)
    assert "restored what was damaged here: best.pt" in capsys.readouterr().out
    assert number_in(here / WHERE / "best.pt") == 1


def test_what_is_damaged_in_both_places_is_named(here, there, capsys):
    """Without a name, "nothing newer is there" would read as if all were well."""
    a_run(here)
    persist(here, there)
    for path in [*(here / WHERE).glob("*.pt"), *(there / WHERE).glob("*.pt")]:
        path.unlink()
        path.write_bytes(b"damaged")
    restore(there, here)
    assert "damaged here, and not intact there: last.pt" in capsys.readouterr().out


def test_nothing_is_restored_while_a_training_runs_here(here, there):
    a_run(here)
    persist(here, there)
    with exclusive(here / WHERE, "training toy"), pytest.raises(HostError, match="is in use by"):
        restore(there, here)


@pytest.mark.parametrize("call", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("phase", ["os.fsync", "Path.replace"])
def test_a_restore_that_was_killed_is_completed_by_the_next(here, there, tmp_path, phase, call):
    a_run(here)
    persist(here, there)
    new = tmp_path / "new"
    put(new / WHERE, 0)
    old = CheckpointFolder(new / WHERE).listed()["last.pt"].saved
    assert old > CheckpointFolder(there / WHERE).listed()["last.pt"].saved
    shutil.rmtree(new)
    shutil.copytree(here / WHERE, new / WHERE)
    put(here / WHERE, 3)
    persist(here, there)
    child = os.fork()
    if child == 0:
        die_at(phase, call, "after")
        restore(there, new)
        os._exit(0)
    os.waitpid(child, 0)
    assert number_in(CheckpointFolder(new / WHERE).latest()) in (2, 3)
    restore(there, new)
    assert intact(new / WHERE).items() >= {"last.pt": 3, "best.pt": 1}.items()
    assert not list((new / WHERE).glob(".saving-*"))
