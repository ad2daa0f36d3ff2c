"""A second place that outlives the host: there and back, and honest about what is not there."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.engine import toy
from tests.engine.disks import Mounted
from tests.engine.test_engine_checkpoint import die_at, number_in, put
from training.cli import main
from training.data.files import sha256
from training.engine.checkpoints import checkpoint_file
from training.engine.checkpoints.checkpoint_folder import CheckpointFolder
from training.engine.checkpoints.index import BEST, FORMAT, epoch_name
from training.errors import HostError, Interrupted
from training.persist import copying
from training.persist import destination as place
from training.persist import lease as claim
from training.persist import remote as shelf
from training.persist import restore as restoring
from training.persist.replicator import Replicator
from training.stages import persist as stage
from training.workspace import PROJECT, Workspace, exclusive

WHERE = Path("checkpoints/toy")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(claim, "SILENT", 0.3)


@pytest.fixture
def here(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def there(tmp_path):
    return tmp_path / "drive"


def persist(here, there):
    stage.persist(Workspace(here), there)


def restore(there, here):
    stage.restore(Workspace(here), there)


def write(path, text, at=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    if at:
        os.utime(path, (at, at))


def steps(folder):
    """Name -> step of what is listed, all of which must be whole."""
    listed = CheckpointFolder(folder).listed()
    assert all(sha256(folder / name) == entry.sha256 for name, entry in listed.items())
    return {name: entry.step for name, entry in listed.items()}


def a_run(here):
    put(here / WHERE, 1, [BEST, epoch_name(1)], 0.1)
    put(here / WHERE, 2, [epoch_name(2)], 0.5)
    write(here / "runs/toy/r/metrics.jsonl", "{}\n")
    write(here / "runs/budget.json", "{}")
    write(here / "data/manifests/midi_train.jsonl", "row\n")
    write(here / "exports/toy.onnx", "model")
    write(here / "exports/toy.mlpackage/Data/weights.bin", "w")
    write(here / "cache/store/big.bin", "can be made again")


# -- there and back ------------------------------------------------------------------------------------------------


def test_the_runs_of_a_family_that_fans_out_are_copied_and_those_set_aside_are_not(here, there, tmp_path):
    put(here / "checkpoints/toy/first", 1, [BEST], 0.1)
    put(here / "checkpoints/toy/second", 2, [BEST], 0.1)
    put(here / WHERE, 3, [BEST], 0.1)
    assert CheckpointFolder(here / WHERE).set_aside("r")
    persist(here, there)
    restore(there, tmp_path / "new")
    assert steps(tmp_path / "new/checkpoints/toy/first")["last.pt"] == 1
    assert steps(tmp_path / "new/checkpoints/toy/second")["last.pt"] == 2
    assert not (there / WHERE / "previous").exists()


def test_a_new_host_goes_on_where_the_old_one_was_taken_away(here, there, tmp_path, capsys):
    """Bit for bit what an uninterrupted run gives."""
    straight = toy.run(tmp_path / "straight")
    with pytest.raises(Interrupted, match="Stopped at step"):
        toy.run(here, toy.stopped(step=9), persist=there)
    persist(here, there)
    shutil.rmtree(here)  # the host is gone
    restore(there, tmp_path / "new")
    assert "toy: brought step 10 of run" in capsys.readouterr().out
    ended = toy.run(tmp_path / "new", persist=there)
    assert ended.run.name == CheckpointFolder(there / WHERE).listed()["last.pt"].run_id
    one, other = checkpoint_file.read(straight.last), checkpoint_file.read(ended.last)
    assert all(one["model"][name].equal(other["model"][name]) for name in one["model"])
    assert (there / WHERE / "last.pt").read_bytes() == ended.last.read_bytes()


def vanish(here, there):
    """A run that is killed in the middle of a step, once the second place has a step or two."""

    class Vanishing(toy.ToyRecipe):
        def losses(self, model, batch, moment):
            if moment.step == 14:
                while (
                    CheckpointFolder(there / WHERE).listed()["last.pt"].step < 6
                ):  # what a slow drive would have by then
                    os.sched_yield()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().losses(model, batch, moment)

    toy.run(here, Vanishing, persist=there)


def test_a_host_that_vanishes_without_a_word_leaves_what_a_new_one_needs(here, there, tmp_path):
    """kill -9 in the middle of a run that only copied in the background: the new host ends in the same bits."""
    code = "import sys, pathlib; from tests.stages.test_persist import vanish; vanish(*map(pathlib.Path, sys.argv[1:]))"
    # not a fork: this process may have threads, and what they hold would stay held in it
    child = subprocess.run([sys.executable, "-c", code, here, there], cwd=PROJECT, timeout=120)
    assert child.returncode == -signal.SIGKILL
    shutil.rmtree(here)
    restore(there, tmp_path / "new")
    assert CheckpointFolder(tmp_path / "new" / WHERE).listed()["last.pt"].step >= 6
    ended, straight = toy.run(tmp_path / "new", persist=there), toy.run(tmp_path / "straight")
    for one, other in ((ended.last, straight.last), (ended.best, straight.best)):
        weights, expected = checkpoint_file.read(one)["model"], checkpoint_file.read(other)["model"]
        assert all(expected[name].equal(weights[name]) for name in expected)


def test_everything_that_matters_goes_and_comes_back(here, there, tmp_path, capsys):
    a_run(here)
    persist(here, there)
    said = capsys.readouterr().out
    assert "checkpoints of toy: step 2, best of step 1, 2 kept epochs" in said and "exports: 2 files" in said
    assert "runs: 2 files" in said and "data/manifests: 1 files" in said
    new = tmp_path / "new"
    restore(there, new)
    assert steps(new / WHERE) == steps(here / WHERE) and number_in(new / WHERE / "best.pt") == 1
    for name in ("runs/toy/r/metrics.jsonl", "runs/budget.json", "data/manifests/midi_train.jsonl", "exports/toy.onnx",
                 "exports/toy.mlpackage/Data/weights.bin"):  # fmt: skip
        assert (new / name).read_bytes() == (here / name).read_bytes(), name
    assert not (new / "cache").exists()
    assert {p.name for p in (new / WHERE).iterdir() if p.name.startswith(".")} == {".lock"}


def test_nothing_is_copied_twice(here, there, monkeypatch):
    """Two starts on one host: what is there is read back, and not written again."""
    a_run(here)
    persist(here, there)
    copied = []
    for module in (shelf, place, restoring, stage):
        monkeypatch.setattr(module, "copy", lambda *arguments: copied.append(arguments[0]))
    restore(there, here)
    persist(here, there)
    assert not copied


def test_a_first_start_is_no_error(here, there, tmp_path, capsys):
    restore(there, here)
    assert "is empty: a first start." in capsys.readouterr().out and there.is_dir()
    persist(here, there)
    assert "nothing in" in capsys.readouterr().out
    assert main(["restore", "--out", str(here), "--persist", str(tmp_path / "made")]) == 0
    assert main(["persist", "--out", str(here), "--persist", str(tmp_path / "made")]) == 0


@pytest.mark.parametrize("verb", ["restore", "persist"])
def test_what_cannot_be_a_second_place_is_refused(here, tmp_path, verb, capsys):
    """Exit 6, saying why."""
    here.mkdir()
    (tmp_path / "file").write_text("x")
    for where, why in (("file", "is a file"), ("absent/drive", "Is the drive attached?"), ("out", "itself")):
        assert main([verb, "--out", str(here), "--persist", str(tmp_path / where)]) == 6
        assert why in capsys.readouterr().err
    assert main(["train", "midi_generator", "--out", str(here), "--persist", str(tmp_path / "file")]) != 0


def test_the_same_disk_is_noted(here, there, capsys):
    a_run(here)
    persist(here, there)
    assert "does not outlive that disk" in capsys.readouterr().out


# -- what is newer stays -------------------------------------------------------------------------------------------


def test_a_host_that_is_further_keeps_what_it_has(here, there, capsys):
    a_run(here)
    persist(here, there)
    put(here / WHERE, 3)
    CheckpointFolder(here / WHERE).apply_retention(1)  # what it gave up does not come back
    restore(there, here)
    assert "step 3 is here, nothing newer is there" in capsys.readouterr().out
    assert steps(here / WHERE) == {"last.pt": 3, "before_last.pt": 2, "best.pt": 1, "checkpoint_epoch_2.pt": 2}


def test_a_host_that_fell_behind_in_the_same_run_is_brought_up(here, there, tmp_path):
    a_run(here)
    persist(here, there)
    restore(there, tmp_path / "second")
    put(tmp_path / "second" / WHERE, 3, [BEST, epoch_name(3)], 0.05)
    CheckpointFolder(tmp_path / "second" / WHERE).apply_retention(1)
    persist(tmp_path / "second", there)
    with pytest.raises(HostError, match=r"is ahead: it holds step 3.* only step 2"):
        persist(here, there)
    restore(there, here)
    assert steps(here / WHERE).items() >= {"last.pt": 3, "best.pt": 3, "checkpoint_epoch_1.pt": 1}.items()
    persist(here, there)


def another_run(folder, step):
    entry = {"step": step, "epoch": step, "value": 0.3, "run_id": "another"}
    CheckpointFolder(folder).save({"format": FORMAT, "family": "toy", "model": {}}, entry, [BEST])


def test_an_older_run_here_is_set_aside_and_a_newer_one_stays(here, there, tmp_path, capsys):
    put(here / WHERE, 9)
    another_run(there / WHERE, 4)
    restore(there, here)
    assert "the older run that was here is now in" in capsys.readouterr().out
    assert steps(here / WHERE) == {"last.pt": 4, "best.pt": 4}
    assert steps(here / WHERE / "previous" / "r") == {"last.pt": 9}
    second = tmp_path / "second"
    put(second / WHERE, 1)  # begun later, though it is not as far
    restore(there, second)
    assert steps(second / WHERE) == {"last.pt": 1}


def test_of_other_files_the_newer_stays(here, there):
    write(here / "runs/toy/r/log.txt", "newer here", at=2000)
    write(there / "runs/toy/r/log.txt", "older there", at=1000)
    write(here / "exports/toy.onnx", "older here", at=1000)
    write(there / "exports/toy.onnx", "newer there", at=2000)
    restore(there, here)
    assert (here / "runs/toy/r/log.txt").read_text() == "newer here"
    assert (here / "exports/toy.onnx").read_text() == "newer there"


# -- damage --------------------------------------------------------------------------------------------------------


def test_what_is_damaged_there_is_passed_over_and_said(here, there, tmp_path, capsys):
    for number in (1, 2, 3):
        put(here / WHERE, number)
        persist(here, there)
    (there / WHERE / "last.pt").write_bytes(b"damaged")
    new = tmp_path / "new"
    restore(there, new)
    assert "damaged there, and passed over: last.pt; brought step 2" in capsys.readouterr().out
    assert number_in(CheckpointFolder(new / WHERE).latest()) == 2
    assert number_in(CheckpointFolder(there / WHERE).latest()) == 2  # it no longer claims to have step 3
    persist(new, there)
    assert steps(there / WHERE) == {"last.pt": 2, "before_last.pt": 2}
    put(new / WHERE, 3)
    persist(new, there)
    assert number_in(there / WHERE / "last.pt") == 3


def test_a_copy_that_was_cut_short_there_is_understood(here, there, tmp_path):
    """Killed between the two renames: what the index calls last lies under before_last.pt."""
    for number in (1, 2):
        put(here / WHERE, number)
        persist(here, there)
    (there / WHERE / "last.pt").replace(there / WHERE / "before_last.pt")
    restore(there, tmp_path / "new")
    assert number_in(CheckpointFolder(tmp_path / "new" / WHERE).latest()) == 2


def test_a_place_of_which_nothing_is_whole_does_not_pass_for_empty(here, there, tmp_path):
    """Exit 6: to begin anew would cost the money a second time; the reader decides."""
    a_run(here)
    persist(here, there)
    for path in (there / WHERE).glob("*.pt"):
        path.write_bytes(b"damaged")
    with pytest.raises(HostError, match=r"none of them is intact.*move that folder away"):
        restore(there, tmp_path / "new")
    assert not CheckpointFolder(tmp_path / "new" / WHERE).listed()


def test_what_is_damaged_here_is_mended_from_there(here, there, capsys):
    a_run(here)
    persist(here, there)
    (here / WHERE / "best.pt").unlink()
    (here / WHERE / "best.pt").write_bytes(b"damaged")
    restore(there, here)
    assert "brought what was damaged here: best.pt" in capsys.readouterr().out
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


def test_what_rotted_there_is_copied_anew(here, there):
    a_run(here)
    persist(here, there)
    for name in ("checkpoints/toy/best.pt", "exports/toy.onnx"):
        path = there / name
        about = path.stat()
        path.unlink() if path.suffix == ".pt" else None  # the other names of its content are not meant
        path.write_bytes(bytes(about.st_size))
        os.utime(path, ns=(about.st_mtime_ns, about.st_mtime_ns))  # nothing but its content tells
    persist(here, there)
    assert number_in(there / WHERE / "best.pt") == 1
    assert (there / "exports/toy.onnx").read_text() == "model"


# -- what goes wrong -----------------------------------------------------------------------------------------------


def test_a_full_drive_is_reported_with_what_is_not_there(here, tmp_path):
    """Exit 6; what did fit is there, whole."""
    drive = Mounted(tmp_path / "mnt", 200_000)
    try:
        a_run(here)
        write(here / "exports/big.onnx", "x" * 300_000)
        with pytest.raises(HostError, match=r"exports/big\.onnx: No space left on device") as caught:
            persist(here, tmp_path / "mnt" / "p")
        assert caught.value.exit_code == 6
        assert steps(tmp_path / "mnt" / "p" / WHERE)["last.pt"] == 2
        assert not (tmp_path / "mnt/p/exports/big.onnx").exists()
        assert (tmp_path / "mnt/p/exports/toy.onnx").exists()
        assert not list((tmp_path / "mnt/p").rglob(f"{copying.TEMPORARY}*"))
    finally:
        drive.close()


def test_a_drive_that_fails_is_reported_with_what_is_not_there(here, there, monkeypatch, capsys):
    a_run(here)

    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(shelf, "copy", broken)
    assert main(["persist", "--out", str(here), "--persist", str(there)]) == 6
    captured = capsys.readouterr()
    assert "checkpoints of toy: Input/output error" in captured.err and "NOT in" in captured.err
    assert "checkpoints of toy" not in captured.out and "exports: 2 files" in captured.out


@pytest.mark.parametrize("verb", ["restore", "persist"])
def test_a_drive_that_hangs_is_given_up(here, there, monkeypatch, verb, capsys):
    a_run(here)
    for_ever = threading.Event()
    monkeypatch.setattr(place, "PATIENCE", 0.2)
    monkeypatch.setattr(claim.Lease, "take", lambda *_: for_ever.wait(30) and sys.exit())
    assert main([verb, "--out", str(here), "--persist", str(there)]) == 6
    assert "has not answered" in capsys.readouterr().err
    for_ever.set()


def test_a_place_in_use_by_a_training_is_left_alone(here, there, tmp_path):
    a_run(here)
    with Replicator(here, there, "toy", [], print):
        while not CheckpointFolder(there / WHERE).listed():
            os.sched_yield()
        with pytest.raises(HostError, match="in use by process"):
            restore(there, tmp_path / "new")
        with pytest.raises(HostError, match=r"checkpoints of toy: .*in use by process"):
            persist(here, there)


def test_a_training_here_is_not_restored_over(here, there):
    a_run(here)
    persist(here, there)
    with exclusive(here / WHERE, "training toy"), pytest.raises(HostError, match="is in use by"):
        restore(there, here)


@pytest.mark.parametrize("call", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("phase", ["os.fsync", "Path.replace"])
def test_a_kill_in_the_middle_of_a_restore_is_made_good_by_the_next(here, there, tmp_path, phase, call):
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
    assert steps(new / WHERE).items() >= {"last.pt": 3, "best.pt": 1}.items()
    assert not list((new / WHERE).glob(".saving-*"))
