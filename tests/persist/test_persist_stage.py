"""`persist`: everything that matters is copied to a second place, and what is not there is reported."""

import errno
import os
import sys
import threading

import pytest

from tests.engine.disks import Mounted
from tests.engine.test_engine_checkpoint import number_in, put
from tests.persist.copied import WHERE, a_run, intact, persist, restore, write
from training.cli import main
from training.engine.checkpoints.checkpoint_folder import CheckpointFolder
from training.engine.checkpoints.index import BEST
from training.errors import HostError
from training.persist import copying, folder, lease, remote
from training.persist import destination as place
from training.persist import restore as restoring
from training.persist.replicator import Replicator


def test_the_runs_of_a_family_that_fans_out_are_copied_and_those_set_aside_are_not(here, there, tmp_path):
    put(here / "checkpoints/toy/first", 1, [BEST], 0.1)
    put(here / "checkpoints/toy/second", 2, [BEST], 0.1)
    put(here / WHERE, 3, [BEST], 0.1)
    assert CheckpointFolder(here / WHERE).set_aside("r")
    persist(here, there)
    restore(there, tmp_path / "new")
    assert intact(tmp_path / "new/checkpoints/toy/first")["last.pt"] == 1
    assert intact(tmp_path / "new/checkpoints/toy/second")["last.pt"] == 2
    assert not (there / WHERE / "previous").exists()


def test_all_results_are_copied_and_restored(here, there, tmp_path, capsys):
    a_run(here)
    persist(here, there)
    output = capsys.readouterr().out
    assert "checkpoints of toy: step 2, best of step 1, 2 kept epochs" in output and "exports: 2 files" in output
    assert "runs: 2 files" in output and "data/manifests: 1 files" in output
    new = tmp_path / "new"
    restore(there, new)
    assert intact(new / WHERE) == intact(here / WHERE) and number_in(new / WHERE / "best.pt") == 1
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
    for module in (remote, place, restoring, folder):
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


def test_files_that_were_damaged_there_are_copied_again(here, there):
    a_run(here)
    persist(here, there)
    for name in ("checkpoints/toy/best.pt", "exports/toy.onnx"):
        path = there / name
        about = path.stat()
        path.unlink() if path.suffix == ".pt" else None  # its hard links stay intact
        path.write_bytes(bytes(about.st_size))
        os.utime(path, ns=(about.st_mtime_ns, about.st_mtime_ns))  # only the content differs
    persist(here, there)
    assert number_in(there / WHERE / "best.pt") == 1
    assert (there / "exports/toy.onnx").read_text() == "model"


def test_a_full_drive_is_reported_with_what_is_not_there(here, tmp_path):
    """Exit 6; what did fit is there, intact."""
    drive = Mounted(tmp_path / "mnt", 200_000)
    try:
        a_run(here)
        write(here / "exports/big.onnx", "x" * 300_000)
        with pytest.raises(HostError, match=r"exports/big\.onnx: No space left on device") as caught:
            persist(here, tmp_path / "mnt" / "p")
        assert caught.value.exit_code == 6
        assert intact(tmp_path / "mnt" / "p" / WHERE)["last.pt"] == 2
        assert not (tmp_path / "mnt/p/exports/big.onnx").exists()
        assert (tmp_path / "mnt/p/exports/toy.onnx").exists()
        assert not list((tmp_path / "mnt/p").rglob(f"{copying.TEMPORARY}*"))
    finally:
        drive.close()


def test_a_drive_that_fails_is_reported_with_what_is_not_there(here, there, monkeypatch, capsys):
    a_run(here)

    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(remote, "copy", broken)
    assert main(["persist", "--out", str(here), "--persist", str(there)]) == 6
    captured = capsys.readouterr()
    assert "checkpoints of toy: Input/output error" in captured.err and "NOT in" in captured.err
    assert "checkpoints of toy" not in captured.out and "exports: 2 files" in captured.out


@pytest.mark.parametrize("verb", ["restore", "persist"])
def test_a_drive_that_hangs_is_abandoned(here, there, monkeypatch, verb, capsys):
    a_run(here)
    for_ever = threading.Event()
    monkeypatch.setattr(place, "PATIENCE", 0.2)
    monkeypatch.setattr(lease.Lease, "take", lambda *_: for_ever.wait(30) and sys.exit())
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
