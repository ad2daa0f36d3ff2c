"""The ensemble: it is fitted on out-of-fold predictions alone, and leaves as one file."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch

from training.domains.market.decisions import BAR
from training.domains.market.networks.windows import complete, views
from training.domains.market.stacking.combining import Combination, Problem
from training.domains.market.stacking.members import final, log_probabilities, out_of_fold
from training.domains.market.stacking.recipe import Ensemble, EnsembleSettings
from training.errors import UsageError
from training.export.proof import compare, session, trial_inputs, truth

from . import test_networks as networks
from . import test_trees_exact as trees
from .random_decisions import BARS, some_decisions, splits


def trained(recipe, model, digest: str = "0"):
    return SimpleNamespace(recipe=recipe, model=model, sha256=digest)


@pytest.fixture(scope="module")
def members():
    """Two families of trees, and two of networks with different windows, hardly trained."""
    found = {}
    for kind in (trees.XGBoost, trees.CatBoost):
        made, state = trees.begun(kind)
        state = made.advance(state, 4)
        found[kind.family] = trained(made, made.load(made.dump(state), None, {}))
    for kind in (networks.Gru, networks.Tcn):
        made, model, _ = networks.built(kind)
        found[kind.family] = trained(made, model.eval())
    return found


@pytest.fixture
def ensemble(members):
    made = Ensemble(EnsembleSettings())
    made.needed = dict(members)
    return made


def test_out_of_fold_predictions_are_those_of_the_model_that_does_not_know_the_decision(members):
    decisions = some_decisions()
    index = np.arange(2 * BARS, 20 * BARS)
    for one in members.values():
        found = out_of_fold(one, decisions, index)
        for number, (fit, held) in enumerate(one.recipe.settings.folds.of(decisions, index)):
            assert not set(fit) & set(held)
            every = one.model.predict(number, decisions.features, decisions.run, decisions.decided)
            assert np.array_equal(found[held], every[index[held]], equal_nan=True)
        every = one.model.predict(-1, decisions.features, decisions.run, decisions.decided)
        assert np.array_equal(final(one, decisions, index), every[index], equal_nan=True)


def test_the_ensemble_learns_from_out_of_fold_rows_and_is_restored(ensemble):
    rows = splits(some_decisions())
    state = ensemble.begin(rows, {}, 42)
    before = ensemble.score(state, "train")["loss"]
    assert before == pytest.approx(state.losses[-1]), "it begins with equal weights"
    inside = complete(some_decisions().run, 8)[: 20 * BARS]
    assert len(state.problems["train"].label) == inside.sum(), "the longest window decides which decisions are used"
    state = ensemble.advance(state, 6)
    assert ensemble.score(state, "train")["loss"] < before
    assert state.best in {"xgboost", "catboost"}, "the networks are not trained"
    again = ensemble.load(ensemble.dump(state), rows, {})
    assert ensemble.dump(ensemble.advance(again, 1)) == ensemble.dump(ensemble.advance(state, 1))


def test_a_member_that_was_trained_again_is_refused_with_the_remedy(ensemble, members):
    state = ensemble.begin(splits(some_decisions()), {}, 42)
    ensemble.needed = members | {"gru": trained(members["gru"].recipe, members["gru"].model, "1")}
    with pytest.raises(UsageError, match=r"gru, which was trained again.*train ensemble"):
        ensemble.load(ensemble.dump(state), None, {})
    ensemble.needed = {}
    with pytest.raises(UsageError, match="is not there"):
        ensemble.load(ensemble.dump(state), None, {})
    with pytest.raises(UsageError, match="none is trained"):
        ensemble.begin(splits(some_decisions()), {}, 42)


def context_of(model, root, split="val"):
    rows = splits(some_decisions(), str(root))
    return SimpleNamespace(model=model, train=rows["train"], held_out=rows["val"], split=split)


def test_the_ensemble_is_judged_beside_its_best_member_and_equal_weights(ensemble, tmp_path):
    state = ensemble.advance(ensemble.begin(splits(some_decisions()), {}, 42), 4)
    found = ensemble.evaluate(context_of(state, tmp_path))
    assert {f"{state.best} alone", "equal weights"} <= set(found.metrics["log_loss"].baselines)
    assert found.more["market"]["use"] in {f"{state.best} alone", "equal weights", "ensemble"}
    assert found.verdict.why[0].startswith(("Use ", "Better than each member"))
    same = SimpleNamespace(best="xgboost", finals=state.finals, combined=lambda given: given["xgboost"],
                           equal=lambda given: given["gru"])  # fmt: skip
    found = ensemble.evaluate(context_of(same, tmp_path))
    assert found.verdict.why[0].startswith("Use xgboost alone instead, which is simpler. ")
    assert found.more["market"]["use"] == "xgboost alone"


def test_every_family_is_judged_once_as_a_trial_and_not_again_when_the_test_is_opened(members, tmp_path):
    trials = tmp_path / "runs" / "trials.jsonl"
    for number, one in enumerate(members.values(), 1):
        for split in ("val", "test"):
            found = one.recipe.evaluate(context_of(one.model, tmp_path, split))
            assert "log_loss" in found.metrics and len(trials.read_text().splitlines()) == number


def test_one_file_holds_all_members_and_is_right_on_thresholds(ensemble, members, tmp_path):
    state = ensemble.advance(ensemble.begin(splits(some_decisions()), {}, 42), 4)
    (graph,) = ensemble.graphs(state)
    graph.write(tmp_path / "ensemble.onnx")
    onnx.checker.check_model(tmp_path / "ensemble.onnx", full_check=True)
    run, wanted = session(tmp_path / "ensemble.onnx"), truth(graph)
    trials = compare(run, [(sizes, given, wanted(given)) for sizes, given in trial_inputs(graph)])
    assert all(trial.worst < 1e-5 for trial in trials), trials
    assert set(trials[0].errors) == {"proba", "proba_xgboost", "proba_catboost", "proba_gru", "proba_tcn"}

    # windows of the data, against the predictions for the complete series
    decisions = some_decisions()
    index = np.flatnonzero(complete(decisions.run, 8))[:300]
    window = np.ascontiguousarray(views(decisions.features, 8)[index - 7])
    proba = state.combined(state.finals(decisions, index))
    assert np.abs(run({"window": window})["proba"] - proba).max() < 1e-5
    assert np.array_equal(proba, state.predict(-1, decisions.features, decisions.run, decisions.decided)[index])


def test_the_combination_finds_the_member_that_knows_something():
    random = np.random.default_rng(0)
    label = random.integers(3, size=2000)
    good = np.eye(3)[label] * 0.4 + 0.2
    logs = log_probabilities({"good": good.astype(np.float32), "bad": random.dirichlet(np.ones(3) * 9, 2000)})
    problem = Problem(logs, label, np.ones(2000))
    one = Combination.equal(2, 3)
    losses = [problem.loss(one)]
    for _ in range(8):
        one = problem.improved(one, 0.01)
        losses.append(problem.loss(one))
    assert losses[-1] < 0.7 * losses[0] and losses[-1] < problem.loss(Combination(one.weights[::-1], one.bias))
    still = problem.improved(one, 0.01)
    assert np.abs(still.weights - one.weights).max() < 1e-6, "it has converged"
    near = Combination.equal(2, 3)
    for _ in range(8):
        near = problem.improved(near, 1e6)
    assert np.abs(near.weights - Combination.equal(2, 3).weights).max() < 1e-3, "l2 holds it at equal weights"


def test_a_decision_has_a_place_in_its_batch_that_follows_from_its_time():
    decided = some_decisions().decided
    assert (np.diff(decided // BAR)[: BARS - 1] == 1).all()
    assert torch.get_default_dtype() == torch.float32
