"""How a run recovers: out of memory, repeated non-finite losses, a budget that ends before the run."""

import itertools
import json
import math

import pytest
import torch

from tests.engine import toy
from tests.engine.test_engine_resume import assert_same_run, saved
from training.engine.loading.batches import BatchPlan
from training.engine.loop import guards
from training.engine.loop.pace import Allowance, Pace
from training.engine.step import schedule
from training.errors import Interrupted, TrainingError

# -- memory --------------------------------------------------------------------------------------------------------


def steps_of(log):
    """Step -> the samples of its last try, in order."""
    tries = {}
    for step, group in itertools.groupby(log, key=lambda entry: entry[0]):
        tries[step] = [number for _, numbers in group for number in numbers]
    return tries


FULL = {"data": {"batch_size": 8}}


@pytest.mark.parametrize(("size", "since", "left"), [(4, 0, 4), (2, 5, 2), (1, 7, 1)])
def test_out_of_memory_halves_the_micro_batch_and_nothing_else(tmp_path, size, since, left):
    """The same global batches in the same order, and the weights of a run that had enough memory."""
    toy.run(tmp_path / "reference", **FULL)
    plan = BatchPlan(22, 8, 1, 1, 42)
    reference = {step: plan.step_samples(step).tolist() for step in range(9)}
    toy.ToyRecipe.log.clear()
    trained = toy.run(tmp_path / "short", toy.hungry(size, since), **FULL)
    seen = [(step, numbers) for step, numbers in toy.ToyRecipe.log if step < since or len(numbers) <= size]
    assert steps_of(seen) == reference
    one, other = saved(tmp_path / "reference"), saved(tmp_path / "short")
    for name in one["model"]:
        torch.testing.assert_close(one["model"][name], other["model"][name], rtol=1e-4, atol=1e-6)
    assert other["progress"]["skipped"] == 0 and other["progress"]["step"] == 9
    output = (trained.run / "log.txt").read_text()
    assert f"Micro-batches of {left} samples" in output and "out of memory" in output
    records = [json.loads(line) for line in (trained.run / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records if r["kind"] == "train"] == list(range(1, 10))


def test_a_run_that_was_halved_and_stopped_ends_bit_identical(tmp_path):
    """The halving is part of the checkpoint: with dropout, micro-batches of another size give other weights."""
    settings = {**FULL, "model": {"dropout": 0.4}, "training": {"ema_decay": 0.9}}
    toy.run(tmp_path / "reference", toy.hungry(4, since=2), **settings)
    with pytest.raises(Interrupted):
        toy.run(tmp_path / "stopped", toy.hungry(4, since=2, kind=toy.stopped(step=4)), **settings)
    assert saved(tmp_path / "stopped")["progress"]["halvings"] == 1
    toy.run(tmp_path / "stopped", **settings)  # stays halved, although there is enough memory now
    assert_same_run(saved(tmp_path / "stopped"), saved(tmp_path / "reference"))


def test_a_changed_batch_size_is_not_halved(tmp_path):
    with pytest.raises(Interrupted):
        toy.run(tmp_path, toy.hungry(4, kind=toy.stopped(step=4)), **FULL)
    toy.ToyRecipe.log.clear()
    toy.run(tmp_path, data={"batch_size": 4}, training={"grad_accum_steps": 2})
    assert {len(numbers) for step, numbers in toy.ToyRecipe.log if (step + 1) % 3} == {4}


def test_no_memory_for_one_sample_ends_the_run(tmp_path):
    """Exit 5, after 8, 4 and 2 were tried."""
    with pytest.raises(TrainingError, match="one sample already") as caught:
        toy.run(tmp_path, toy.hungry(0), **FULL)
    assert caught.value.exit_code == 5
    assert saved(tmp_path)["progress"]["step"] == 0


def test_another_runtime_error_is_not_taken_for_out_of_memory(tmp_path):
    with pytest.raises(RuntimeError, match="odd"):
        toy.run(tmp_path, toy.hungry(4, error=RuntimeError), **FULL)


def test_out_of_memory_in_validation_halves_micro_batches_before_the_first_step(tmp_path):
    class Hungry(toy.ToyRecipe):
        def validate(self, model, batch):
            if len(batch["number"]) > 4:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().validate(model, batch)

    trained = toy.run(tmp_path, Hungry, **FULL)
    assert math.isclose(
        trained.metrics["val_loss"], toy.run(tmp_path / "roomy", **FULL).metrics["val_loss"], rel_tol=1e-4
    )


# -- numbers -------------------------------------------------------------------------------------------------------


def exploding(until):
    """A toy whose loss is NaN from step 6 on, while the learning rate is above `until` of the planned one."""

    class Exploding(toy.ToyRecipe):
        rate = 1.0

        def losses(self, model, batch, progress):
            losses = super().losses(model, batch, progress)
            if progress.step >= 6 and Exploding.rate > until:
                losses["error"] = toy.Loss(losses["error"].total * math.nan)
            return losses

    return Exploding


@pytest.fixture
def rates(monkeypatch):
    """A list of toy classes whose `rate` is set to the factor on the learning rate after each rollback."""
    from training.engine.loop import recovery

    kinds = []
    original = recovery.roll_back

    def watched(run, fault):
        original(run, fault)
        for kind in kinds:
            kind.rate = run.state.progress.rate

    monkeypatch.setattr("training.engine.loop.loop.roll_back", watched)
    return kinds


@pytest.mark.parametrize(("until", "rollbacks"), [(0.5, 1), (0.25, 2)])
def test_repeated_non_finite_losses_roll_the_run_back_with_a_lower_learning_rate(tmp_path, rates, until, rollbacks):
    """The run reaches its end, and metrics.jsonl has each step once."""
    kind = exploding(until)
    rates.append(kind)
    trained = toy.run(tmp_path, kind, training={"epochs": 6, "save_every": 1, "keep": 9})
    progress = saved(tmp_path)["progress"]
    assert (progress["rollbacks"], progress["rate"], progress["step"]) == (rollbacks, 0.5**rollbacks, 36)
    assert progress["skipped"] == 10 * rollbacks
    records = [json.loads(line) for line in (trained.run / "metrics.jsonl").read_text().splitlines()]
    steps = [r["step"] for r in records if r["kind"] == "train"]
    assert steps == list(range(1, 37))
    settings = toy.recipe(training={"epochs": 6}).settings
    planned = [settings.optim.lr * schedule.factor(s, 36, settings.scheduler) for s in range(36)]
    shares = [r["lr"] / p for r, p in zip((r for r in records if r["kind"] == "train"), planned, strict=True)]
    assert shares[0] == pytest.approx(1.0) and shares[-1] == pytest.approx(0.5**rollbacks)
    assert "Back to" in (trained.run / "log.txt").read_text()


def test_a_rollback_is_kept_when_the_run_is_stopped_and_resumed(tmp_path, rates):
    """Including its lower learning rate."""
    kind = exploding(0.5)
    rates.append(kind)
    stopping = type("Both", (kind,), {"signal_at": 20})
    with pytest.raises(Interrupted):
        toy.run(tmp_path, stopping, training={"epochs": 6})
    assert saved(tmp_path)["progress"]["rate"] == 0.5
    toy.run(tmp_path, kind, training={"epochs": 6})
    assert saved(tmp_path)["progress"]["rollbacks"] == 1


def test_steps_skipped_before_a_rollback_do_not_count_against_a_resumed_run(tmp_path, rates, monkeypatch):
    """Five skipped steps lead to the rollback; after it and a resume, two more do not lead to another."""
    monkeypatch.setattr(guards, "AT_LEAST", 4)

    class Sometimes(toy.ToyRecipe):
        rate = 1.0

        def losses(self, model, batch, progress):
            losses = super().losses(model, batch, progress)
            if progress.step in ((6, 8, 10, 12, 14) if Sometimes.rate == 1 else (24, 28)):
                losses["error"] = toy.Loss(losses["error"].total * math.nan)
            return losses

    rates.append(Sometimes)
    with pytest.raises(Interrupted):
        toy.run(tmp_path, type("Both", (Sometimes,), {"signal_at": 20}), training={"epochs": 6})
    toy.run(tmp_path, Sometimes, training={"epochs": 6})
    progress = saved(tmp_path)["progress"]
    assert (progress["rollbacks"], progress["skipped"], progress["step"]) == (1, 7, 36)


def test_losses_that_stay_non_finite_after_two_rollbacks_end_the_run(tmp_path):
    """Exit 5; what is saved is finite and intact."""
    with pytest.raises(TrainingError, match="did not help") as caught:
        toy.run(tmp_path, exploding(0.0), training={"epochs": 6})
    assert caught.value.exit_code == 5
    state = saved(tmp_path)
    assert state["progress"]["rollbacks"] == 2
    assert all(torch.isfinite(value).all() for value in state["model"].values())


# -- time ----------------------------------------------------------------------------------------------------------


class Clock:
    """A clock for the run and its budget that advances only when a test advances it."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr("training.engine.loop.pace.time.monotonic", lambda: self.now)


def ticking(clock, kind=toy.ToyRecipe, seconds=1.0, later=None):
    """A toy whose steps take `seconds` each; from step 40 on `later`."""

    class Ticking(kind):
        def losses(self, model, batch, progress):
            clock.now += later if later and progress.step >= 40 else seconds
            return super().losses(model, batch, progress)

    return Ticking


@pytest.mark.parametrize(("name", "later"), [("cosine", None), ("linear", None), ("wsd", None), ("cosine", 2.0)])
def test_a_budget_ends_the_run_in_time_with_the_rate_at_its_floor(tmp_path, monkeypatch, name, later):
    """100 seconds for a run of 600 steps of one second; in the last case steps become slower meanwhile."""
    clock = Clock(monkeypatch)
    trained = toy.run(
        tmp_path,
        ticking(clock, later=later),
        training={"epochs": 100},
        scheduler={"name": name, "warmup_steps": 5},
        left=lambda: 100 - clock.now,
        limit=100.0,
    )
    assert trained.finished == "the budget is used up"
    assert 97 <= clock.now <= 100
    records = [json.loads(line) for line in (trained.run / "metrics.jsonl").read_text().splitlines()]
    rates = [r["lr"] / 0.01 for r in records if r["kind"] == "train"]
    assert max(rates) == pytest.approx(1.0, abs=0.01)
    assert rates[-1] == pytest.approx(0.1, abs=0.02)
    assert records[-1]["kind"] == "validation" and records[-1]["step"] == trained.step
    assert "there is time for about" in (trained.run / "log.txt").read_text()


@pytest.mark.parametrize("budget", [None, 80.0])
def test_a_run_ends_within_its_own_limit_of_minutes_or_the_budget(tmp_path, monkeypatch, budget):
    """A run of 600 steps of one second, limited to two minutes, and perhaps a budget of less."""
    clock = Clock(monkeypatch)
    settings = {"training": {"epochs": 100, "max_minutes": 2.0}}
    if budget:
        settings |= {"left": lambda: budget - clock.now, "limit": budget}
    first, stopped = budget or 120.0, toy.stopped(step=30)
    with pytest.raises(Interrupted):
        toy.run(tmp_path, ticking(clock, stopped), **settings)
    trained = toy.run(tmp_path, ticking(clock), **settings)  # the time before the stop counts
    assert first - 4 <= clock.now <= first
    assert trained.finished == ("the budget is used up" if budget else "training.max_minutes are over")
    assert toy.run(tmp_path, ticking(clock), **settings).already
    if not budget:
        longer = toy.run(tmp_path, ticking(clock), training={"epochs": 100, "max_minutes": 3.0})
        assert not longer.already and longer.run == trained.run and 176 <= clock.now <= 180


def test_a_budget_that_is_large_enough_changes_nothing(tmp_path):
    toy.run(tmp_path / "free")
    trained = toy.run(tmp_path / "rich", left=lambda: 1e6, limit=1e6)
    assert trained.finished == "every planned step is done"
    one, other = saved(tmp_path / "free"), saved(tmp_path / "rich")
    other["progress"]["limit"] = 0.0
    assert_same_run(one, other)


def test_a_run_that_its_budget_ended_continues_only_under_a_larger_one(tmp_path, monkeypatch):
    clock = Clock(monkeypatch)

    def run(limit):
        return toy.run(tmp_path, ticking(clock), training={"epochs": 50}, left=lambda: limit - clock.now, limit=limit)

    first = run(50.0)
    assert not first.already and first.step < 60
    assert run(50.0).already
    second = run(120.0)
    assert not second.already and second.run == first.run and 110 <= second.step <= 120
    reference = toy.run(tmp_path, training={"epochs": 50})
    assert reference.finished == "every planned step is done" and reference.step == 300


def test_a_run_stopped_inside_its_budget_keeps_its_plan(tmp_path, monkeypatch):
    """The planned length is in the checkpoint, so that the learning rate does not rise again."""
    clock = Clock(monkeypatch)
    settings = {"training": {"epochs": 50}, "left": lambda: 80 - clock.now, "limit": 80.0}
    with pytest.raises(Interrupted):
        toy.run(tmp_path, ticking(clock, toy.stopped(step=40)), **settings)
    assert 75 <= saved(tmp_path)["progress"]["total_steps"] <= 81
    trained = toy.run(tmp_path, ticking(clock), **settings)
    records = [json.loads(line) for line in (trained.run / "metrics.jsonl").read_text().splitlines()]
    rates = {r["step"]: r["lr"] for r in records if r["kind"] == "train"}
    assert rates[42] < rates[40]
    assert clock.now <= 80


def test_a_resumed_run_without_budget_left_is_evaluated_and_ends(tmp_path, monkeypatch):
    """It is evaluated, so that there is something to export."""
    clock = Clock(monkeypatch)
    with pytest.raises(Interrupted):
        toy.run(tmp_path, ticking(clock, toy.stopped(step=3)), training={"epochs": 50}, left=lambda: 80, limit=80.0)
    trained = toy.run(tmp_path, training={"epochs": 50}, left=lambda: 0.0, limit=80.0)
    assert (trained.step, trained.finished) == (4, "the budget is used up")
    assert math.isfinite(trained.metrics["val_loss"])


def test_the_last_evaluation_and_the_last_save_are_inside_the_time(monkeypatch):
    clock = Clock(monkeypatch)
    pace = Pace(Allowance(lambda: 100 - clock.now, 100.0), steps_per_evaluation=10)
    pace.evaluation, pace.saving = 8.0, 2.0
    pace.stepped()
    assert pace.fitting(1, 500, 500) == 500  # nothing was timed yet
    for _ in range(5):
        clock.now += 1.0
        pace.stepped()
    # 95 s are left, less 10 for the end; a step takes 1 s, and 0.8 of every tenth step's evaluation
    assert pace.fitting(6, 500, 500) == 6 + int(85 / 1.8)
    clock.now = 91.0
    assert pace.fitting(50, 60, 500) == 50
