"""Background copies of checkpoints: whatever fails in the second place, the training continues."""

import errno
import json
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from tests.engine import toy
from tests.engine.disks import Mounted
from tests.engine.test_engine_checkpoint import put
from tests.persist.copied import WHERE, intact
from training.engine.checkpoints import checkpoint_file
from training.engine.checkpoints.checkpoint_folder import CheckpointFolder
from training.errors import HostError, Interrupted
from training.persist import destination as place
from training.persist import lease, replicator
from training.persist.place import NAME
from training.persist.replicator import Replicator


@contextmanager
def replicating(here, there, messages, also=()):
    with Replicator(here, there, "toy", also, messages) as made:
        yield made


def test_a_training_leaves_a_copy_of_all_that_a_resume_needs(here, there):
    trained = toy.run(here, persist=there, training={"save_every": 1})
    assert intact(there / WHERE).keys() | {"before_last.pt"} == CheckpointFolder(here / WHERE).listed().keys()
    for name in ("last.pt", "best.pt", "checkpoint_epoch_3.pt"):
        assert (there / WHERE / name).read_bytes() == (here / WHERE / name).read_bytes()
    run = trained.run.relative_to(here)
    assert (there / run / "metrics.jsonl").read_text() == (here / run / "metrics.jsonl").read_text()
    log = (here / run / "log.txt").read_text()
    assert f"Copied to {there}, and read back there: step " in log and "NOT" not in log
    assert not (there / WHERE / lease.NAME).exists()


def test_a_failing_place_neither_fails_nor_changes_the_training(here, there, fault, tmp_path):
    fault.error = OSError(errno.EIO, "Input/output error")
    trained = toy.run(here, persist=there)
    plain = toy.run(tmp_path / "plain")
    weights = [checkpoint_file.read(t.last)["model"]["layers.0.weight"] for t in (trained, plain)]
    assert weights[0].equal(weights[1])
    log = (trained.run / "log.txt").read_text()
    lines = [line for line in log.splitlines() if "copied" in line.lower()]
    assert all(line.startswith(f"NOT copied to {there}") and "Input/output error" in line for line in lines)
    assert "step 18" in lines[-1] and f"persist --out {here} --persist {there}" in lines[-1]
    assert not CheckpointFolder(there / WHERE).listed()


def test_failures_are_reported_once_and_so_is_the_recovery(here, there, fault, messages):
    put(here / WHERE, 1)
    fault.error = OSError(errno.ENOSPC, "No space left on device")
    with replicating(here, there, messages) as running:
        messages.until("NOT copied")
        for _ in range(3):  # tried again and again
            fault.tried.clear()
            assert fault.tried.wait(120)
        put(here / WHERE, 2)
        running.saved()
        fault.error = None
        messages.until("again, it has caught up: step 2")
    assert len(messages) == 2 and "step 1 (No space left on device)" in messages[0] and str(here / WHERE) in messages[0]
    assert intact(there / WHERE)["last.pt"] == 2


def test_a_hanging_place_does_not_hold_up_the_training(here, there, fault, messages, monkeypatch):
    """Reported while it hangs, and at the end; the process does not wait for it."""
    for module in (replicator, place):
        monkeypatch.setattr(module, "PATIENCE", 0.2)
    fault.gate.clear()
    put(here / WHERE, 1)
    began = time.monotonic()
    with replicating(here, there, messages) as made:
        messages.until("has not answered for 0 s. Training continues")
        put(here / WHERE, 2)
        made.saved()
    assert messages[-1].startswith("NOT copied to") and "step 2" in messages[-1]
    assert time.monotonic() - began < 60, "it waited for the place, which hangs for two minutes"
    assert not CheckpointFolder(there / WHERE).listed()


def test_a_place_that_hangs_from_the_beginning_is_refused(here, there, messages, monkeypatch):
    """Exit 6 before any step, rather than a training that is copied nowhere."""
    monkeypatch.setattr(place, "PATIENCE", 0.2)
    for_ever = threading.Event()
    monkeypatch.setattr(lease.Lease, "take", lambda *_: for_ever.wait(30) and sys.exit())
    with pytest.raises(HostError, match="has not answered"), replicating(here, there, messages):
        pass
    for_ever.set()


def test_a_slow_place_gets_the_newest_checkpoint_and_not_each_one(here, there, fault, copies, messages):
    put(here / WHERE, 1)
    fault.gate.clear()
    with replicating(here, there, messages) as made:
        assert fault.tried.wait(120)
        for number in range(2, 8):
            put(here / WHERE, number)
            made.saved()
        fault.gate.set()
    assert intact(there / WHERE)["last.pt"] == 7
    assert len(copies) <= 3 and not [text for text in messages if "NOT" in text]


def test_an_interrupted_run_does_not_wait_for_a_slow_place(here, there, fault, messages, monkeypatch):
    monkeypatch.setattr(replicator, "HURRY", 0.1)
    fault.gate.clear()
    put(here / WHERE, 1)
    with pytest.raises(Interrupted), replicating(here, there, messages):
        assert fault.tried.wait(120)
        raise Interrupted("SIGTERM")
    assert messages[-1].startswith("NOT copied to") and "stopped before it was" in messages[-1]


def test_a_run_that_ends_waits_until_its_last_checkpoint_is_there(here, there, messages):
    put(here / WHERE, 1)
    with replicating(here, there, messages) as made:
        for number in range(2, 5):
            put(here / WHERE, number)
            made.saved()
    assert intact(there / WHERE)["last.pt"] == 4


def test_two_hosts_cannot_use_one_place(here, there, messages, tmp_path):
    """Exit 6 for the second; its training does not begin."""
    put(here / WHERE, 1)
    with (
        replicating(here, there, messages),
        pytest.raises(HostError, match="in use by process"),
        replicating(tmp_path / "second", there, messages),
    ):
        pass


def test_a_run_whose_lease_another_host_took_stops_copying_and_reports_it(here, there, messages, monkeypatch):
    monkeypatch.setattr(replicator, "BEAT", 600)  # a renewal at the same moment would replace the notice below
    put(here / WHERE, 1)
    with replicating(here, there, messages) as made:
        messages.until("Copied to")
        notice = json.loads((there / WHERE / lease.NAME).read_text()) | {"token": "theirs", "host": "elsewhere"}
        (there / WHERE / lease.NAME).write_text(json.dumps(notice))
        put(there / WHERE, 50)
        put(here / WHERE, 2)
        made.saved()
        messages.until("elsewhere (training toy) now")
    assert intact(there / WHERE)["last.pt"] == 50 and "NOT copied" in messages[-1]


@pytest.fixture
def drive(tmp_path):
    made = Mounted(tmp_path / "mnt", 8 << 20)
    yield made
    made.close()


def saved_after(change, here, there, messages, until):
    """A second save, after `change` of a drive that holds the first."""
    put(here / WHERE, 1)
    with replicating(here, there, messages) as made:
        messages.until("Copied to")
        change()
        put(here / WHERE, 2)
        made.saved()
        messages.until(until)


@pytest.mark.parametrize("below", ["athanor", "."])
def test_a_detached_drive_is_reported_and_nothing_is_written_beneath(here, drive, messages, below):
    """The folder under the mount point is on another disk; a copy there would be reported as safe."""
    saved_after(drive.detach, here, drive.folder / below, messages, "has disappeared")
    assert messages[-1].startswith("NOT copied") and not list(drive.folder.iterdir())


@pytest.mark.parametrize("below", ["athanor", "."])
def test_a_drive_that_is_attached_again_catches_up_under_any_device_number(here, drive, messages, below):
    there = drive.folder / below
    (here / "runs").mkdir(parents=True)
    put(here / WHERE, 1)
    with replicating(here, there, messages, ["runs"]) as made:
        messages.until("Copied to")
        drive.detach()
        for number in (2, 3):
            put(here / WHERE, number)
            (here / "runs" / f"log-{number}.txt").write_text("a line")
            made.saved()
        messages.until("has disappeared")
        assert not list(drive.folder.iterdir())
        drive.attach()
        messages.until("again, it has caught up: step 3")
    assert intact(there / WHERE)["last.pt"] == 3 and (there / "runs" / "log-3.txt").exists()
    assert not (there / WHERE / lease.NAME).exists() and messages[-1].endswith("step 3.")


def test_what_a_drive_lost_with_its_connection_is_copied_again(here, drive, messages):
    """It was away for a moment between two copies, nothing new was saved, and it came back without what it had not
    written yet."""
    there = drive.folder / "athanor"
    put(here / WHERE, 1, ["best.pt"])
    with replicating(here, there, messages):
        messages.until("Copied to")
        drive.detach()
        lost = drive.detached / "athanor" / WHERE / "last.pt"
        size = lost.stat().st_size
        lost.unlink()
        lost.write_bytes(bytes(size))
        drive.attach()
    assert intact(there / WHERE) == {"last.pt": 1, "best.pt": 1}


def test_another_drive_in_its_place_is_not_written_to(here, drive, messages):
    put(here / WHERE, 1)
    there = drive.folder / "athanor"
    with replicating(here, there, messages) as made:
        messages.until("Copied to")
        drive.detach()
        (drive.detached / "athanor" / NAME).write_text(json.dumps({"place": "of another"}))
        (drive.detached / "athanor" / WHERE / lease.NAME).unlink()
        drive.attach()
        before = sorted(there.rglob("*"))
        put(here / WHERE, 2)
        made.saved()
        messages.until("another drive is attached")
    assert sorted(there.rglob("*")) == before and intact(there / WHERE)["last.pt"] == 1


def test_the_id_of_a_place_is_kept_and_written_again_if_it_is_deleted(here, there, messages):
    """Deleted by hand, on the drive that is attached all the while: that is no detached drive."""
    put(here / WHERE, 1)
    with replicating(here, there, messages):
        messages.until("Copied to")
        first = (there / NAME).read_text()
    with replicating(here, there, messages) as made:
        (there / NAME).unlink()
        put(here / WHERE, 2)
        made.saved()
    assert (there / NAME).read_text() == first and intact(there / WHERE)["last.pt"] == 2
    assert not [text for text in messages if "NOT" in text]


def test_a_drive_that_turns_read_only_is_reported(here, drive, messages):
    there = drive.folder / "athanor"
    saved_after(drive.read_only, here, there, messages, "Read-only file system")
    assert intact(there / WHERE) == {"last.pt": 1}
    with pytest.raises(HostError, match="Read-only file system"), replicating(here, there, messages):
        pass


def test_a_drive_that_is_full_is_reported_until_there_is_room(here, tmp_path, messages):
    drive = Mounted(tmp_path / "mnt", 400_000)
    there = tmp_path / "mnt" / "athanor"
    try:
        drive.fill(left=20_000)
        for number in range(1, 3):
            put(here / WHERE, number)
        (here / "runs").mkdir()
        (here / "runs" / "log.txt").write_bytes(bytes(50_000))
        with replicating(here, there, messages, ["runs"]):
            messages.until("No space left on device")
            (tmp_path / "mnt" / "other people's").unlink()
            messages.until("it has caught up: step 2")
        assert intact(there / WHERE) == intact(here / WHERE) and (there / "runs" / "log.txt").stat().st_size == 50_000
    finally:
        drive.close()


def test_a_training_does_not_start_again_while_the_place_has_newer_checkpoints(here, there):
    """Exit 6: `restore` was forgotten on a new host. With --resume never, a new run is intended."""
    toy.run(here, persist=there, training={"epochs": 1})
    fresh = here.with_name("fresh")
    with pytest.raises(HostError, match=r"holds none\. Restore it first"):
        toy.run(fresh, persist=there)
    assert not CheckpointFolder(fresh / WHERE).listed()
    toy.run(fresh, persist=there, resume="never", training={"epochs": 1})
    assert (
        CheckpointFolder(there / WHERE).listed()["last.pt"].run_id
        == CheckpointFolder(fresh / WHERE).listed()["last.pt"].run_id
    )
    assert len(list((there / WHERE / "previous").iterdir())) == 1
