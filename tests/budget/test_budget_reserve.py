"""Part of a job's limit is reserved for its last stages, and families share the rest."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.budget.jobs import FAMILIES, book_of, expected, kept, trained, work
from training.budget import account as accounts
from training.budget import book as books
from training.budget import ending as endings
from training.budget import reserve as reserves
from training.budget.account import counted, ledger_path
from training.budget.ending import STAGES, Ending, Line
from training.budget.limit import Limit
from training.errors import TrainingError
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


def test_the_reserve_grows_with_the_slowness_of_the_host_and_the_pace_does_not(tmp_path, clock, monkeypatch):
    """Three times as slow as when the job before was measured: three times its time is reserved."""
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


@pytest.mark.parametrize(
    ("slow_steps", "core", "ratio"), [(10, 2.0, 1.0), (90, 2.0, 2.0), (90, 1.5, 1.5), (90, 1.0, 1.0)],
    ids=["for a moment", "lastingly", "the core less", "the core not"],
)  # fmt: skip
def test_a_host_that_becomes_slower_while_it_trains_is_given_more_time(
    tmp_path, clock, monkeypatch, slow_steps, core, ratio
):
    """Where both the training's steps and a core show it."""
    space = Workspace(tmp_path)
    trained(space, "one")
    with counted(space, "train", ["one"], Limit(hours=10), endings={"one": FAMILY}) as account:
        left = account.training_left("one", 1, [])
        before = total(account, ["one"])
        monkeypatch.setattr(accounts, "slowness", lambda: core)
        for seconds in [0.5] * 60 + [1.0] * slow_steps:
            left()
            clock.advance(seconds)
        left()
        assert total(account, ["one"]) == pytest.approx(ratio * before, rel=1e-6)


def test_slowness_is_the_median_time_of_a_fixed_computation(monkeypatch):
    """By a simulated clock: disturbed probes have no effect while they are the minority."""
    reference = reserves.PROBE[2]
    taken = iter([reference * times for times in (7, 99, 99, 7, 7, 99, 7)])
    now = [0.0]

    def clock():
        now.append(now[-1] + (next(taken) if len(now) % 2 == 0 else 0.0))
        return now[-1]

    monkeypatch.setattr(reserves.time, "perf_counter", clock)
    assert reserves.slowness() == pytest.approx(7)
    monkeypatch.undo()
    assert 1 / reserves.SLOWEST <= reserves.slowness() <= reserves.SLOWEST


def test_times_measured_on_this_host_replace_the_expected_ones(tmp_path, clock, monkeypatch):
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


FAMILY = Ending(evaluate=Line(10, 0), export=Line(20, 0), verify=Line(2, 0))


def test_until_a_stage_has_run_here_its_reserve_follows_from_a_timed_trial(tmp_path, clock):
    """On a host where a fixed export takes twice as long, twice the time is reserved, with a smaller safety factor."""
    space = Workspace(tmp_path)
    trained(space, "one")
    careful = kept(space, ["one"])
    work(space, clock, reserves.TRIAL, 2 * reserves.TRIAL_SECONDS)
    sessions = book_of(space).job.sessions
    tried = kept(space, ["one"], sessions)
    assert tried == pytest.approx(careful / reserves.CAREFUL * 2 * reserves.MARGIN, rel=1e-2)
    assert reserves.is_measured(sessions, ()) and not reserves.is_measured((), ())
    for stage in STAGES:
        work(space, clock, stage, expected(space, stage, ["one"]), ["one"])
    assert kept(space, ["one"], book_of(space).job.sessions) == pytest.approx(tried / 2, rel=1e-2)


def test_one_slow_earlier_job_does_not_decide_the_reserve(tmp_path, clock):
    space = Workspace(tmp_path)
    trained(space, "one")
    for pace in (1.0, 6.0, 1.0):
        for stage in STAGES:
            work(space, clock, stage, pace * expected(space, stage, ["one"]), ["one"])
        books.close(ledger_path(space))
    work(space, clock, "prepare", 1)
    usual = kept(space, ["one"]) / reserves.CAREFUL * reserves.MARGIN
    assert kept(space, ["one"], (), book_of(space).history) == pytest.approx(usual, rel=1e-2)


@pytest.mark.parametrize(
    ("to_train", "reserve", "pays"),
    [(20.0, 0.0, True), (15.0, 40.0, False), (8.0, 126.0, True), (-5.0, 126.0, True), (-20.0, 126.0, False)],
)
def test_a_trial_is_run_where_it_frees_more_time_than_it_takes(to_train, reserve, pays):
    assert reserves.trial_pays(to_train, reserve, 9.5) is pays


def test_each_family_has_its_own_reserve(tmp_path, clock):
    """It follows from the times that the family declares; without a checkpoint, its size is that of the preset."""
    space = Workspace(tmp_path)
    grows = replace(FAMILY, export=Line(0, 10), millions=4.0)
    with counted(space, "train", ["one"], Limit(), endings={"one": FAMILY, "two": grows}) as account:
        kept_back = account.kept_back(FAMILIES)
    processes = reserves.PROCESS + reserves.COMMON_PROCESSES / 2
    assert kept_back["one"] == pytest.approx((10 + 20 + 2 + processes) * reserves.CAREFUL)
    assert kept_back["two"] == pytest.approx((10 + 40 + 2 + processes) * reserves.CAREFUL)


def test_trained_baselines_take_their_share_of_the_time_that_was_trained(tmp_path, clock, monkeypatch):
    """A fifth of a short training; of a long one the most that they may take."""
    monkeypatch.setattr(endings, "_has_gpu", lambda: False)
    space = Workspace(tmp_path)
    ending = replace(FAMILY, baseline_share=0.2, baseline_most=Line(30, 0))
    with counted(space, "train", ["one"], Limit(), endings={"one": ending}) as account:
        start = total(account, ["one"])
        clock.advance(100)
        assert total(account, ["one"]) - start == pytest.approx(20 * reserves.CAREFUL)
        clock.advance(1000)
        assert total(account, ["one"]) - start == pytest.approx(30 * reserves.CAREFUL)


def test_the_share_of_a_training_leaves_room_for_the_baselines_that_follow_from_it(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(endings, "_has_gpu", lambda: False)
    space, limit = Workspace(tmp_path), Limit(hours=1)
    ending = replace(FAMILY, baseline_share=0.2, baseline_most=Line(1e6, 0))
    with counted(space, "train", ["one"], limit, endings={"one": ending}) as account:
        left = account.training_left("one", 1, [])
        seconds = left()
        clock.advance(seconds)
        assert 3600 - seconds == pytest.approx(total(account, ["one"]), rel=0.02)
        assert left() == pytest.approx(0, abs=0.01 * seconds)


def test_the_reserve_is_recorded_in_the_ledger(tmp_path, clock):
    space, limit = Workspace(tmp_path), Limit(hours=1)
    with counted(space, "train", ["one"], limit) as account:
        account.training_left("one", 2, ["two"])()
        kept_back = account.kept_back(FAMILIES)
    assert dict(book_of(space).job.sessions[-1].kept) == pytest.approx(kept_back)


def test_a_stage_that_had_nothing_to_do_does_not_shrink_the_reserve(tmp_path, clock):
    space = Workspace(tmp_path)
    trained(space, "one")
    careful = kept(space, ["one"])
    for stage in STAGES:
        work(space, clock, stage, 0.01, ["one"])
    assert kept(space, ["one"], book_of(space).job.sessions) >= reserves.LEAST / reserves.CAREFUL * careful


def test_the_recorded_reserve_follows_from_the_time_that_was_trained(tmp_path, clock, monkeypatch):
    """Not from the time that it might have trained: an early end means a shorter baseline."""
    monkeypatch.setattr(endings, "_has_gpu", lambda: False)
    space, limit = Workspace(tmp_path), Limit(hours=1)
    ending = replace(FAMILY, baseline_share=0.2, baseline_most=Line(1e6, 0))
    with counted(space, "train", ["one"], limit, endings={"one": ending}) as account:
        nothing_trained = total(account, ["one"])
        account.training_left("one", 1, [])()
        clock.advance(100)
    recorded = sum(book_of(space).job.sessions[-1].kept.values())
    assert recorded - nothing_trained == pytest.approx(20 * reserves.CAREFUL)


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
        clock.advance(half)
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
            clock.advance(step)
            used += step
    half = (3600 - total(account)) / 2
    assert used == pytest.approx(half * (1 - 0.5**5))


def test_time_that_one_family_does_not_use_is_left_to_the_next(tmp_path, clock):
    space = Workspace(tmp_path)
    for family in FAMILIES:
        trained(space, family)
    limit = Limit(hours=1)
    work(space, clock, "train", 60, ["one"], limit)
    with counted(space, "train", ["two"], limit) as account:
        assert account.training_left("two", 1, ["one"])() == pytest.approx(3540 - total(account))


def test_without_a_limit_training_gets_no_limit(tmp_path, clock):
    with counted(Workspace(tmp_path), "train", ["one"], Limit()) as account:
        assert account.training_left("one", 1, []) is None


def test_a_limit_too_small_to_train_is_refused_unless_something_can_be_exported(tmp_path, clock):
    space = Workspace(tmp_path)
    with counted(space, "train", ["one"], Limit(hours=0.005)) as account:
        left = account.training_left("one", 1, [])
        with pytest.raises(TrainingError, match=r"--max-hours 0\.\d\d"):
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
