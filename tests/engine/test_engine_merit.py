"""Which checkpoint is the best one (direction, constraint), evaluations in the middle of an epoch, metrics from vectors
and from `appraise`."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from tests.engine import toy
from training.engine.checkpoints.checkpoint_file import read
from training.engine.checkpoints.checkpoint_folder import CheckpointFolder
from training.errors import Interrupted, UsageError
from training.settings import Constraint


class Scripted(toy.ToyRecipe):
    """Each evaluation gives the next numbers of a script: (error, score). The first call is for the sanity check."""

    script = ((9.0, 9.0),)

    def summarise(self, averages):
        at = min(self.judged, len(self.script) - 1)
        self.judged += 1
        error, score = self.script[at]
        return {"val_loss": error, "score": score}

    judged = -1  # the sanity check summarises once


def scripted(*script):
    return type("Here", (Scripted,), {"script": script})


def index(root):
    return CheckpointFolder(root / "checkpoints/toy").listed()


def run(root, kind, **stopping):
    settings = {"epochs": kind.script and len(kind.script), "early_stopping": {"enabled": False, **stopping}}
    return toy.run(root, kind, training=settings)


FALLING_AND_RISING = ((3.0, 0.1), (2.0, 0.5), (1.0, 0.3))


def test_the_best_checkpoint_has_the_highest_value_where_higher_is_better(tmp_path):
    trained = run(tmp_path, scripted(*FALLING_AND_RISING), monitor="score", direction="higher")
    assert trained.metrics["score"] == 0.5
    assert index(tmp_path)["best.pt"].value == -0.5  # of the index, lower is better


def test_the_best_is_the_best_of_those_within_the_constraint(tmp_path):
    script = ((1.0, 0.9), (3.0, 0.2), (2.0, 0.1), (0.5, 0.8))
    trained = run(tmp_path, scripted(*script), constraint={"metric": "score", "at_most": 0.25})
    assert trained.metrics == {"val_loss": 2.0, "score": 0.1}
    assert index(tmp_path)["best.pt"].value == 2.0
    log = (trained.run / "log.txt").read_text()
    assert "(best, but score <= 0.25 is not satisfied)" in log and "No evaluation satisfied" not in log


def test_without_a_feasible_evaluation_the_smallest_violation_is_best_and_reported(tmp_path):
    script = ((1.0, 0.2), (2.0, 0.6), (0.5, 0.4))
    trained = run(tmp_path, scripted(*script), constraint={"metric": "score", "at_least": 0.7})
    assert trained.metrics["score"] == 0.6
    assert index(tmp_path)["best.pt"].value is None
    messages = (trained.run / "log.txt").read_text()
    assert (
        "No evaluation satisfied training.early_stopping.constraint (score >= 0.7)" in messages
        and "score 0.6" in messages
    )


def test_early_stopping_counts_a_smaller_violation_as_an_improvement(tmp_path):
    """The monitored value gets worse with each evaluation, while the constrained metric improves until its bound."""
    script = ((1.0, 0.1), (2.0, 0.2), (3.0, 0.3), (4.0, 0.4), (5.0, 0.4), (6.0, 0.4))
    rule = {"enabled": True, "patience": 2, "min_delta": 0.0}
    free = run(tmp_path / "free", scripted(*script), **rule)
    bound = run(tmp_path / "bound", scripted(*script), **rule, constraint={"metric": "score", "at_least": 0.4})
    assert (free.epoch, bound.epoch) == (3, 6)


def test_the_best_evaluation_is_kept_over_a_restart(tmp_path):
    """The smallest violation before the stop is compared with later evaluations."""
    script = ((1.0, 0.5), (1.0, 0.3), (1.0, 0.4), (1.0, 0.1))
    rule = {"constraint": {"metric": "score", "at_least": 0.7}}
    straight = run(tmp_path / "straight", scripted(*script), **rule)

    class Stopped(scripted(*script)):
        signal_at = 14  # in the third epoch of six steps

    with pytest.raises(Interrupted):
        run(tmp_path / "stopped", Stopped, **rule)
    rest = type("Rest", (Scripted,), {"script": script, "judged": 1})
    again = run(tmp_path / "stopped", rest, **rule)
    assert again.metrics == straight.metrics == {"val_loss": 1.0, "score": 0.5}


def test_a_changed_rule_is_applied_to_the_best_evaluation_so_far(tmp_path):
    """The best evaluation by the loss is compared by its score once the rule is a high score."""
    script = (*FALLING_AND_RISING, (9.0, 0.2))
    toy.run(tmp_path, scripted(*script), training={"epochs": 3})  # best: value 1, score 0.3
    more = type("More", (Scripted,), {"script": script, "judged": 2})
    rule = {"enabled": False, "monitor": "score", "direction": "higher"}
    trained = toy.run(tmp_path, more, training={"epochs": 4, "early_stopping": rule})
    assert trained.metrics == {"val_loss": 1.0, "score": 0.3}


@pytest.mark.parametrize(
    "bounds", [{"at_most": 1.0}, {"metric": "score"}, {"metric": "x", "at_most": 1.0, "at_least": 0.0}]
)
def test_a_constraint_has_a_metric_and_one_bound(bounds):
    with pytest.raises(ValueError, match="exactly one of at_most and at_least"):
        Constraint(**bounds)


def test_evaluations_and_checkpoints_follow_eval_steps_and_save_steps(tmp_path):
    trained = toy.run(tmp_path, training={"epochs": 2, "eval_steps": 4, "save_steps": 5, "keep": 2})
    lines = (trained.run / "metrics.jsonl").read_text().splitlines()
    validated = [record["step"] for record in map(json.loads, lines) if record["kind"] == "validation"]
    assert validated == [4, 6, 8, 12]
    kept = {path.name for path in trained.last.parent.glob("checkpoint_*")}
    assert kept == {"checkpoint_step_5.pt", "checkpoint_step_10.pt"}
    assert read(trained.last.with_name("checkpoint_step_10.pt"))["progress"]["step"] == 10


def validated_steps(trained) -> list[int]:
    lines = (trained.run / "metrics.jsonl").read_text().splitlines()
    return [record["step"] for record in map(json.loads, lines) if record["kind"] == "validation"]


def test_initial_weights_that_are_a_result_stay_the_best_if_training_makes_them_worse(tmp_path):
    worse = type("Worse", (Scripted,), {"script": ((1.0, 0.9), (2.0, 0.5), (3.0, 0.3)), "starts_trained": True})
    trained = toy.run(tmp_path, worse, training={"epochs": 2})
    assert validated_steps(trained) == [0, 6, 12]
    assert index(tmp_path)["best.pt"].step == 0 and trained.metrics == {"val_loss": 1.0, "score": 0.9}
    best, last = (read(trained.last.with_name(name)) for name in ("best.pt", "last.pt"))
    assert best["progress"]["step"] == 0 and last["progress"]["step"] == 12
    assert any(not torch.equal(best["model"][name], last["model"][name]) for name in best["model"])


def test_initial_weights_that_are_a_result_are_replaced_by_better_ones(tmp_path):
    better = type("Better", (Scripted,), {"script": ((3.0, 0.1), (2.0, 0.5), (1.0, 0.3)), "starts_trained": True})
    toy.run(tmp_path, better, training={"epochs": 2})
    assert index(tmp_path)["best.pt"].step == 12


def test_other_initial_weights_are_not_evaluated(tmp_path):
    trained = toy.run(tmp_path, scripted(*FALLING_AND_RISING), training={"epochs": 2})
    assert validated_steps(trained) == [6, 12]


def test_evaluating_more_often_changes_no_weight(tmp_path):
    often = toy.run(tmp_path / "often", training={"eval_steps": 1, "save_steps": 1}, model={"dropout": 0.2})
    seldom = toy.run(tmp_path / "seldom", model={"dropout": 0.2})
    mine, theirs = (read(trained.last)["model"] for trained in (often, seldom))
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


# -- vectors -------------------------------------------------------------------------------------------------------


class PerRemainder(toy.ToyRecipe):
    """How many samples of each remainder by 3 there are, as a vector; the largest share is reported."""

    def validate(self, model, batch):
        numbers = batch["number"] % 3
        shares = torch.stack([(numbers == remainder).float().sum() for remainder in range(3)])
        return {**super().validate(model, batch), "share": (shares, float(len(numbers)))}

    def summarise(self, averages):
        shares = averages["share"]
        assert isinstance(shares, np.ndarray) and shares.shape == (3,)
        return {"val_loss": averages["val_loss"], "largest": shares.max(), "sum": shares.sum()}


def test_sums_may_be_vectors_whose_means_are_exact(tmp_path):
    """Of 1000 to 1009, four have the remainder 1. The last batch has two samples, and counts as two."""
    trained = toy.run(tmp_path, PerRemainder, val_rows=10)
    assert trained.metrics["largest"] == 0.4 and trained.metrics["sum"] == pytest.approx(1.0)


def test_a_vector_as_a_metric_is_refused_before_the_first_step(tmp_path):
    class Raw(PerRemainder):
        def summarise(self, averages):
            return dict(averages)

    with pytest.raises(UsageError, match=r"Raw\.summarise must give one number a metric; these are vectors: share"):
        toy.run(tmp_path, Raw)
    assert toy.ToyRecipe.log == []


# -- appraisal -----------------------------------------------------------------------------------------------------


class Generating(toy.ToyRecipe):
    """Its metric is the mean number of the rows that it gets."""

    seen: list = []  # noqa: RUF012

    def appraise(self, model, rows, seconds):
        assert not model.training and not torch.is_grad_enabled()
        numbers = [row.values["number"] for row in rows]
        self.seen.append(numbers)
        return {"number": (float(sum(numbers)), len(numbers))}


def test_appraised_metrics_join_the_others_and_may_be_monitored(tmp_path):
    Generating.seen.clear()
    stopping = {"enabled": False, "monitor": "number", "direction": "higher"}
    trained = toy.run(tmp_path, Generating, training={"appraise_rows": 4, "early_stopping": stopping})
    assert trained.metrics["number"] == 1001.5 and "val_loss" in trained.metrics
    assert Generating.seen[0] == [1000]  # the sanity check takes one
    assert Generating.seen[1:] == [[1000, 1001, 1002, 1003]] * 3


def test_without_appraise_rows_appraise_is_not_called_and_cannot_be_monitored(tmp_path):
    Generating.seen.clear()
    toy.run(tmp_path, Generating)
    assert Generating.seen == []
    with pytest.raises(UsageError, match=r"monitor: `number` is not .* where training\.appraise_rows is above 0"):
        toy.run(tmp_path, Generating, training={"early_stopping": {"monitor": "number"}})


def test_an_appraised_metric_without_a_count_is_nan_and_the_run_finishes(tmp_path):
    class Slow(Generating):
        def appraise(self, model, rows, seconds):
            return {"number": (0.0, 0)} if len(rows) > 1 else super().appraise(model, rows, seconds)

    trained = toy.run(tmp_path, Slow, training={"appraise_rows": 4})
    assert math.isnan(trained.metrics["number"]) and trained.finished


def test_appraisal_leaves_the_random_numbers_of_the_steps_alone(tmp_path):
    class Drawing(Generating):
        def appraise(self, model, rows, seconds):
            torch.rand(7)
            return super().appraise(model, rows, seconds)

    plain = toy.run(tmp_path / "plain", model={"dropout": 0.3})
    drawing = toy.run(tmp_path / "drawing", Drawing, training={"appraise_rows": 4}, model={"dropout": 0.3})
    mine, theirs = (read(trained.last)["model"] for trained in (plain, drawing))
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
