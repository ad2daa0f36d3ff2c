"""Copies: a file is copied completely and verified, or not at all; a drive that hangs is abandoned."""

import errno
import os
import threading
import time

import pytest

from training.data.files import sha256, sync
from training.errors import HostError
from training.persist import copying
from training.persist.copying import Changed, Pulse, copy, files_under, run_watched, same


def test_a_copy_is_the_same_to_the_byte_and_in_time(tmp_path):
    (tmp_path / "a").write_bytes(os.urandom(10_000))
    os.utime(tmp_path / "a", ns=(5, 1_234_567_890_123_456_789))
    assert copy(tmp_path / "a", tmp_path / "b", Pulse()) == sha256(tmp_path / "a") == sha256(tmp_path / "b")
    assert same(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").stat().st_mtime_ns == 1_234_567_890_123_456_789


@pytest.mark.parametrize("fault", ["changed", "read back", "full", "missing"])
def test_a_failed_copy_leaves_the_target_as_it_was(tmp_path, monkeypatch, fault):
    (tmp_path / "a").write_bytes(b"new")
    (tmp_path / "b").write_bytes(b"old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    if fault == "read back":  # a drive that reports success and stores something else
        monkeypatch.setattr(copying, "read_back", lambda *_: "0" * 64)
    if fault == "full":
        monkeypatch.setattr(os, "fsync", full)
    if fault == "missing":
        (tmp_path / "a").unlink()
    kind = Changed if fault in ("changed", "missing") else OSError
    with pytest.raises(kind):
        copy(tmp_path / "a", tmp_path / "b", Pulse(), "0" * 64 if fault == "changed" else None)
    assert (tmp_path / "b").read_bytes() == b"old"
    assert {path.name for path in tmp_path.iterdir()} <= {"a", "b"}


def test_drives_that_keep_no_times_are_compared_by_content(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "b").write_bytes(b"12345")
    (tmp_path / "c").write_bytes(b"12346")
    for number, name in enumerate("abc"):
        os.utime(tmp_path / name, ns=(0, number * 10**9))
    assert same(tmp_path / "a", tmp_path / "b")
    assert not same(tmp_path / "a", tmp_path / "c")


def test_neither_links_nor_hidden_nor_special_files_are_copied(tmp_path):
    (tmp_path / "run" / ".locks").mkdir(parents=True)
    for name in ("log.txt", ".lock", ".copying-x", ".locks/y"):
        (tmp_path / "run" / name).write_text("x")
    (tmp_path / "run" / "link").symlink_to("/etc")
    os.mkfifo(tmp_path / "run" / "fifo")
    assert [path.name for path in files_under(tmp_path)] == ["log.txt"]
    assert not list(files_under(tmp_path / "absent"))


def test_a_large_copy_is_synced_in_small_parts(tmp_path, monkeypatch):
    """Otherwise the sync of a large file would be taken for a drive that hangs."""
    monkeypatch.setattr(copying, "CHUNK", 1000)
    monkeypatch.setattr(copying, "SYNCED", 4000)
    (tmp_path / "a").write_bytes(os.urandom(15_500))
    sizes, real = [], os.fsync

    def noted(handle):
        sizes.append(os.fstat(handle).st_size)
        real(handle)

    monkeypatch.setattr(os, "fsync", noted)
    copy(tmp_path / "a", tmp_path / "b", Pulse())
    assert sizes[:4] == [4000, 8000, 12_000, 15_500]
    assert same(tmp_path / "a", tmp_path / "b")


def test_a_place_that_hangs_is_abandoned(tmp_path):
    """Exit 6, though the call into it never returns."""
    for_ever = threading.Event()
    began = time.monotonic()
    with pytest.raises(HostError, match=r"has not answered .* still connected"):
        run_watched(lambda: for_ever.wait(30), Pulse(), 0.2, tmp_path)
    assert time.monotonic() - began < 25
    for_ever.set()


def test_a_place_that_is_slow_is_waited_for(tmp_path):
    pulse, tick = Pulse(), threading.Event()

    def slow():
        for _ in range(12):
            tick.wait(0.05)
            pulse.beat()
        return 7

    assert run_watched(slow, pulse, 0.4, tmp_path) == 7
    with pytest.raises(ZeroDivisionError):
        run_watched(lambda: 1 // 0, pulse, 1.0, tmp_path)


def test_a_drive_that_cannot_sync_a_folder_can_be_used(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"x")

    def refuse(_):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuse)
    sync(tmp_path)
    with pytest.raises(OSError, match="Invalid argument"):
        sync(tmp_path / "file")
