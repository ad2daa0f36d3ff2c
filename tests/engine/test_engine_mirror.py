"""A second place for checkpoints: whatever it does, the training goes on, and nothing is called copied that is not."""

import errno
import json
import os
import shutil
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.engine import toy
from tests.engine.disks import Mounted
from tests.engine.test_engine_checkpoint import die_at, number_in, put
from training.data import claim, copying, place
from training.data.copying import Pulse
from training.data.files import sha256
from training.engine import checkpoint, mirror, shelf
from training.engine.mirror import Mirror
from training.engine.shelf import Shelf
from training.errors import HostError, Interrupted

WHERE = Path("checkpoints/toy")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(claim, "SILENT", 0.3)
    monkeypatch.setattr(mirror, "BEAT", 0.02)
    monkeypatch.setattr(claim, "BEAT", 0.0)
    monkeypatch.setattr(mirror, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(mirror, "LONGEST_PAUSE", 0.05)


@pytest.fixture
def here(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def there(tmp_path):
    return tmp_path / "drive"


class Said(list):
    """What was told; `until` waits for it."""

    def __init__(self):
        super().__init__()
        self._new = threading.Condition()

    def __call__(self, text):
        with self._new:
            self.append(text)
            self._new.notify_all()

    def until(self, part):
        with self._new:
            assert self._new.wait_for(lambda: any(part in text for text in self), 30), (part, list(self))


@pytest.fixture
def said():
    return Said()


@pytest.fixture
def copies(monkeypatch):
    """Names of checkpoints copied through the network, so to speak; what is linked or renamed there is not."""
    names, real = [], shelf.copy

    def noted(source, target, pulse, expected=None):
        names.append(source.name)
        return real(source, target, pulse, expected)

    monkeypatch.setattr(shelf, "copy", noted)
    return names


class Trouble:
    """While `error` is set, nothing can be written to the place; while `gate` is closed, it hangs."""

    def __init__(self, monkeypatch):
        self.error, self.gate, self.tried = None, threading.Event(), threading.Event()
        self.gate.set()
        real = shelf.copy

        def troubled(*arguments):
            self.tried.set()
            assert self.gate.wait(30)
            if self.error:
                raise self.error
            return real(*arguments)

        monkeypatch.setattr(shelf, "copy", troubled)


@pytest.fixture
def trouble(monkeypatch):
    made = Trouble(monkeypatch)
    yield made
    made.gate.set()


def whole(folder):
    """Name -> step of every listed checkpoint, each of which must be whole."""
    listed = checkpoint.listed(folder)
    assert all(sha256(folder / name) == entry.sha256 for name, entry in listed.items())
    return {name: entry.step for name, entry in listed.items()}


def tidy(folder):
    return {path.suffix for path in folder.iterdir() if path.is_file()} <= {".pt", ".json"}


# -- the shelf -----------------------------------------------------------------------------------------------------


def carried(here, there):
    return Shelf(here / WHERE, there / WHERE, Pulse()).carry()


def test_what_is_listed_here_is_whole_there(here, there):
    (there / WHERE).mkdir(parents=True)
    put(here / WHERE, 1, [checkpoint.BEST, checkpoint.epoch_name(1)], 0.1)
    put(here / WHERE, 2)
    put(here / WHERE, 3, [checkpoint.epoch_name(3)], 0.5)
    assert carried(here, there) == []
    assert whole(there / WHERE) == whole(here / WHERE) and len(whole(here / WHERE)) == 5
    put(here / WHERE, 4, [checkpoint.epoch_name(4)])
    checkpoint.retain(here / WHERE, 1)
    carried(here, there)
    assert whole(there / WHERE) == {"last.pt": 4, "before_last.pt": 3, "best.pt": 1, "checkpoint_epoch_4.pt": 4}
    assert {path.name for path in (there / WHERE).glob("*.pt")} == whole(there / WHERE).keys() and tidy(there / WHERE)


def test_nothing_is_copied_twice(here, there, copies):
    """Nor for a further name of content that is there, nor by the next process on this host."""
    (there / WHERE).mkdir(parents=True)
    put(here / WHERE, 1, [checkpoint.BEST, checkpoint.epoch_name(1)], 0.1)
    carried(here, there)
    assert copies == ["last.pt"]
    carried(here, there)
    assert copies == ["last.pt"]
    put(here / WHERE, 2, [checkpoint.epoch_name(2)])
    carried(here, there)
    assert copies == ["last.pt", "last.pt"]


def test_a_drive_without_hard_links_gets_copies(here, there, copies, monkeypatch):
    (there / WHERE).mkdir(parents=True)
    put(here / WHERE, 1, [checkpoint.BEST], 0.1)
    put(here / WHERE, 2, [checkpoint.epoch_name(2)])

    def refuse(*_):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    carried(here, there)
    assert whole(there / WHERE) == whole(here / WHERE)


PHASES = ["os.fsync", "Path.replace", "os.link"]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("call", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("phase", PHASES)
def test_a_process_killed_inside_a_copy_leaves_verified_checkpoints_there(here, there, phase, call, moment):
    """And one that is killed again, at its first rename, after that."""
    (there / WHERE).mkdir(parents=True)
    put(here / WHERE, 1, [checkpoint.BEST], 0.5)
    carried(here, there)
    put(here / WHERE, 2, [], 0.6)
    carried(here, there)
    put(here / WHERE, 3, [checkpoint.BEST, checkpoint.epoch_name(3)], 0.4)
    for again in (False, True):
        child = os.fork()
        if child == 0:
            die_at(*(("Path.replace", 2, "after") if again else (phase, call, moment)))
            carried(here, there)
            os._exit(0)
        os.waitpid(child, 0)
        assert number_in(checkpoint.latest(there / WHERE)) in (2, 3)
        assert number_in(checkpoint.best(there / WHERE)) in (1, 3)
    mending = Shelf(here / WHERE, there / WHERE, Pulse())
    mending.sweep()
    mending.carry()
    assert whole(there / WHERE).items() >= {"last.pt": 3, "best.pt": 3, "checkpoint_epoch_3.pt": 3}.items()
    assert tidy(there / WHERE)


def test_another_run_s_checkpoints_are_set_aside_there(here, there):
    put(there / WHERE, 7, [checkpoint.BEST], 0.1)
    entry = {"step": 1, "epoch": 1, "value": 0.5, "run_id": "second"}
    state = {"format": checkpoint.FORMAT, "family": "toy", "model": {}}
    checkpoint.save(here / WHERE, state, entry, [checkpoint.BEST])
    carried(here, there)
    assert whole(there / WHERE / "previous" / "r") == {"last.pt": 7, "best.pt": 7}
    assert set(checkpoint.listed(there / WHERE)) == {"last.pt", "best.pt"}


def test_a_place_that_is_ahead_is_not_overwritten(here, there):
    """An older copy of the same run, on a host that was left for another."""
    put(here / WHERE, 3)
    shutil.copytree(here / WHERE, there / WHERE)
    put(there / WHERE, 9)
    with pytest.raises(HostError, match=r"is ahead: it holds step 9 .* only step 3.*training restore"):
        carried(here, there)
    assert whole(there / WHERE) == {"last.pt": 9, "before_last.pt": 3}


def test_what_is_gone_there_is_brought_anew(here, there):
    (there / WHERE).mkdir(parents=True)
    put(here / WHERE, 1, [checkpoint.BEST], 0.1)
    put(here / WHERE, 2)
    carried(here, there)
    (there / WHERE / checkpoint.BEST).unlink()
    carried(here, there)
    assert whole(there / WHERE) == whole(here / WHERE)


def test_what_rotted_there_is_given_no_further_name(here, there):
    (there / WHERE).mkdir(parents=True)
    put(here / WHERE, 1, [checkpoint.BEST], 0.1)
    carried(here, there)
    files = checkpoint.read_index(there / WHERE)["files"]
    checkpoint.write_index(there / WHERE, {"last.pt": files["last.pt"]})  # as if killed before the second name
    (there / WHERE / checkpoint.BEST).unlink()
    (there / WHERE / checkpoint.LAST).write_bytes(bytes((here / WHERE / checkpoint.LAST).stat().st_size))
    carried(here, there)
    assert number_in(there / WHERE / checkpoint.BEST) == 1


def test_an_index_that_does_not_arrive_is_noticed(here, there, monkeypatch):
    (there / WHERE).mkdir(parents=True)
    put(here / WHERE, 1)
    monkeypatch.setattr(checkpoint, "write_index", lambda *_: None)
    with pytest.raises(OSError, match="index read back is not the one written"):
        carried(here, there)


def test_a_save_in_the_middle_of_a_copy_is_no_damage(here, there, monkeypatch):
    (there / WHERE).mkdir(parents=True)
    put(here / WHERE, 1)
    real, left = shelf.copy, [2]

    def meanwhile(*arguments):
        if left[0]:
            left[0] -= 1
            put(here / WHERE, 5 - left[0])
        return real(*arguments)

    monkeypatch.setattr(shelf, "copy", meanwhile)
    assert carried(here, there) == []
    assert whole(there / WHERE)["last.pt"] == 5


def test_what_is_damaged_here_stays_behind_and_is_named(here, there):
    (there / WHERE).mkdir(parents=True)
    put(here / WHERE, 1, [checkpoint.BEST], 0.1)
    put(here / WHERE, 2)
    put(here / WHERE, 3)
    (here / WHERE / checkpoint.BEST).write_bytes(b"damaged")
    assert carried(here, there) == [f"{here / WHERE / checkpoint.BEST} is missing or damaged"]
    assert whole(there / WHERE) == {"last.pt": 3, "before_last.pt": 2}


def test_a_drive_that_stores_something_else_is_noticed(here, there, monkeypatch):
    (there / WHERE).mkdir(parents=True)
    put(here / WHERE, 1)
    carried(here, there)
    put(here / WHERE, 2)
    monkeypatch.setattr(copying, "read_back", lambda *_: "0" * 64)
    with pytest.raises(OSError, match="not what was written"):
        carried(here, there)
    assert whole(there / WHERE) == {"last.pt": 1}


# -- the mirror ----------------------------------------------------------------------------------------------------


@contextmanager
def mirrored(here, there, said, also=()):
    with Mirror(here, there, "toy", also, said) as made:
        yield made


def test_a_training_leaves_a_copy_of_all_that_a_resume_needs(here, there):
    trained = toy.run(here, persist=there, training={"save_every": 1})
    assert whole(there / WHERE).keys() | {"before_last.pt"} == checkpoint.listed(here / WHERE).keys()
    for name in ("last.pt", "best.pt", "checkpoint_epoch_3.pt"):
        assert (there / WHERE / name).read_bytes() == (here / WHERE / name).read_bytes()
    run = trained.run.relative_to(here)
    assert (there / run / "metrics.jsonl").read_text() == (here / run / "metrics.jsonl").read_text()
    log = (here / run / "log.txt").read_text()
    assert f"Copied to {there}, and read back there: step " in log and "NOT" not in log
    assert not (there / WHERE / claim.NAME).exists()


def test_a_failing_place_neither_fails_nor_changes_the_training(here, there, trouble, tmp_path):
    trouble.error = OSError(errno.EIO, "Input/output error")
    trained = toy.run(here, persist=there)
    plain = toy.run(tmp_path / "plain")
    weights = [checkpoint.read(t.last)["model"]["layers.0.weight"] for t in (trained, plain)]
    assert weights[0].equal(weights[1])
    log = (trained.run / "log.txt").read_text()
    told = [line for line in log.splitlines() if "copied" in line.lower()]
    assert all(line.startswith(f"NOT copied to {there}") and "Input/output error" in line for line in told)
    assert "step 18" in told[-1] and f"persist --out {here} --persist {there}" in told[-1]
    assert not checkpoint.listed(there / WHERE)


def test_failures_are_told_once_and_so_is_the_recovery(here, there, trouble, said):
    put(here / WHERE, 1)
    trouble.error = OSError(errno.ENOSPC, "No space left on device")
    with mirrored(here, there, said) as mirror:
        said.until("NOT copied")
        for _ in range(3):  # tried again and again
            trouble.tried.clear()
            assert trouble.tried.wait(30)
        put(here / WHERE, 2)
        mirror.saved()
        trouble.error = None
        said.until("again, it has caught up: step 2")
    assert len(said) == 2 and "step 1 (No space left on device)" in said[0] and str(here / WHERE) in said[0]
    assert whole(there / WHERE)["last.pt"] == 2


def test_a_hanging_place_holds_nobody(here, there, trouble, said, monkeypatch):
    """Told while it hangs, and at the end; the process does not wait for it."""
    for module in (mirror, place):
        monkeypatch.setattr(module, "PATIENCE", 0.2)
    trouble.gate.clear()
    put(here / WHERE, 1)
    began = time.monotonic()
    with mirrored(here, there, said) as made:
        said.until("has not answered for 0 s. Training goes on")
        put(here / WHERE, 2)
        made.saved()
    assert said[-1].startswith("NOT copied to") and "step 2" in said[-1]
    assert time.monotonic() - began < 20
    assert not checkpoint.listed(there / WHERE)


def test_a_place_that_hangs_from_the_beginning_is_refused(here, there, said, monkeypatch):
    """Exit 6 before any step, rather than a training that is copied nowhere."""
    monkeypatch.setattr(place, "PATIENCE", 0.2)
    for_ever = threading.Event()
    monkeypatch.setattr(claim.Claim, "take", lambda *_: for_ever.wait(30) and sys.exit())
    with pytest.raises(HostError, match="has not answered"), mirrored(here, there, said):
        pass
    for_ever.set()


def test_a_slow_place_gets_the_newest_and_not_what_became_old(here, there, trouble, copies, said):
    put(here / WHERE, 1)
    trouble.gate.clear()
    with mirrored(here, there, said) as made:
        assert trouble.tried.wait(30)
        for number in range(2, 8):
            put(here / WHERE, number)
            made.saved()
        trouble.gate.set()
    assert whole(there / WHERE)["last.pt"] == 7
    assert len(copies) <= 3 and not [text for text in said if "NOT" in text]


def test_an_interrupted_run_does_not_wait_for_a_slow_place(here, there, trouble, said, monkeypatch):
    monkeypatch.setattr(mirror, "HURRY", 0.1)
    trouble.gate.clear()
    put(here / WHERE, 1)
    with pytest.raises(Interrupted), mirrored(here, there, said):
        assert trouble.tried.wait(30)
        raise Interrupted("SIGTERM")
    assert said[-1].startswith("NOT copied to") and "stopped before it was" in said[-1]


def test_a_run_that_ends_waits_until_its_last_checkpoint_is_there(here, there, said):
    put(here / WHERE, 1)
    with mirrored(here, there, said) as made:
        for number in range(2, 5):
            put(here / WHERE, number)
            made.saved()
    assert whole(there / WHERE)["last.pt"] == 4


def test_two_hosts_cannot_use_one_place(here, there, said, tmp_path):
    """Exit 6 for the second; its training does not begin."""
    put(here / WHERE, 1)
    with (
        mirrored(here, there, said),
        pytest.raises(HostError, match="in use by process"),
        mirrored(tmp_path / "second", there, said),
    ):
        pass


def test_who_is_overtaken_by_another_host_stops_copying_and_says_so(here, there, said):
    put(here / WHERE, 1)
    with mirrored(here, there, said) as made:
        said.until("Copied to")
        notice = json.loads((there / WHERE / claim.NAME).read_text()) | {"token": "theirs", "host": "elsewhere"}
        (there / WHERE / claim.NAME).write_text(json.dumps(notice))
        put(there / WHERE, 50)
        put(here / WHERE, 2)
        made.saved()
        said.until("elsewhere (training toy) now")
    assert whole(there / WHERE)["last.pt"] == 50 and "NOT copied" in said[-1]


def test_a_detached_drive_is_told_and_nothing_is_written_beneath(here, tmp_path, said):
    """Under the mount point is another disk; a copy there would pass for safe."""
    drive = Mounted(tmp_path / "mnt", 8 << 20)
    there = tmp_path / "mnt" / "athanor"
    try:
        put(here / WHERE, 1)
        with mirrored(here, there, said) as made:
            said.until("Copied to")
            drive.detach()
            put(here / WHERE, 2)
            made.saved()
            said.until("has disappeared")
        assert said[-1].startswith("NOT copied") and not list((tmp_path / "mnt").iterdir())
    finally:
        drive.close()


def test_a_drive_that_turns_read_only_is_told(here, tmp_path, said):
    drive = Mounted(tmp_path / "mnt", 8 << 20)
    there = tmp_path / "mnt" / "athanor"
    try:
        put(here / WHERE, 1)
        with mirrored(here, there, said) as made:
            said.until("Copied to")
            drive.read_only()
            put(here / WHERE, 2)
            made.saved()
            said.until("Read-only file system")
        assert whole(there / WHERE) == {"last.pt": 1}
        with pytest.raises(HostError, match="Read-only file system"), mirrored(here, there, said):
            pass
    finally:
        drive.close()


def test_a_drive_that_is_full_is_told_until_there_is_room(here, tmp_path, said):
    drive = Mounted(tmp_path / "mnt", 400_000)
    there = tmp_path / "mnt" / "athanor"
    try:
        drive.fill(left=20_000)
        for number in range(1, 3):
            put(here / WHERE, number)
        (here / "runs").mkdir()
        (here / "runs" / "log.txt").write_bytes(bytes(50_000))
        with mirrored(here, there, said, ["runs"]):
            said.until("No space left on device")
            (tmp_path / "mnt" / "other people's").unlink()
            said.until("it has caught up: step 2")
        assert whole(there / WHERE) == whole(here / WHERE) and (there / "runs" / "log.txt").stat().st_size == 50_000
    finally:
        drive.close()


def test_a_training_does_not_begin_anew_beside_what_is_there(here, there):
    """Exit 6: `restore` was forgotten on a new host; --resume never means it."""
    toy.run(here, persist=there, training={"epochs": 1})
    fresh = here.with_name("fresh")
    with pytest.raises(HostError, match=r"holds none\. Bring it here first"):
        toy.run(fresh, persist=there)
    assert not checkpoint.listed(fresh / WHERE)
    toy.run(fresh, persist=there, resume="never", training={"epochs": 1})
    assert checkpoint.listed(there / WHERE)["last.pt"].run_id == checkpoint.listed(fresh / WHERE)["last.pt"].run_id
    assert len(list((there / WHERE / "previous").iterdir())) == 1
