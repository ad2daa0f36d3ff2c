"""The ledger counts the time of a job over all of its stages and restarts."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests.budget.jobs import book_of, spent, work
from training.budget import book as books
from training.budget import ledger as ledgers
from training.budget.account import counted, ledger_path
from training.budget.ledger import Ledger
from training.budget.limit import Limit
from training.errors import HostError, Interrupted
from training.workspace import PROJECT, Workspace


def test_every_stage_and_restart_of_a_job_counts(tmp_path, clock):
    space = Workspace(tmp_path)
    work(space, clock, "prepare", 10)
    with pytest.raises(Interrupted):
        work(space, clock, "train", 20, ["one"], error=Interrupted("x"))
    clock.advance(1e6)  # nothing of the job ran
    account = work(space, clock, "train", 30, ["one"])
    assert spent(space) == 60 and account.ledger.trained("one") == 50
    assert [s.exit for s in book_of(space).job.sessions] == [0, 75, 0]


def test_time_between_the_stages_of_a_runner_counts(tmp_path, clock, monkeypatch):
    space = Workspace(tmp_path)
    monkeypatch.setattr(ledgers.time, "time", lambda: 5000.0)
    monkeypatch.setenv("ATHANOR_RUNNER", "4960.5-77")  # 39.5 s went into the environment
    work(space, clock, "prepare", 10)
    clock.advance(7)
    work(space, clock, "train", 20, ["one"])
    assert spent(space) == pytest.approx(39.5 + 10 + 7 + 20)
    clock.advance(1e6)
    monkeypatch.setenv("ATHANOR_RUNNER", "4999-78")  # another runner: what was between is not the job's
    work(space, clock, "train", 1, ["one"])
    assert spent(space) == pytest.approx(39.5 + 10 + 7 + 20 + 1 + 1)


def test_a_change_of_the_system_clock_is_not_counted_as_used_time(tmp_path, clock, monkeypatch):
    space = Workspace(tmp_path)
    monkeypatch.setattr(ledgers.time, "time", lambda: 2e9)
    monkeypatch.setenv("ATHANOR_RUNNER", "100-1")
    work(space, clock, "prepare", 10)
    assert spent(space) == 10


def test_stages_that_run_at_the_same_time_are_not_counted_twice(tmp_path, clock):
    space = Workspace(tmp_path)
    path = ledger_path(space)
    one, two = Ledger(path, "train", ["one"]), Ledger(path, "train", ["two"])
    one.start()
    two.start()
    for _ in range(10):
        clock.advance(6)
        one.count()
        two.count()
    one.finish(0)
    two.finish(0)
    assert spent(space) == 60


def test_after_a_finished_job_a_new_one_begins_and_a_summary_of_the_old_one_is_kept(tmp_path, clock):
    space = Workspace(tmp_path)
    work(space, clock, "train", 3600, ["one"], Limit(price=0.5))
    books.close(ledger_path(space))
    work(space, clock, "prepare", 5)
    book = book_of(space)
    assert spent(space) == 5
    (past,) = book.history
    assert (past.seconds, past.money, dict(past.stages)) == (3600, 0.5, {"train one": 3600})


def test_a_job_that_its_limit_ended_continues_when_more_is_allowed(tmp_path, clock):
    """What it has used still counts: two hours are two hours in all."""
    space = Workspace(tmp_path)
    with counted(space, "train", ["one"], Limit(hours=1)) as account:
        clock.advance(3600)
        account.ledger.note_ran_out()
    books.close(ledger_path(space))
    with counted(space, "train", ["one"], Limit(hours=2)) as account:
        assert account.seconds - account.ledger.used().seconds == 3600
    assert not book_of(space).history


def test_resume_never_begins_a_new_job_but_keeps_this_runners_own_stages(tmp_path, clock, monkeypatch):
    space = Workspace(tmp_path)
    work(space, clock, "train", 100, ["one"], fresh=True)
    work(space, clock, "train", 50, ["one"], fresh=True)
    assert spent(space) == 50
    monkeypatch.setenv("ATHANOR_RUNNER", "x-1")
    work(space, clock, "prepare", 5)
    work(space, clock, "train", 20, ["one"], fresh=True)
    work(space, clock, "train", 30, ["two"], fresh=True)
    assert spent(space) == 55
    assert [past.seconds for past in book_of(space).history] == [100, 50]


def test_kill_9_loses_no_more_than_the_time_since_the_last_write(tmp_path):
    """The session is in the file while it runs, and the next start continues from there."""
    code = (
        "import sys, time; from pathlib import Path; from training.budget import ledger\n"
        "ledger.TICK = 0.05; ledger.Ledger(Path(sys.argv[1]), 'train', ['one']).start(); time.sleep(60)"
    )
    path = tmp_path / "budget.json"
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=PROJECT)
    began = time.monotonic()
    try:
        while not path.exists() or books.read(path).job.used().seconds < 0.3:
            assert time.monotonic() - began < 30 and process.poll() is None
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    job = books.read(path).job
    assert job.sessions[0].exit is None and 0.3 <= job.used().seconds < 30
    after = Ledger(path, "train", ["one"])
    after.start()
    after.finish(0)
    assert books.read(path).job.used().seconds >= job.used().seconds and len(books.read(path).job.sessions) == 2


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"format": 2}', b'{"job": {"began": "x", "sessions": 3}}'])
def test_a_damaged_ledger_is_set_aside_and_reported(tmp_path, clock, capsys, damage):
    space = Workspace(tmp_path)
    ledger_path(space).parent.mkdir()
    ledger_path(space).write_bytes(damage)
    work(space, clock, "prepare", 10)
    output = capsys.readouterr().err
    assert "damaged" in output and "is unknown now" in output
    (aside,) = ledger_path(space).parent.glob("budget.damaged-*.json")
    assert aside.read_bytes() == damage and spent(space) == 10


def test_a_ledger_damaged_while_it_counts_is_written_again_from_memory(tmp_path, clock, capsys):
    space = Workspace(tmp_path)
    work(space, clock, "prepare", 10)
    with counted(space, "train", ["one"], Limit()) as account:
        clock.advance(5)
        ledger_path(space).write_bytes(b"\0" * 100)
        account.ledger.count()
        clock.advance(5)
        ledger_path(space).unlink()
    assert spent(space) == 20 and "Nothing is lost" in capsys.readouterr().err


@pytest.mark.parametrize("field", ["seconds", "price"])
@pytest.mark.parametrize("value", [-1, "x", math.nan, math.inf])
def test_impossible_numbers_in_a_ledger_are_damage(tmp_path, clock, field, value):
    space = Workspace(tmp_path)
    work(space, clock, "prepare", 10, limit=Limit(price=1.0))
    content = json.loads(ledger_path(space).read_text())
    content["job"]["sessions"][0][field] = value
    ledger_path(space).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=field):
        books.read(ledger_path(space))


def test_what_cannot_be_written_is_reported_and_stops_only_a_limited_job(tmp_path, clock, capsys):
    (tmp_path / "runs").write_text("in the way")
    account = work(Workspace(tmp_path), clock, "prepare", 10)
    assert account.ledger.used().seconds == 10
    assert capsys.readouterr().err.count("not recorded") == 1
    with pytest.raises(HostError, match="the limit would not hold"):
        work(Workspace(tmp_path), clock, "prepare", 10, limit=Limit(hours=1))


def test_a_disk_that_was_full_for_a_while_loses_no_time(tmp_path, clock, monkeypatch):
    space = Workspace(tmp_path)
    with counted(space, "train", ["one"], Limit(hours=1)) as account:
        clock.advance(10)
        with monkeypatch.context() as full:
            full.setattr(ledgers, "store", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
            account.ledger.count()
        assert account.ledger.used().seconds == 10
        clock.advance(5)
        account.ledger.count()
        assert spent(space) == account.ledger.used().seconds == 15


def test_forked_workers_do_not_hold_the_lock_of_the_ledger(tmp_path):
    """A data loader worker that is forked during a write lives for hours; a lock of flock would be held as long."""
    path = tmp_path / "budget.json"
    with books.locked(path, 0):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
        os.close(reader)
    other = subprocess.run(
        [sys.executable, "-c", "import sys; from pathlib import Path; from training.budget.book import locked\n"
         "with locked(Path(sys.argv[1]), 0): print('free')", str(path)],
        cwd=PROJECT, capture_output=True, text=True,
    )  # fmt: skip
    os.close(writer)
    os.waitpid(child, 0)
    assert other.stdout == "free\n", other.stderr


def test_a_ledger_that_another_process_writes_is_waited_for_and_never_torn(tmp_path, clock):
    path = tmp_path / "budget.json"
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys; from pathlib import Path; from training.budget.book import locked\n"
         "with locked(Path(sys.argv[1]), 0): print('held', flush=True); sys.stdin.read()", str(path)],
        cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(books.Busy), books.locked(path, 0):
        pass
    holder.communicate()
    with books.locked(path, 0):
        pass


def test_reading_the_used_time_never_waits_for_the_disk(tmp_path, clock):
    """It is read before every step."""
    with counted(Workspace(tmp_path), "train", ["one"], Limit(hours=1)) as account:
        clock.advance(3)
        with account.ledger._lock:  # a write that hangs
            seen: list[float] = []
            reader = threading.Thread(target=lambda: seen.append(account.ledger.used().seconds))
            reader.start()
            reader.join(10)
        assert seen == [3]
