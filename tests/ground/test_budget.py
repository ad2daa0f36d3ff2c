"""What a job may cost is counted over all of its stages and restarts, and kept back for its end."""

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

from training.budget import account as accounts
from training.budget import book as books
from training.budget import ledger as ledgers
from training.budget import limit as limits
from training.budget import reserve as reserves
from training.budget.account import counted, ledger_path, table
from training.budget.ledger import Ledger
from training.budget.limit import Limit, Used, limit_of, price_of, read_prices
from training.cli import main
from training.errors import HostError, Interrupted, UsageError
from training.workspace import PROJECT, Workspace

FAMILIES = ["one", "two"]


class Clock:
    """A monotonic clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    for module in (books, ledgers):
        monkeypatch.setattr(module.time, "monotonic", made)
    monkeypatch.setattr(ledgers, "TICK", 1e6)
    monkeypatch.setattr(accounts, "slowness", lambda: 1.0)
    monkeypatch.delenv("ATHANOR_RUNNER", raising=False)
    return made


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(limits, "gpus", list)


def work(workspace, clock, stage, seconds, families=(), limit=Limit(), error=None, **options):  # noqa: B008  frozen
    with counted(workspace, stage, families, limit, **options) as account:
        clock.pass_(seconds)
        if error:
            raise error
    return account


def book_of(workspace):
    return books.read(ledger_path(workspace))


def spent(workspace):
    return book_of(workspace).job.used().seconds


def trained(workspace, family, megabytes=1.0):
    folder = workspace.checkpoints(family)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "last.pt").open("wb") as file:
        file.truncate(int(megabytes * 1e6))


def kept(workspace, families, sessions=(), history=()):
    return reserves.reserve(list(reserves.sizes(workspace, families).values()), 1.0, sessions, history)


# -- the limit -----------------------------------------------------------------------------------------------------


def test_the_stricter_of_hours_and_money_counts():
    assert Limit(hours=2, money=1, price=1).seconds(Used({})) == 3600
    assert Limit(hours=0.5, money=1, price=1).seconds(Used({})) == 1800
    assert Limit().seconds(Used({None: 9e9})) == math.inf


def test_what_an_earlier_host_cost_is_subtracted_from_the_money():
    """1 USD went at 2 USD/h; the third that is left of 1.50 lasts half an hour at 1 USD/h."""
    used = Used({2.0: 1800})
    assert Limit(money=1.5, price=1.0).seconds(used) == pytest.approx(1800 + 1800)


def test_the_limit_in_seconds_does_not_waver_while_it_is_used():
    """It is recorded and compared: noise in the last digit would be a larger limit."""
    limit = Limit(money=1.1, price=0.37)
    assert {limit.seconds(Used({0.37: 0.1 * n, None: 0.7})) for n in range(100)} == {1.1 / 0.37 * 3600}


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "x", "1e9", ""])
@pytest.mark.parametrize("flag", ["--max-hours", "--budget-usd", "--price-per-hour"])
def test_nonsense_values_are_refused(flag, value, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["doctor", f"{flag}={value}"])
    assert caught.value.code == 2
    assert flag in capsys.readouterr().err


def test_a_budget_without_a_price_is_refused_naming_file_and_flag(no_gpu, tmp_path, capsys):
    assert main(["doctor", "--out", str(tmp_path), "--budget-usd", "1"]) == 2
    told = capsys.readouterr().err
    assert "prices.yaml" in told and "--price-per-hour" in told


def test_hours_alone_need_no_price(no_gpu):
    assert limit_of(1.0, None, None) == Limit(1.0, None, None)


def test_an_unknown_gpu_is_named_with_the_line_to_add(monkeypatch):
    monkeypatch.setattr(limits, "gpus", lambda: ["NVIDIA Quantum 1"])
    with pytest.raises(UsageError, match=r"prices.yaml has no price for NVIDIA Quantum 1.*`Quantum 1: 1.00`"):
        limit_of(None, 1.0, None)


def test_every_gpu_that_is_rented_is_paid_for(monkeypatch):
    monkeypatch.setattr(limits, "gpus", lambda: ["NVIDIA GeForce RTX 4090"] * 3)
    each = read_prices(limits.PRICES)["RTX 4090"]
    assert limit_of(None, 1.0, None).price == pytest.approx(3 * each)
    assert limit_of(None, 1.0, 0.5).price == 0.5


def test_the_price_of_other_hosts_is_not_guessed(monkeypatch):
    monkeypatch.setattr(limits, "gpus", lambda: ["NVIDIA L4"])
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="of all hosts together"):
        limit_of(None, 1.0, None)


@pytest.mark.parametrize(
    ("gpu", "entry"),
    [
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB"),
        ("NVIDIA A100 80GB PCIe", "A100 80GB"),
        ("NVIDIA A100-PCIE-40GB", "A100 40GB"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L4", "L4"),
        ("Tesla T4", "T4"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("NVIDIA GeForce GTX 1080", None),
    ],
)
def test_the_table_knows_gpus_by_the_names_that_nvidia_smi_gives(gpu, entry):
    prices = read_prices(limits.PRICES)
    assert price_of(gpu, prices) == (prices[entry] if entry else None)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("prices:\n  RTX 4090: cheap\n", r":2: `prices.RTX 4090`"),
        ("prices:\n  RTX 4090: 0\n", r":2: `prices.RTX 4090`"),
        ("prices:\n  RTX 4090: .nan\n", r":2: `prices.RTX 4090`"),
        ("prices:\n  L4: 1\n  L4: 2\n", r":3: `prices.L4` is set twice"),
        ("price:\n  L4: 1\n", r":1: `price` is no setting. Did you mean `prices`"),
        ("", r"`prices` is missing"),
        ("prices: [", r"is not valid YAML"),
    ],
)
def test_mistakes_in_the_price_table_are_told_with_line_and_key(tmp_path, text, told):
    (tmp_path / "prices.yaml").write_text(text)
    with pytest.raises(UsageError, match=told):
        read_prices(tmp_path / "prices.yaml")


def test_gpus_are_asked_of_nvidia_smi_and_none_is_no_error(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\n[ "$1" = --query-gpu=name ] && printf "NVIDIA L4\\nNVIDIA L4\\n"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert limits.gpus() == ["NVIDIA L4", "NVIDIA L4"]
    tool.write_text("#!/bin/sh\necho broken driver; exit 9\n")
    assert limits.gpus() == []
    tool.unlink()
    assert limits.gpus() == []


# -- the ledger ----------------------------------------------------------------------------------------------------


def test_every_stage_and_restart_of_a_job_counts(tmp_path, clock):
    space = Workspace(tmp_path)
    work(space, clock, "prepare", 10)
    with pytest.raises(Interrupted):
        work(space, clock, "train", 20, ["one"], error=Interrupted("x"))
    clock.pass_(1e6)  # nothing of the job ran
    account = work(space, clock, "train", 30, ["one"])
    assert spent(space) == 60 and account.ledger.trained("one") == 50
    assert [s.exit for s in book_of(space).job.sessions] == [0, 75, 0]


def test_time_between_the_stages_of_a_runner_counts(tmp_path, clock, monkeypatch):
    space = Workspace(tmp_path)
    monkeypatch.setattr(ledgers.time, "time", lambda: 5000.0)
    monkeypatch.setenv("ATHANOR_RUNNER", "4960.5-77")  # 39.5 s went into the environment
    work(space, clock, "prepare", 10)
    clock.pass_(7)
    work(space, clock, "train", 20, ["one"])
    assert spent(space) == pytest.approx(39.5 + 10 + 7 + 20)
    clock.pass_(1e6)
    monkeypatch.setenv("ATHANOR_RUNNER", "4999-78")  # another runner: what was between is not the job's
    work(space, clock, "train", 1, ["one"])
    assert spent(space) == pytest.approx(39.5 + 10 + 7 + 20 + 1 + 1)


def test_a_clock_that_was_set_uses_up_nothing(tmp_path, clock, monkeypatch):
    space = Workspace(tmp_path)
    monkeypatch.setattr(ledgers.time, "time", lambda: 2e9)
    monkeypatch.setenv("ATHANOR_RUNNER", "100-1")
    work(space, clock, "prepare", 10)
    assert spent(space) == 10


def test_stages_at_the_same_time_share_their_time(tmp_path, clock):
    space = Workspace(tmp_path)
    path = ledger_path(space)
    one, two = Ledger(path, "train", ["one"]), Ledger(path, "train", ["two"])
    one.start()
    two.start()
    for _ in range(10):
        clock.pass_(6)
        one._update()
        two._update()
    one.finish(0)
    two.finish(0)
    assert spent(space) == 60


def test_a_finished_job_begins_a_new_one_and_is_kept_in_short(tmp_path, clock):
    space = Workspace(tmp_path)
    work(space, clock, "train", 3600, ["one"], Limit(price=0.5))
    books.close(ledger_path(space))
    work(space, clock, "prepare", 5)
    book = book_of(space)
    assert spent(space) == 5
    (past,) = book.history
    assert (past.seconds, past.money, dict(past.stages)) == (3600, 0.5, {"train one": 3600})


def test_a_job_that_its_limit_ended_goes_on_when_more_is_allowed(tmp_path, clock):
    """What it has used still counts: two hours are two hours in all."""
    space = Workspace(tmp_path)
    with counted(space, "train", ["one"], Limit(hours=1)) as account:
        clock.pass_(3600)
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


def test_kill_9_loses_no_more_than_a_tick(tmp_path):
    """The session is in the file while it runs, and the next start goes on from there."""
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
def test_a_damaged_ledger_is_set_aside_and_said(tmp_path, clock, capsys, damage):
    space = Workspace(tmp_path)
    ledger_path(space).parent.mkdir()
    ledger_path(space).write_bytes(damage)
    work(space, clock, "prepare", 10)
    told = capsys.readouterr().err
    assert "damaged" in told and "not known any more" in told
    (aside,) = ledger_path(space).parent.glob("budget.damaged-*.json")
    assert aside.read_bytes() == damage and spent(space) == 10


def test_a_ledger_damaged_while_it_counts_is_written_anew_from_memory(tmp_path, clock, capsys):
    space = Workspace(tmp_path)
    work(space, clock, "prepare", 10)
    with counted(space, "train", ["one"], Limit()) as account:
        clock.pass_(5)
        ledger_path(space).write_bytes(b"\0" * 100)
        account.ledger._update()
        clock.pass_(5)
        ledger_path(space).unlink()
    assert spent(space) == 20 and "Nothing is lost" in capsys.readouterr().err


@pytest.mark.parametrize("field", ["seconds", "price"])
@pytest.mark.parametrize("value", [-1, "x", math.nan, math.inf])
def test_numbers_that_cannot_be_are_damage(tmp_path, clock, field, value):
    space = Workspace(tmp_path)
    work(space, clock, "prepare", 10, limit=Limit(price=1.0))
    content = json.loads(ledger_path(space).read_text())
    content["job"]["sessions"][0][field] = value
    ledger_path(space).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=field):
        books.read(ledger_path(space))


def test_what_cannot_be_written_is_said_and_stops_only_a_limited_job(tmp_path, clock, capsys):
    (tmp_path / "runs").write_text("in the way")
    account = work(Workspace(tmp_path), clock, "prepare", 10)
    assert account.ledger.used().seconds == 10
    assert capsys.readouterr().err.count("not recorded") == 1
    with pytest.raises(HostError, match="the limit would not hold"):
        work(Workspace(tmp_path), clock, "prepare", 10, limit=Limit(hours=1))


def test_a_disk_that_was_full_for_a_while_loses_no_time(tmp_path, clock, monkeypatch):
    space = Workspace(tmp_path)
    with counted(space, "train", ["one"], Limit(hours=1)) as account:
        clock.pass_(10)
        with monkeypatch.context() as full:
            full.setattr(ledgers, "store", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
            account.ledger._update()
        assert account.ledger.used().seconds == 10
        clock.pass_(5)
        account.ledger._update()
        assert spent(space) == account.ledger.used().seconds == 15


def test_forked_workers_do_not_hold_the_ledger(tmp_path):
    """A loader process that is forked in the moment of a write lives for hours; flock would be held as long."""
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


def test_asking_what_is_used_never_waits_for_the_disk(tmp_path, clock):
    """It is asked before every step."""
    with counted(Workspace(tmp_path), "train", ["one"], Limit(hours=1)) as account:
        clock.pass_(3)
        with account.ledger._turn:  # a write that hangs
            seen: list[float] = []
            asking = threading.Thread(target=lambda: seen.append(account.ledger.used().seconds))
            asking.start()
            asking.join(10)
        assert seen == [3]


# -- what is kept back, and what is left ---------------------------------------------------------------------------


def test_the_reserve_grows_with_the_models_and_unknown_ones_are_taken_for_larger(tmp_path):
    space = Workspace(tmp_path)
    trained(space, "one", 16)
    small = kept(space, ["one"])
    both = kept(space, ["one", "two"])
    assert both > 2 * small
    trained(space, "one", 320)
    assert kept(space, ["one"]) > small


def test_a_slow_host_is_given_more_time_and_its_pace_is_told_apart_from_its_slowness(tmp_path, clock, monkeypatch):
    """Three times as slow as when the job before was measured: three times its time is kept back."""
    space = Workspace(tmp_path)
    trained(space, "one")
    for stage in reserves.STAGES:
        work(space, clock, stage, 0.5 * reserves.expected(stage, reserves.sizes(space, ["one"]).values()), ["one"])
    with counted(space, "train", ["one"], Limit()) as account:
        quick = account.kept_back(["one"])
    monkeypatch.setattr(accounts, "slowness", lambda: 3.0)
    with counted(space, "train", ["one"], Limit()) as account:
        assert account.kept_back(["one"]) == pytest.approx(3 * quick)
    measured = 1.5 * reserves.expected("export", reserves.sizes(space, ["one"]).values())
    work(space, clock, "export", measured, ["one"])  # in half of three times the expected time
    assert books.paces(book_of(space).job.sessions)["export"] == pytest.approx(0.5, rel=1e-2)


def test_a_moment_in_which_the_host_was_busy_is_not_what_is_kept_back_for(tmp_path, clock, monkeypatch):
    space = Workspace(tmp_path)
    trained(space, "one")
    looks = iter([6.0, 1.0, 1.0, 1.0])
    with counted(space, "train", ["one"], Limit()) as account:
        quiet = account.kept_back(["one"])
    monkeypatch.setattr(accounts, "slowness", lambda: next(looks))
    with counted(space, "train", ["one"], Limit()) as account:
        busy = [account.kept_back(["one"]) for _ in range(3)]
    assert busy[0] > busy[1] == busy[2] == pytest.approx(quiet)


def test_slowness_is_what_a_fixed_piece_of_work_takes(monkeypatch):
    """By a clock that a made-up core moves; disturbed probes are passed over while they are the fewer."""
    taken = iter([0.06, 1.0, 1.0, 0.06, 0.06, 1.0, 0.06])
    now = [0.0]

    def clock():
        now.append(now[-1] + (next(taken) if len(now) % 2 == 0 else 0.0))
        return now[-1]

    monkeypatch.setattr(reserves.time, "perf_counter", clock)
    assert reserves.slowness() == pytest.approx(0.06 / reserves.PROBE[2])
    monkeypatch.undo()
    assert 1 / reserves.SLOWEST <= reserves.slowness() <= reserves.SLOWEST


def test_what_was_measured_here_replaces_what_is_expected(tmp_path, clock, monkeypatch):
    space = Workspace(tmp_path)
    trained(space, "one")
    careful = kept(space, ["one"])
    for stage in reserves.STAGES:
        work(space, clock, stage, 0.5 * reserves.expected(stage, reserves.sizes(space, ["one"]).values()), ["one"])
    quick = kept(space, ["one"], book_of(space).job.sessions)
    assert quick == pytest.approx(careful / reserves.CAREFUL * 0.5 * reserves.MARGIN, rel=1e-2)
    books.close(ledger_path(space))
    work(space, clock, "prepare", 1)
    history = book_of(space).history
    assert kept(space, ["one"], (), history) == pytest.approx(quick)
    monkeypatch.setattr(reserves, "host", lambda: "another")
    assert kept(space, ["one"], (), history) == pytest.approx(careful)


def test_a_stage_that_found_its_work_done_does_not_shrink_the_reserve(tmp_path, clock):
    space = Workspace(tmp_path)
    trained(space, "one")
    careful = kept(space, ["one"])
    for stage in reserves.STAGES:
        work(space, clock, stage, 0.01, ["one"])
    assert kept(space, ["one"], book_of(space).job.sessions) >= reserves.LEAST / reserves.CAREFUL * careful


def test_families_share_what_is_left_evenly(tmp_path, clock):
    space = Workspace(tmp_path)
    for family in FAMILIES:
        trained(space, family)
    limit = Limit(hours=1)
    work(space, clock, "prepare", 100, limit=limit)
    with counted(space, "train", ["one"], limit) as account:
        left = account.training_left("one", 2, ["two"])
        kept = account.kept_back(FAMILIES)
        half = (3600 - 100 - kept) / 2
        assert left() == pytest.approx(half)
        clock.pass_(half)
        assert left() == pytest.approx(0)
    with counted(space, "train", ["two"], limit) as account:
        assert account.training_left("two", 1, ["one"])() == pytest.approx(half)


def test_restarts_do_not_enlarge_a_familys_share(tmp_path, clock):
    space = Workspace(tmp_path)
    for family in FAMILIES:
        trained(space, family)
    limit = Limit(hours=1)
    total = 0.0
    for _ in range(5):
        with counted(space, "train", ["one"], limit) as account:
            left = account.training_left("one", 2, ["two"])
            step = left() / 2
            clock.pass_(step)
            total += step
    half = (3600 - account.kept_back(FAMILIES)) / 2
    assert total == pytest.approx(half * (1 - 0.5**5))


def test_what_one_family_did_not_need_is_the_next_ones(tmp_path, clock):
    space = Workspace(tmp_path)
    for family in FAMILIES:
        trained(space, family)
    limit = Limit(hours=1)
    work(space, clock, "train", 60, ["one"], limit)
    with counted(space, "train", ["two"], limit) as account:
        assert account.training_left("two", 1, ["one"])() == pytest.approx(3540 - account.kept_back(FAMILIES))


def test_without_a_limit_nothing_is_told_to_training(tmp_path, clock):
    with counted(Workspace(tmp_path), "train", ["one"], Limit()) as account:
        assert account.training_left("one", 1, []) is None


def test_a_limit_too_small_to_train_is_refused_unless_something_can_be_exported(tmp_path, clock):
    space = Workspace(tmp_path)
    with counted(space, "train", ["one"], Limit(hours=0.005)) as account:
        left = account.training_left("one", 1, [])
        with pytest.raises(UsageError, match=r"--max-hours 0\.\d\d"):
            account.require_time(left(), FAMILIES)
        trained(space, "two")
        account.require_time(left(), FAMILIES)


def test_what_each_family_cost_adds_up(tmp_path, clock):
    space = Workspace(tmp_path)
    limit = Limit(price=3600.0)
    work(space, clock, "prepare", 10, limit=limit)
    work(space, clock, "train", 20, ["one"], limit)
    work(space, clock, "train", 30, ["two"], limit)
    account = work(space, clock, "export", 4, FAMILIES, limit)
    cost = account.cost(FAMILIES)
    assert cost == {
        "one": {"money": 5 + 20 + 2, "currency": "USD"},
        "two": {"money": 5 + 30 + 2, "currency": "USD"},
    }
    assert work(Workspace(tmp_path / "free"), clock, "export", 4, FAMILIES).cost(FAMILIES) == {}


# -- the verbs -----------------------------------------------------------------------------------------------------


def test_the_table_tells_stages_money_and_what_is_left(tmp_path, clock):
    space = Workspace(tmp_path)
    work(space, clock, "train", 1800, ["one"], Limit(hours=1, price=2.0))
    work(space, clock, "export", 60, FAMILIES)  # by hand, without the flags: the limit stays on record
    told = table(book_of(space))
    assert "train one" in told and "0:30:00" in told and "1.00" in told
    assert "Limit: 1:00:00; left: 0:29:00" in told and "not counted" in told


def test_a_job_that_goes_on_says_what_it_cannot_know(tmp_path, clock, monkeypatch, capsys):
    space = Workspace(tmp_path)
    monkeypatch.setenv("ATHANOR_RUNNER", "a-1")
    for seconds in (10, 20):
        work(space, clock, "train", seconds, ["one"], Limit(hours=1))
    assert "not counted" not in capsys.readouterr().out
    monkeypatch.setenv("ATHANOR_RUNNER", "a-2")
    work(space, clock, "train", 30, ["one"], Limit(hours=1))
    said = capsys.readouterr().out
    assert "Budget: 0:00:30 of 1:00:00 used." in said and "not counted" in said


def test_done_closes_the_job(tmp_path, clock, capsys):
    space = Workspace(tmp_path)
    work(space, clock, "train", 60, ["one"])
    assert main(["budget", "--out", str(tmp_path)]) == 0
    assert "not done yet" in capsys.readouterr().out
    assert main(["budget", "--out", str(tmp_path), "--done"]) == 0
    assert "done 2" in capsys.readouterr().out and book_of(space).job.done


def test_looking_at_a_ledger_changes_nothing(tmp_path, clock, capsys):
    assert main(["budget", "--out", str(tmp_path)]) == 0
    assert not list(tmp_path.iterdir())
    work(Workspace(tmp_path), clock, "train", 60, ["one"])
    before = ledger_path(Workspace(tmp_path)).stat()
    main(["budget", "--out", str(tmp_path)])
    assert ledger_path(Workspace(tmp_path)).stat() == before
    ledger_path(Workspace(tmp_path)).write_text("{")
    assert main(["budget", "--out", str(tmp_path), "--done"]) == 6
    assert "Move it away" in capsys.readouterr().err
