"""An estimate predicts the time that the training then takes, and leaves nothing behind."""

from __future__ import annotations

import itertools
import time

import pytest
import torch

from tests.engine import toy
from training.budget import account
from training.budget.account import Account, ledger_path
from training.budget.ledger import RecordedJob
from training.budget.limit import Limit
from training.errors import HostError, Interrupted
from training.stages import timing
from training.stages.estimate import SCRATCH, Estimate, estimate, show
from training.workspace import Workspace, exclusive


class Clock:
    """Every clock of this process; it moves when a toy works."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        for name in ("perf_counter", "monotonic"):
            monkeypatch.setattr(time, name, lambda: self.now)


@pytest.fixture
def clock(monkeypatch):
    torch.set_num_threads(1)
    return Clock(monkeypatch)


def slow(clock, early=1.0, late=3.0, validation=0.5):
    """A toy whose steps take `early` seconds in the first half of the run and `late` in the second."""

    class Slow(toy.ToyRecipe):
        def losses(self, model, batch, progress):
            clock.now += early if progress.fraction < 0.5 else late
            return super().losses(model, batch, progress)

        def validate(self, model, batch):
            clock.now += validation
            return super().validate(model, batch)

    return Slow


def of(root, kind=toy.ToyRecipe, *, train_rows=22, val_rows=9, resume="auto", ending=lambda *_: 0.0, **sections):
    rows = {"train": toy.rows(train_rows), "val": toy.rows(val_rows, 1000)}
    recipe = toy.recipe(kind, **sections)
    return estimate(recipe, Workspace(root), device="cpu", resume=resume, load=rows.__getitem__, ending=ending)


def tree(root):
    """Every file's name, content and time."""
    return {path: (path.is_file() and (path.stat().st_mtime_ns, path.read_bytes())) for path in root.rglob("*")}


LONG = {"training": {"epochs": 20, "eval_every": 2}}


def test_it_predicts_the_time_that_the_training_then_takes(tmp_path, clock):
    """Steps that are dearer in the second half, evaluations, sanity check: to the second, by a clock that only work
    moves."""
    estimated = of(tmp_path, slow(clock), **LONG)
    before = clock.now
    toy.run(tmp_path, slow(clock), **LONG)
    assert estimated.steps == 120 and estimated.evaluations == 10
    assert (estimated.step, estimated.evaluation, estimated.spread) == (2.0, 1.5, (1.0, 3.0))
    assert estimated.training == pytest.approx(clock.now - before)


def test_a_host_that_changes_its_speed_is_given_a_wider_interval(tmp_path, clock, monkeypatch):
    """A quarter slower for every second look: so much is the interval wider."""
    steady = of(tmp_path, slow(clock), **LONG)
    looks = itertools.cycle([1.0, 1.25])
    monkeypatch.setattr(timing, "slowness", lambda: next(looks))
    changing = of(tmp_path, slow(clock), **LONG)
    assert steady.drift == 0 and changing.drift > 0.1
    assert steady.doubt < 0.1 * steady.training < 0.15 * changing.training < changing.doubt


def test_rounds_that_took_longer_than_others_are_drift_too(tmp_path, clock):
    """Each place is timed twice; the host is slower from the second round on."""
    rounds = []

    class Slower(toy.ToyRecipe):
        def losses(self, model, batch, progress):
            rounds.append(progress.step)
            clock.now += 0.1 if len(rounds) <= 4 * 9 else 0.15
            return super().losses(model, batch, progress)

    assert of(tmp_path, Slower, **LONG).drift > 0.1


def test_evaluations_in_the_middle_of_an_epoch_are_counted(tmp_path, clock):
    """Of 120 steps: multiples of 12 (two epochs) and of 7, the common one once."""
    estimated = of(tmp_path, slow(clock), training={**LONG["training"], "eval_steps": 7})
    assert estimated.evaluations == 10 + 17 - 1


def test_a_short_run_is_timed_in_full(tmp_path, clock):
    estimated = of(tmp_path, slow(clock), training={"max_steps": 8})
    before = clock.now
    toy.run(tmp_path, slow(clock), training={"max_steps": 8})
    assert estimated.timed == 7 and estimated.training == pytest.approx(clock.now - before, rel=0.1)


def test_it_leaves_nothing_behind(tmp_path, clock):
    (tmp_path / "some").mkdir()
    of(tmp_path, slow(clock))
    assert list(tmp_path.rglob("*")) == [tmp_path / "some"]


def test_a_run_under_way_is_estimated_from_where_it_stands_and_not_touched(tmp_path, clock):
    with pytest.raises(Interrupted):
        toy.run(tmp_path, toy.stopped(49), **LONG)
    before = tree(tmp_path)
    estimated = of(tmp_path, slow(clock), **LONG)
    assert tree(tmp_path) == before
    assert (estimated.begin, estimated.steps, estimated.evaluations) == (50, 70, 6)
    assert "is at step 50" in estimated.notes[0]
    fresh = of(tmp_path, slow(clock), resume="never", **LONG)
    assert (fresh.begin, fresh.steps) == (0, 120)


def test_a_run_that_would_be_set_aside_is_named_and_left(tmp_path, clock):
    toy.run(tmp_path)
    before = tree(tmp_path)
    estimated = of(tmp_path, slow(clock), optim={"lr": 0.02})
    assert tree(tmp_path) == before and estimated.begin == 0
    assert "set aside" in estimated.notes[0] and "optim.lr: 0.01 -> 0.02" in estimated.notes[0]


def test_a_finished_run_is_reported_as_finished(tmp_path, capsys):
    toy.run(tmp_path)
    assert of(tmp_path) is None
    assert "is trained: 18 steps" in capsys.readouterr().out


def test_a_checkpoint_that_a_config_names_is_where_it_continues(tmp_path, clock):
    toy.run(tmp_path / "one", training={"epochs": 2})
    source = tmp_path / "one/checkpoints/toy/last.pt"
    estimated = of(tmp_path / "two", slow(clock), training={"epochs": 20, "resume_from": str(source)})
    assert estimated.begin == 12


def test_batches_that_loaders_had_prepared_do_not_count_for_their_speed(tmp_path, clock):
    """The first batches are there at once; the others come as slowly as they are made."""
    steps = []

    class Prepared(toy.ToyRecipe):
        def losses(self, model, batch, progress):
            steps.append(progress.step)
            clock.now += 0.1 if len(steps) <= 6 else 5.0
            return super().losses(model, batch, progress)

    estimated = of(tmp_path, Prepared, data={"num_workers": 2, "prefetch_factor": 3}, training={"epochs": 20})
    assert estimated.step == 5.0


def test_a_long_validation_is_timed_in_part(tmp_path, clock):
    calls = []

    class Judging(slow(clock, validation=4.0)):
        def validate(self, model, batch):
            calls.append(1)
            return super().validate(model, batch)

    estimated = of(tmp_path, Judging, val_rows=400, **LONG)
    assert estimated.evaluation == pytest.approx(400.0) and len(calls) < 10


def test_out_of_memory_is_handled_as_in_a_training(tmp_path, clock):
    class Small(slow(clock)):
        def losses(self, model, batch, progress):
            if len(batch["x"]) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().losses(model, batch, progress)

    assert of(tmp_path, Small, train_rows=24, **LONG).step == 4.0  # two micro-batches a step


def test_early_stopping_is_reported_as_the_earliest_end(tmp_path):
    stopping = {"enabled": True, "patience": 3}
    estimated = of(tmp_path, training={**LONG["training"], "early_stopping": stopping})
    assert (estimated.least_evaluations, estimated.evaluations) == (4, 10)
    held = of(tmp_path, training={**LONG["training"], "early_stopping": stopping, "min_epochs": 16})
    assert held.least_evaluations == 8
    assert of(tmp_path, **LONG).least_evaluations == 10


def test_the_estimate_raises_the_errors_of_the_training(tmp_path):
    from training.errors import DataError

    with pytest.raises(DataError, match="holds no example"):
        of(tmp_path, val_rows=0)
    assert not list(tmp_path.rglob("*"))


def test_a_second_estimate_at_the_same_time_is_refused(tmp_path):
    with exclusive(tmp_path / SCRATCH, "estimating"), pytest.raises(HostError, match="in use"):
        of(tmp_path)


def test_what_a_killed_estimate_left_is_removed(tmp_path):
    (tmp_path / SCRATCH / "checkpoints").mkdir(parents=True)
    of(tmp_path)
    assert not (tmp_path / SCRATCH).exists()


# -- output --------------------------------------------------------------------------------------------------------


@pytest.fixture
def steady(monkeypatch):
    """A host that is as slow now as it was a moment ago."""
    monkeypatch.setattr(account, "slowness", lambda: 1.0)


ESTIMATE = Estimate(
    title="Toy", place="CPU", begin=0, steps=1000, steps_per_epoch=100, step=3.0, spread=(2.5, 3.5), timed=30,
    error=0.1, drift=0.0, waiting=0.0, start=60.0, evaluation=50.0, evaluations=10, least_evaluations=10, save=0.0,
    saves=10, last_save=5.0, ending=35.0, millions=1.0,
)  # fmt: skip


def shown(tmp_path, capsys, limit):
    show(
        ESTIMATE, Account(Workspace(tmp_path), limit, RecordedJob(ledger_path(Workspace(tmp_path))), 1.0), "toy", 1, []
    )
    return capsys.readouterr().out


def test_the_sum_is_reported_in_hours_and_money(tmp_path, capsys):
    assert ESTIMATE.all == 60 + 3000 + 500 + 5 + 35
    estimated = shown(tmp_path, capsys, Limit(price=2.0))
    assert "1:00:00" in estimated and "2.00 USD at 2 USD/h" in estimated and "end at" in estimated
    assert "--price-per-hour" in shown(tmp_path, capsys, Limit())


def test_the_epochs_that_fit_into_a_budget_are_reported(tmp_path, capsys, steady):
    """Half an hour, less the reserve, the start, and the last evaluation and save, at 3.5 s a step and evaluations."""
    ours = Account(Workspace(tmp_path), Limit(hours=0.5), RecordedJob(ledger_path(Workspace(tmp_path))), 1.0)
    allowed = ours.training_left("toy", 1, [], toy=1.0)()
    steps = ESTIMATE.steps_within(allowed)
    assert steps == int((allowed - 60 - 50 - 5) / 3.5) and 300 < steps < 500
    estimated = shown(tmp_path, capsys, Limit(hours=0.5))
    assert f"About {steps:,} of 1,000 steps fit ({steps / 100:.1f} of 10.0 epochs)" in estimated
    assert "It fits, with" in shown(tmp_path, capsys, Limit(hours=5))


def test_a_run_with_a_limit_of_minutes_is_estimated_to_end_within_it():
    found = ESTIMATE.ended_within(600.0)
    assert 540 <= found.training <= 600
    assert found.steps == ESTIMATE.steps_within(600.0) < 1000 and found.evaluations == found.saves == 2
    assert f"training.max_minutes ends it after about {found.steps:,} of 1,000 steps." in found.notes
    assert ESTIMATE.ended_within(1e5) == ESTIMATE


def test_an_estimate_does_not_count_as_used_time(tmp_path, capsys):
    shown(tmp_path, capsys, Limit(hours=1))
    assert not list(tmp_path.iterdir())
