"""`evaluate`: the format of metrics.json, no second measurement, and baselines that are trained as the model was."""

from __future__ import annotations

import json
import math
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from tests import toys
from tests.engine import toy
from training import threads
from training.data import manifest
from training.data.manifest import Row
from training.data.schema import ID, Key, Schema
from training.errors import DataError
from training.judgement import About, Finding, Interval, Judgement, Metric, verdict
from training.stages import evaluate as stage
from training.stages import splits, trained
from training.stages.evaluate import evaluate
from training.workspace import Workspace

SECTIONS = {"training": {"epochs": 4, "ema_decay": 0.9}}


TABLED = Schema(f"{__name__}:TABLED", (), {"number": Key(int), "table": Key(str)}, names=(ID, "table"))
GROUPED = Schema(f"{__name__}:GROUPED", (), TABLED.keys, names=TABLED.names, group="table")


class Judged(toy.ToyRecipe):
    """Against a baseline that is trained for as many steps as the context allows."""

    contexts: list = []  # noqa: RUF012

    def evaluate(self, context):
        self.contexts.append(context)
        steps = max(1, round(context.baseline_share * context.steps))
        begin = context.model.state_dict() if context.baseline_share < 1 else None
        wide = type(self)(self.settings.model_copy(update={"seed": 7}))
        self.baseline = context.train_baseline(wide, "other_seed", begin, steps)
        loss = About("lower", "", "How wrong it is.")
        metric = Metric(loss, Interval(1.0, 0.5, math.nan), {"other_seed": Interval.exactly(2.0)})
        return Judgement({"val_loss": metric}, verdict([Finding("good", "All is well.")]), {"more": [1]})


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A workspace in which a toy was trained."""
    toys.register(monkeypatch, Judged)
    toy.run(tmp_path, Judged, **SECTIONS)
    rows = {"train": toy.rows(22), "val": toy.rows(9, 1000)}
    named = {side: [Row({**row.values, "id": row.place}, row.place) for row in some] for side, some in rows.items()}
    monkeypatch.setattr(splits, "load_split", lambda recipe, workspace, split, **_: named[split])
    monkeypatch.setattr(trained, "recipe_type", lambda family: Judged)
    Judged.contexts.clear()
    return Workspace(tmp_path)


def metrics(workspace):
    return json.loads((workspace.exports / "metrics.json").read_text())


def test_metrics_json_has_the_shape_that_the_report_reads(workspace, capsys):
    evaluate("toy", workspace, device="cpu")
    content = metrics(workspace)
    assert content["format"] == 1 and set(content["families"]) == {"toy"}
    family = content["families"]["toy"]
    assert family["title"] == "Toy" and family["synthetic"] is False
    assert family["verdict"] == {"word": "learnt", "why": ["All is well."]}
    assert family["rows"] == {"train": 22, "held_out": 9} and family["more"] == [1]
    metric = family["metrics"]["val_loss"]
    assert metric["model"] == {"value": 1.0, "low": 0.5, "high": None}  # JSON knows no nan
    assert metric["baselines"] == {"other_seed": {"value": 2.0, "low": 2.0, "high": 2.0}}
    assert (metric["better"], metric["unit"], metric["meaning"]) == ("lower", "", "How wrong it is.")
    messages = capsys.readouterr().out
    assert "Toy: LEARNT\n  All is well." in messages and "other_seed" in messages
    assert "Toy on 9 held-out rows\n" in messages
    family["songs"] = family.pop("rows")  # as older versions wrote it
    (workspace.exports / "metrics.json").write_text(json.dumps(content))
    evaluate("toy", workspace, device="cpu")
    assert "Toy on 9 held-out rows\n" in capsys.readouterr().out and "songs" in metrics(workspace)["families"]["toy"]


def test_nothing_is_measured_twice_and_other_families_are_kept(workspace):
    workspace.exports.mkdir(exist_ok=True)
    path = workspace.exports / "metrics.json"
    path.write_text(json.dumps({"format": 1, "families": {"another": {"title": "Another"}}}))
    evaluate("toy", workspace, device="cpu")
    assert set(metrics(workspace)["families"]) == {"another", "toy"}
    evaluate("toy", workspace, device="cpu")
    assert len(Judged.contexts) == 1
    evaluate("toy", workspace, device="cpu", share=1.0)  # another question
    assert len(Judged.contexts) == 2


def test_a_changed_name_of_the_rows_is_measured_again(workspace, tmp_path, monkeypatch):
    """It is no input of the model, but the judgement may use it."""

    def rows_of(split: str, table: str):
        path = tmp_path / f"{split}_{table}.jsonl"
        path.write_text("".join(json.dumps({"id": str(n), "number": n, "table": table}) + "\n" for n in range(9)))
        return manifest.load(path, TABLED, path_keys=())

    for table, measured in (("first", 1), ("first", 1), ("second", 2)):
        monkeypatch.setattr(splits, "load_split", lambda recipe, place, split, table=table, **_: rows_of(split, table))
        evaluate("toy", workspace, device="cpu")
        assert len(Judged.contexts) == measured, table


def test_changed_rows_of_the_same_names_are_measured_again(workspace, tmp_path, monkeypatch):
    """As after a correction of a held-out label, without another training."""

    def rows_of(split: str, first: int):
        path = tmp_path / f"{split}_{first}.jsonl"
        path.write_text("".join(json.dumps({"id": str(n), "number": first + n, "table": ""}) + "\n" for n in range(9)))
        return manifest.load(path, TABLED, path_keys=())

    for first, measured in ((1, 1), (1, 1), (2, 2)):
        monkeypatch.setattr(splits, "load_split", lambda recipe, place, split, first=first, **_: rows_of(split, first))
        evaluate("toy", workspace, device="cpu")
        assert len(Judged.contexts) == measured, first


def test_a_sealed_split_with_a_row_of_training_is_refused(workspace, tmp_path, monkeypatch):
    def rows_of(split: str):
        path = tmp_path / f"{split}.jsonl"
        table = "val" if split == "val" else "train"
        path.write_text(json.dumps({"id": f"{split} 1", "number": 1, "table": table}) + "\n")
        return manifest.load(path, GROUPED, path_keys=())

    monkeypatch.setattr(splits, "load_split", lambda recipe, place, split, **_: rows_of(split))
    path = workspace.manifest(toy.recipe(Judged).data, "test")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}\n")
    with pytest.raises(DataError, match=r"1 of 1 test rows are trained on too.*test 1"):
        evaluate("toy", workspace, device="cpu", test=True)


def test_what_another_evaluation_has_written_meanwhile_is_kept(workspace, monkeypatch):
    path = workspace.exports / "metrics.json"

    @contextmanager
    def after_another(file, patience, lock=stage.locked):
        """The lock, once the other one has written and released it."""
        with lock(file, patience):
            file.write_text(json.dumps({"format": 1, "families": {"another": {"title": "Another"}}}))
            yield

    monkeypatch.setattr(stage, "locked", after_another)
    evaluate("toy", workspace, device="cpu")
    assert set(json.loads(path.read_text())["families"]) == {"another", "toy"}


@pytest.mark.parametrize("content", ["{", '{"toy": {"model": {"val_loss": 1}}}'])
def test_a_metrics_file_that_is_damaged_or_of_another_format_is_written_again(workspace, content):
    workspace.exports.mkdir(exist_ok=True)
    (workspace.exports / "metrics.json").write_text(content)
    evaluate("toy", workspace, device="cpu")
    assert set(metrics(workspace)["families"]) == {"toy"}


def test_a_baseline_is_trained_as_the_judged_model_was_and_once(workspace, monkeypatch):
    """From its start and for all its steps it is, with the same seed, that very model."""
    evaluate("toy", workspace, device="cpu", share=1.0)
    context = Judged.contexts[-1]
    assert context.steps == 24
    same = context.train_baseline(toy.recipe(Judged, **SECTIONS), "twin", None, context.steps)
    best = torch.load(workspace.checkpoints("toy") / "best.pt", weights_only=True)
    for name, value in same.state_dict().items():
        torch.testing.assert_close(value, best["ema"][name], rtol=0, atol=0)
    monkeypatch.setattr("training.engine.loop.session.fit", None)
    again = context.train_baseline(toy.recipe(Judged, **SECTIONS), "twin", None, context.steps)  # read back
    assert all((a == b).all() for a, b in zip(again.state_dict().values(), same.state_dict().values(), strict=True))


class Begun(Judged):
    """Its weights do not change, so that the evaluation before the first step stays the best."""

    starts_trained = True


def test_a_training_that_a_limit_shortened_has_the_steps_that_it_took(workspace, tmp_path, monkeypatch):
    """Its best checkpoint may be from before, when more were planned: baselines would train for far too long."""
    allowed = iter([1e9] * 4)
    place = Workspace(tmp_path / "limited")
    sections = SECTIONS | {"optim": {"lr": 1e-12}}
    done = toy.run(place.root, Begun, left=lambda: next(allowed, 0.0), limit=100.0, **sections)
    best = torch.load(place.checkpoints("toy") / "best.pt", weights_only=True)["progress"]
    assert (best["step"], best["total_steps"]) == (0, 24) and 0 < done.step < 24
    evaluate("toy", place, device="cpu")
    assert Judged.contexts[-1].steps == done.step


def test_a_baseline_that_continues_from_the_model_stays_near_it(workspace):
    evaluate("toy", workspace, device="cpu", share=0.1)
    context = Judged.contexts[-1]
    near = context.train_baseline(
        toy.recipe(Judged, **SECTIONS, optim={"lr": 1e-5}), "near", context.model.state_dict(), 2
    )
    for a, b in zip(near.parameters(), context.model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-3) and not np.array_equal(a.detach().numpy(), b.detach().numpy())
    assert not list((workspace.cache / "baselines" / "toy").glob("training"))  # nothing but the weights is kept


def test_a_baseline_in_training_leaves_its_data_loader_workers_a_core(workspace, monkeypatch):
    class Counted(Judged):
        counted: set[int] = set()  # noqa: RUF012

        def losses(self, *arguments):
            self.counted.add(torch.get_num_threads())
            return super().losses(*arguments)

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "available_cpus", lambda: 4)
    evaluate("toy", workspace, device="cpu")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        Judged.contexts[-1].train_baseline(toy.recipe(Counted, **SECTIONS, data={"num_workers": 1}), "busy", None, 2)
        assert (Counted.counted, torch.get_num_threads()) == ({3}, 4)
    finally:
        torch.set_num_threads(before)


def test_baselines_of_an_older_checkpoint_are_removed(workspace):
    folder = workspace.cache / "baselines" / "toy"
    folder.mkdir(parents=True)
    (folder / "other_seed-0123.pt").write_bytes(b"old")
    evaluate("toy", workspace, device="cpu")
    assert len(list(folder.glob("other_seed-*.pt"))) == 1 and not (folder / "other_seed-0123.pt").exists()
