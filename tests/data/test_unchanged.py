"""Comparing signatures in several processes: a changed file is found anywhere in the list, no process is left over."""

import os
import signal
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from training.data import unchanged
from training.data.digests import signatures
from training.data.rows import Texts
from training.data.unchanged import comparing_signatures

COUNT = 40


@pytest.fixture(autouse=True)
def forked(monkeypatch) -> list[int]:
    """Four processes check ten files each, three at a time. Returns the list of processes that were started."""
    plain, started = os.fork, []

    def fork() -> int:
        if (pid := plain()) != 0:
            started.append(pid)
        return pid

    monkeypatch.setattr(os, "fork", fork)
    monkeypatch.setattr(unchanged, "SHARE", 10)
    monkeypatch.setattr(unchanged, "_AT_ONCE", 3)
    monkeypatch.setattr(unchanged, "available_cpus", lambda: 8)
    return started


@pytest.fixture
def files(tmp_path) -> list[Path]:
    paths = [tmp_path / f"file {number}" for number in range(COUNT)]
    for path in paths:
        path.write_bytes(b"as it was")
    return paths


def unchanged_since(paths: list[Path], expected: np.ndarray) -> bool:
    with comparing_signatures(Texts.of(map(str, paths)), expected) as unchanged:
        return unchanged()


def none_is_left(started: list[int]) -> bool:
    """Whether all started processes were waited for (other tests may have left children that are still running)."""
    for pid in started:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
            return False  # it is running, or a zombie
    return len(started) >= 4


@pytest.mark.parametrize("which", [0, 9, 10, 25, COUNT - 1])
def test_a_changed_file_is_found_in_any_part_of_the_list(files, which, forked):
    expected = signatures(map(str, files))
    assert unchanged_since(files, expected)
    about = files[which].stat()
    files[which].write_bytes(b"as it is.")
    os.utime(files[which], ns=(about.st_atime_ns, about.st_mtime_ns))
    assert not unchanged_since(files, expected)
    files[which].unlink()
    assert not unchanged_since(files, expected)
    assert none_is_left(forked)


def test_few_files_or_a_single_core_start_no_process(files, monkeypatch):
    expected = signatures(map(str, files))
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("a process was started"))
    assert unchanged_since(files[:19], expected[:19])
    assert not unchanged_since(files[:19], expected[1:20])
    assert unchanged_since([], expected[:0])
    monkeypatch.setattr(unchanged, "available_cpus", lambda: 1)
    assert unchanged_since(files, expected)


@pytest.mark.parametrize("change", [False, True])
def test_the_part_of_a_killed_process_is_checked_by_its_parent(files, monkeypatch, change):
    expected, here, plain = signatures(map(str, files)), os.getpid(), unchanged.signatures
    if change:
        files[-1].write_bytes(b"changed")

    def killed(paths):
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(paths)

    monkeypatch.setattr(unchanged, "signatures", killed)
    assert unchanged_since(files, expected) is not change


def test_an_interruption_before_the_result_leaves_no_process(files, forked):
    texts, expected = Texts.of(map(str, files)), signatures(map(str, files))
    with pytest.raises(KeyboardInterrupt), comparing_signatures(texts, expected):
        raise KeyboardInterrupt
    assert none_is_left(forked)
