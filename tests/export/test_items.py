"""A family with one model per item: the files of each run are in a folder named after its item."""

from __future__ import annotations

import shutil

import pytest

from tests.export import toy_fitted
from tests.export.conftest import fitted_workspace
from tests.export.test_export_stage import receipt_of, stamps
from tests.export.test_verify import accept, edit_receipt, problems_of
from training.errors import ExportError, UsageError
from training.export import receipt
from training.export.layout import Layout
from training.stages import export as stage
from training.stages.verify import verify
from training.workspace import PROJECT, Workspace

RUNS = ("toy_fitted/left", "toy_fitted/right")


@pytest.fixture
def items(tmp_path) -> Workspace:
    """Two runs, exported."""
    workspace = fitted_workspace(tmp_path / "out", *RUNS)
    stage.export(dict.fromkeys(RUNS), workspace, cost={RUNS[0]: {"money": 1.5, "currency": "USD"}})
    return workspace


def test_the_files_of_an_item_are_in_its_folder_under_the_usual_names(items, capsys):
    families = receipt_of(items)["families"]
    assert set(families) == set(RUNS)
    for run, item in zip(RUNS, ("left", "right"), strict=True):
        below = {name.removeprefix(f"{item}/") for name in families[run]["files"]}
        assert {"toy_trees.onnx", "golden/toy_trees.npz", "toy.table", "samples/toy_fitted/note.txt"} <= below
        assert all(name.startswith(f"{item}/") and (items.exports / name).exists() for name in families[run]["files"])
        assert families[run]["title"] == "Toy fitted"  # whatever shows it adds the item
    assert families[RUNS[0]]["cost"]["money"] == 1.5 and families[RUNS[1]]["cost"]["money"] is None
    assert {path.name for path in items.exports.iterdir()} == {"left", "right", "receipt.json", ".lock"}
    verify(items.exports)
    assert "left/toy_filter_step.onnx" in capsys.readouterr().out


def test_only_items_that_are_not_up_to_date_are_exported_again(items, capsys):
    before = stamps(items)
    stage.export(dict.fromkeys(RUNS), items)
    assert stamps(items) == before and capsys.readouterr().out.count("up to date") == 2
    (items.checkpoints(RUNS[0]) / "best.pt").write_text("another")
    stage.export(dict.fromkeys(RUNS), items)
    changed = {name for name, at in stamps(items).items() if before[name] != at}
    assert changed and all("/left/" in name or name.endswith("receipt.json") for name in changed)


def test_every_item_is_verified_with_its_own_golden_files(items, capsys):
    shutil.copy(items.exports / "left/toy_trees.onnx", items.exports / "left/stray.onnx")
    verify(items.exports)
    assert "left/stray.onnx is not in the receipt" in capsys.readouterr().out
    toy_fitted.tree_writer(toy_fitted.STUMPS * 2)(items.exports / "right/toy_trees.onnx")
    accept(items.exports, RUNS[1], "right/toy_trees.onnx")
    problems = problems_of(items.exports)
    assert "right/toy_trees.onnx differs from its model" in problems and "left/" not in problems
    edit_receipt(items.exports, lambda families: families[RUNS[0]]["files"].pop("left/golden/toy_trees.npz"))
    assert "left/golden/toy_trees.npz: the receipt does not list it" in problems_of(items.exports)


def test_an_item_and_a_family_without_one_share_a_folder_of_exports(items):
    workspace = fitted_workspace(items.root, "toy_fitted")
    stage.export({"toy_fitted": None}, workspace)
    assert set(receipt_of(items)["families"]) == {"toy_fitted", *RUNS}
    verify(items.exports)


def test_files_that_an_item_no_longer_has_are_deleted_and_those_of_others_kept(items, monkeypatch):
    (items.checkpoints(RUNS[0]) / "best.pt").write_text("another")
    monkeypatch.setattr(toy_fitted.FittedRecipe, "artefacts", lambda self, model: [])
    stage.export({RUNS[0]: None}, items)
    assert not (items.exports / "left/toy.table").exists() and not (items.exports / "left/trees/all").exists()
    assert (items.exports / "right/toy.table").exists() and (items.exports / "right/trees/all").is_dir()
    verify(items.exports)


@pytest.mark.parametrize(
    "item", ["", "..", ".hidden", "a/b", "a\\b", "a\nb", "golden", "samples", "receipt.json", "C:x"]
)
def test_an_item_that_cannot_be_the_name_of_a_folder_is_refused_before_anything_is_read(tmp_path, item):
    with pytest.raises(ExportError, match="is not the name of a run"):
        stage.export({f"toy_fitted/{item}": None}, Workspace(tmp_path))
    assert not (tmp_path / "exports").exists()


def test_a_receipt_with_an_item_that_leads_out_of_the_folder_does_not_verify(items):
    edit_receipt(items.exports, lambda families: families.update({"toy_fitted/..": families[RUNS[0]]}))
    assert "`toy_fitted/..` is not the name of a run" in problems_of(items.exports)


def test_an_item_named_like_a_file_of_another_run_is_refused(items):
    run = "toy_fitted/toy.table"
    fitted_workspace(items.root, "toy_fitted", run)
    stage.export({"toy_fitted": None}, items)
    with pytest.raises(ExportError, match="same name"):
        stage.export({run: None}, items)
    verify(items.exports)


def test_the_names_of_a_run_without_an_item():
    layout = Layout.of("toy")
    assert (layout.run, layout.weights, layout.int8_check) == ("toy", "toy.safetensors", "golden/toy_exam.npz")
    assert layout.golden("g") == "golden/g.npz" and layout.samples == "samples/toy" and layout.onnx("g") == "g.onnx"


# the code digest of an export, and numbers in the receipt


def test_the_code_digest_of_an_export_covers_only_its_own_domain(tmp_path, monkeypatch):
    monkeypatch.undo()  # the fixture's stand-in for code_version
    music = PROJECT / "training/domains/music"
    assert stage.code_folders("midi_generator") == stage.code_folders("spectocloud") == [music]
    with pytest.raises(UsageError, match="no model family"):
        stage.code_folders("nothing/left")
    own, other = (shutil.copytree(music, tmp_path / name / "music") for name in ("own", "other"))
    before = receipt.code_version(own)
    assert receipt.code_version(other) == before != receipt.code_version()
    (other / "emotion.py").write_text("# changed")
    assert receipt.code_version(own) == before != receipt.code_version(other)


@pytest.mark.parametrize("changed", ["graphs.py", "export/onnx.py", "stages/export.py", "data/store.py"])
def test_files_of_an_older_exporter_are_made_again(changed, tmp_path, monkeypatch):
    monkeypatch.undo()
    kept = shutil.ignore_patterns("domains", "colab", "play", "report", "__pycache__")
    shutil.copytree(PROJECT / "training", tmp_path / "training", ignore=kept)
    before = receipt.code_version()
    monkeypatch.setattr(receipt, "PROJECT", tmp_path)
    assert receipt.code_version() == before
    (tmp_path / "training" / changed).write_text("# changed")
    assert receipt.code_version() != before


def test_a_number_that_is_not_finite_is_null_in_the_receipt_and_shown_as_infinite(tmp_path):
    from training.export.table import file_summary

    entry = {
        "synthetic": False, "graphs": {}, "metrics": {"a": float("nan"), "b": [float("inf"), 1.0]},
        "files": {"x.int8.onnx": {"kind": "int8", "change": {
            "fp32": {"loss": 0.0}, "int8": {"loss": 0.5}, "relative_change": {"loss": float("inf")}}}},
    }  # fmt: skip
    receipt.merge_family(tmp_path, "toy", entry)
    read = receipt.read_receipt(tmp_path)["families"]["toy"]
    assert read["metrics"] == {"a": None, "b": [None, 1.0]}
    assert read["files"]["x.int8.onnx"]["change"]["relative_change"] == {"loss": None}
    assert (
        file_summary(read["files"]["x.int8.onnx"]) == file_summary(entry["files"]["x.int8.onnx"]) == "loss 0.5 (+inf%)"
    )
