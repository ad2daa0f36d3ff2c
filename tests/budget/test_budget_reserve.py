"""Of what a job may cost, its end's share is kept back, and families share the rest."""

from __future__ import annotations

import pytest

from tests.budget.jobs import FAMILIES, book_of, expected, kept, trained, work
from training.budget import account as accounts
from training.budget import book as books
from training.budget import reserve as reserves
from training.budget.account import counted, ledger_path
from training.budget.ending import STAGES
from training.budget.limit import Limit
from training.errors import UsageError
from training.workspace import Workspace


def total(account, families=FAMILIES):
    return sum(account.kept_back(families).values())


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
    for stage in STAGES:
        work(space, clock, stage, 0.5 * expected(space, stage, ["one"]), ["one"])
    with counted(space, "train", ["one"], Limit()) as account:
        quick = total(account, ["one"])
    monkeypatch.setattr(accounts, "slowness", lambda: 3.0)
    with counted(space, "train", ["one"], Limit()) as account:
        assert total(account, ["one"]) == pytest.approx(3 * quick)
    measured = 1.5 * expected(space, "export", ["one"])
    work(space, clock, "export", measured, ["one"])  # in half of three times the expected time
    assert books.paces(book_of(space).job.sessions)["export"] == pytest.approx(0.5, rel=1e-2)


def test_a_moment_in_which_the_host_was_busy_is_not_what_is_kept_back_for(tmp_path, clock, monkeypatch):
    space = Workspace(tmp_path)
    trained(space, "one")
    looks = iter([6.0, 1.0, 1.0, 1.0])
    with counted(space, "train", ["one"], Limit()) as account:
        quiet = total(account, ["one"])
    monkeypatch.setattr(accounts, "slowness", lambda: next(looks))
    with counted(space, "train", ["one"], Limit()) as account:
        busy = []
        for _ in range(3):
            busy.append(total(account, ["one"]))
            account.look()
    assert busy[0] > busy[1] > busy[2] == pytest.approx(quiet)


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
    for stage in STAGES:
        work(space, clock, stage, 0.5 * expected(space, stage, ["one"]), ["one"])
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
    for stage in STAGES:
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
        kept = total(account)
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
    used = 0.0
    for _ in range(5):
        with counted(space, "train", ["one"], limit) as account:
            left = account.training_left("one", 2, ["two"])
            step = left() / 2
            clock.pass_(step)
            used += step
    half = (3600 - total(account)) / 2
    assert used == pytest.approx(half * (1 - 0.5**5))


def test_what_one_family_did_not_need_is_the_next_ones(tmp_path, clock):
    space = Workspace(tmp_path)
    for family in FAMILIES:
        trained(space, family)
    limit = Limit(hours=1)
    work(space, clock, "train", 60, ["one"], limit)
    with counted(space, "train", ["two"], limit) as account:
        assert account.training_left("two", 1, ["one"])() == pytest.approx(3540 - total(account))


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
