"""Files that are looked at by several processes: one that changed is seen wherever it is, and no process stays."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from training.data import unchanged
from training.data.digests import signatures
from training.data.rows import Texts
from training.data.unchanged import looking

COUNT = 40


@pytest.fixture(autouse=True)
def several(monkeypatch):
    """Four processes of ten files, each of which asks for three at a time."""
    monkeypatch.setattr(unchanged, "SHARE", 10)
    monkeypatch.setattr(unchanged, "_AT_ONCE", 3)
    monkeypatch.setattr(unchanged, "available_cpus", lambda: 8)


@pytest.fixture
def files(tmp_path) -> list[Path]:
    paths = [tmp_path / f"file {number}" for number in range(COUNT)]
    for path in paths:
        path.write_bytes(b"as it was")
    return paths


def same(paths: list[Path], signed: np.ndarray) -> bool:
    with looking(Texts.of(map(str, paths)), signed) as answer:
        return answer()


@pytest.fixture
def crew(monkeypatch) -> list[int]:
    """The processes that were started."""
    started, plain = [], unchanged._fork
    monkeypatch.setattr(unchanged, "_fork", lambda *given: (started.append(plain(*given)), started[-1])[1])
    return started


def none_is_left(crew: list[int]) -> bool:
    return len(crew) > 0 and not any(Path(f"/proc/{pid}").exists() for pid in crew)


@pytest.mark.parametrize("which", [0, 9, 10, 25, COUNT - 1])
def test_a_change_is_seen_wherever_it_is(files, crew, which):
    signed = signatures(map(str, files))
    assert same(files, signed)
    about = files[which].stat()
    files[which].write_bytes(b"as it is.")
    os.utime(files[which], ns=(about.st_atime_ns, about.st_mtime_ns))
    assert not same(files, signed)
    files[which].unlink()
    assert not same(files, signed)
    assert none_is_left(crew)


def test_few_files_and_a_single_core_need_no_process(files, monkeypatch):
    signed = signatures(map(str, files))
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("a process was started"))
    assert same(files[:19], signed[:19])
    assert not same(files[:19], signed[1:20])
    assert same([], signed[:0])
    monkeypatch.setattr(unchanged, "available_cpus", lambda: 1)
    assert same(files, signed)


@pytest.mark.parametrize("change", [False, True])
def test_what_a_killed_process_was_to_find_out_is_found_out_here(files, monkeypatch, change):
    signed, here, plain = signatures(map(str, files)), os.getpid(), unchanged.signatures
    if change:
        files[-1].write_bytes(b"changed")

    def killed(paths):
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(paths)

    monkeypatch.setattr(unchanged, "signatures", killed)
    assert same(files, signed) is not change


def test_an_answer_that_nobody_waits_for_leaves_no_process(files, crew):
    with pytest.raises(KeyboardInterrupt), looking(Texts.of(map(str, files)), signatures(map(str, files))):
        raise KeyboardInterrupt
    assert none_is_left(crew)
