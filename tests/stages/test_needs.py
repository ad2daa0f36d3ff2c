"""A family that needs another one gets its trained model; runs of items have separate names; the sealed split is
evaluated separately."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests import toys
from tests.engine import toy, toy_fitted
from training.data.rows import Row
from training.engine.checkpoints.checkpoint_file import read
from training.engine.checkpoints.checkpoint_folder import CheckpointFolder
from training.errors import UsageError
from training.stages.estimate import estimate
from training.stages.evaluate import evaluate
from training.stages.train import train
from training.stages.trained import load_trained, needed_runs
from training.workspace import Workspace

ROWS = {
    "train": [Row({"number": n, "id": f"{n}"}, f"toy:{n}") for n in range(22)],
    "val": [Row({"number": n, "id": f"{n}"}, f"toy:{n}") for n in range(1000, 1009)],
    "test": [Row({"number": n, "id": f"{n}"}, f"toy:{n}") for n in range(2000, 2005)],
}


class Stacked(toy_fitted.BoostedRecipe):
    """Of the toy, what it has learnt is a feature."""

    family = "stacked"
    given: list = []  # noqa: RUF012
    contexts: list = []  # noqa: RUF012

    def begin(self, rows, constants, seed):
        self.given.append(self.needed["toy"])
        return super().begin(rows, constants, seed)

    def evaluate(self, context):
        self.contexts.append(context)
        context.train_baseline(self, "again", None, 5)
        return super().evaluate(context)


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    toys.register(monkeypatch, toy.ToyRecipe, Stacked)
    added = toys.ADDED["tests"]
    facts = {one.name: one for one in added.families}
    added.families = (facts["toy"], replace(facts["stacked"], needs=("toy",)))
    opened = []

    def load_split(recipe, workspace, split, *, options=None, opening="", checkpoint_sha256=""):
        assert bool(opening) == bool(checkpoint_sha256) == (split == "test")
        opened.extend([opening] * (split == "test"))
        return ROWS[split]

    monkeypatch.setattr("training.stages.splits.load_split", load_split)
    Stacked.given.clear()
    Stacked.contexts.clear()
    space = Workspace(tmp_path)
    sealed = space.manifest("toy", "test")
    sealed.parent.mkdir(parents=True)
    sealed.write_text("".join(json.dumps(row.values) + "\n" for row in ROWS["test"]), encoding="utf-8")
    space.__dict__["opened"] = opened
    return space


def base(workspace, **sections):
    recipe = toy.recipe(**{"training": {"epochs": 1}, **sections})
    return train(recipe, workspace, device="cpu")


def stack(workspace):
    return train(toy_fitted.recipe(Stacked), workspace, device="cpu")


def test_training_is_refused_until_the_needed_family_is_trained(workspace):
    for verb in (lambda: stack(workspace), lambda: estimate(toy_fitted.recipe(Stacked), workspace, device="cpu")):
        with pytest.raises(UsageError, match=r"stacked needs toy, which is not trained.*python -m training train toy"):
            verb()
    assert not list(workspace.checkpoints("stacked").glob("*.pt"))
    best = base(workspace).best
    stack(workspace)
    given = Stacked.given[0]
    assert given.sha256 == CheckpointFolder(best.parent).listed()["best.pt"].sha256
    assert not given.model.training and given.recipe.run == "toy"


def test_a_family_that_is_only_used_may_be_missing(workspace):
    added = toys.ADDED["tests"]
    added.families = (added.families[0], replace(added.families[1], needs=(), uses=("toy",)))
    Stacked.begin, begin = toy_fitted.BoostedRecipe.begin, Stacked.begin
    try:
        first = stack(workspace)
        assert load_trained("stacked", workspace).recipe.needed == {}
    finally:
        Stacked.begin = begin
    base(workspace)
    second = stack(workspace)
    assert Stacked.given[0].recipe.run == "toy" and second.run != first.run, "a new run begins when it is trained"


def test_the_needed_model_is_available_in_the_evaluation(workspace):
    base(workspace)
    stack(workspace)
    evaluate("stacked", workspace, device="cpu")
    assert set(Stacked.contexts[0].needed) == {"toy"}
    assert Stacked.contexts[0].needed["toy"](ROWS_AS_BATCH()).shape == (1, 4)
    assert len(Stacked.given) == 2  # the baseline's `begin` got it too
    for path in workspace.checkpoints("toy").glob("*.pt"):
        path.unlink()
    with pytest.raises(UsageError, match="stacked needs toy"):
        evaluate("stacked", workspace, device="cpu")


def ROWS_AS_BATCH():
    return toy.ToyDataset(ROWS["val"], False, toy.Faults()).collate(
        [toy.ToyDataset(ROWS["val"], False, toy.Faults()).item(0, 0)]
    )["x"]


def test_training_a_needed_family_again_starts_a_new_run(workspace):
    base(workspace)
    first = stack(workspace)
    assert stack(workspace).already
    base(workspace, optim={"lr": 0.02})
    second = stack(workspace)
    assert not second.already and second.run != first.run
    assert "the data is not the same" in (second.run / "log.txt").read_text()


def test_an_item_is_a_run_with_a_separate_name(workspace):
    recipe = toy.recipe(training={"epochs": 1})
    recipe.item = "one"
    trained = train(recipe, workspace, device="cpu")
    assert trained.family == "toy/one"
    assert trained.best == workspace.root / "checkpoints/toy/one/best.pt"
    assert trained.run.parent == workspace.root / "runs/toy/one"
    assert read(trained.best)["family"] == "toy/one"
    assert load_trained("toy/one", workspace).recipe.item == "one"
    with pytest.raises(UsageError, match="is a checkpoint of toy/one, not of toy"):
        load_trained("toy", workspace, trained.best)
    evaluate("toy/one", workspace, device="cpu")
    assert set(json.loads((workspace.exports / "metrics.json").read_text())["families"]) == {"toy/one"}


def test_an_item_needs_the_same_item_of_a_family_that_fans_out(workspace):
    assert needed_runs("stacked/one") == ("toy",)
    added = toys.ADDED["tests"]
    added.families = (replace(added.families[0], fan_out=True), added.families[1])
    assert needed_runs("stacked/one") == ("toy/one",) and needed_runs("stacked") == ("toy",)


def test_the_sealed_split_is_judged_beside_the_other_when_it_is_requested(workspace):
    base(workspace)
    stack(workspace)
    path = workspace.exports / "metrics.json"
    evaluate("stacked", workspace, device="cpu")
    assert "test" not in json.loads(path.read_text())["families"]["stacked"] and not workspace.opened
    result = evaluate("stacked", workspace, device="cpu", test=True)
    written = json.loads(path.read_text())["families"]["stacked"]
    assert result["test"]["rows"]["held_out"] == 5 and written["test"]["rows"]["held_out"] == 5
    assert written["rows"]["held_out"] == 9
    assert [context.split for context in Stacked.contexts] == ["val", "test"]
    assert [len(context.held_out) for context in Stacked.contexts] == [9, 5]
    assert workspace.opened == ["evaluate --test"]
    evaluate("stacked", workspace, device="cpu", test=True)  # of the same model and rows: read back, unopened
    assert workspace.opened == ["evaluate --test"]
    evaluate("stacked", workspace, device="cpu")
    assert len(Stacked.contexts) == 2 and "test" in json.loads(path.read_text())["families"]["stacked"]
    base(workspace, optim={"lr": 0.02})
    stack(workspace)
    evaluate("stacked", workspace, device="cpu")  # another model: what was measured of the old one goes
    assert "test" not in json.loads(path.read_text())["families"]["stacked"]
