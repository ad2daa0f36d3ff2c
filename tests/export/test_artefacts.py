"""Artefacts, and families without a module: artefacts are proved, listed in the receipt, and proved again by verify."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.export import toy, toy_fitted
from tests.export.test_export_stage import receipt_of, stamps
from tests.export.test_verify import accept, edit_receipt, problems_of
from training.errors import ExportError
from training.graphs import Artefact
from training.stages import export as stage
from training.stages.verify import verify
from training.workspace import Workspace

TABLE, TREES = "toy.table", "trees/all"


@pytest.fixture
def fitted(fitted_once, tmp_path) -> Workspace:
    shutil.copytree(fitted_once.root, tmp_path / "fitted")
    return Workspace(tmp_path / "fitted")


def again(workspace: Workspace) -> None:
    """Export a changed model."""
    (workspace.checkpoints("toy_fitted") / "best.pt").write_text("another model")
    stage.export({"toy_fitted": None}, workspace)


def with_artefacts(monkeypatch, *artefacts: Artefact) -> None:
    monkeypatch.setattr(toy_fitted.FittedRecipe, "artefacts", lambda self, model: list(artefacts))


def table(**changes: object) -> Artefact:
    about = {"x": (5.0, 0.0, 6.0), "answer": 1.75}
    return Artefact(**{"name": TABLE, "write": toy_fitted.write_table(toy_fitted.STUMPS), "prover": "table",
                       "about": about, **changes})  # fmt: skip


def test_a_family_without_a_module_is_exported_and_verified(fitted, capsys):
    entry = receipt_of(fitted)["families"]["toy_fitted"]
    assert set(entry["files"]) == {
        *(f"{graph}.onnx" for graph in entry["graphs"]), *(f"golden/{graph}.npz" for graph in entry["graphs"]),
        TABLE, TREES, "samples/toy_fitted/note.txt",
    }  # fmt: skip
    assert set(entry["graphs"]) == {"toy_trees", "toy_filter", "toy_filter_step"}
    assert entry["weights"] is None and entry["checkpoint"]["weights"] == "model"
    verify(fitted.exports)
    output = capsys.readouterr().out
    assert f"All {len(entry['files'])} files verified" in output
    assert "proved by table: trees 2, answer 1.75" in output


def test_artefacts_are_listed_with_prover_measurement_and_digest(fitted):
    entry = receipt_of(fitted)["families"]["toy_fitted"]
    assert entry["artefacts"] == [TABLE, TREES]
    for name in (TABLE, TREES):
        about = entry["files"][name]
        assert (about["kind"], about["prover"]) == ("artefact", "table") and len(about["sha256"]) == 64
        assert about["about"] == {"x": [5.0, 0.0, 6.0], "answer": 1.75} and about["bytes"] > 0
        assert about["measured"] == {"trees": 2, "answer": 1.75}
    assert sorted(path.name for path in (fitted.exports / TREES).iterdir()) == ["0.json", "1.json"]


@pytest.mark.parametrize("name", [TABLE, TREES])
def test_a_missing_or_changed_artefact_does_not_verify(fitted, name):
    path = fitted.exports / name
    inside = path / "0.json" if path.is_dir() else path
    inside.write_text(inside.read_text().replace("1.75", "1.5"))
    assert f"{name}: is not the file that was exported" in problems_of(fitted.exports)
    accept(fitted.exports, "toy_fitted", name)
    assert "answers 1.5, not 1.75" in problems_of(fitted.exports)
    inside.write_text("[")
    accept(fitted.exports, "toy_fitted", name)
    assert f"{name}: its proof `table` failed: JSONDecodeError: Expecting value" in problems_of(fitted.exports)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert f"{name}: is missing" in problems_of(fitted.exports)


def test_a_receipt_without_an_artefact_or_the_input_of_its_prover_is_noticed(fitted):
    edit_receipt(fitted.exports, lambda families: families["toy_fitted"]["files"].pop(TREES))
    assert f"{TREES}: the receipt does not list it" in problems_of(fitted.exports)
    edit_receipt(fitted.exports, lambda families: families["toy_fitted"]["files"][TABLE].pop("about"))
    assert f"{TABLE}: the receipt's entry is damaged" in problems_of(fitted.exports)


def test_a_receipt_without_its_weights_is_noticed(exported):
    edit_receipt(exported.exports, lambda families: families["toy_encoder"]["files"].pop("toy_encoder.safetensors"))
    assert "toy_encoder.safetensors: the receipt does not list it" in problems_of(exported.exports)
    edit_receipt(exported.exports, lambda families: families["toy_encoder"].pop("weights"))  # an older version
    assert "toy_encoder.safetensors: the receipt does not list it" in problems_of(exported.exports)


def _nothing(path):
    """Writes nothing."""


def _empty(path):
    path.mkdir()


def _raising(path):
    raise IndexError("no tree 7")


def _wrong(path):
    path.write_text(json.dumps({"stumps": [[0, 5, 1.25, 1.75], [2, 6, 0, 0.125]]}))


def _link(path):
    path.symlink_to("/etc/hostname")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"write": _wrong}, "answers 1.25, not 1.75"),
        ({"write": lambda path: path.write_text("[") and None}, "`table` failed: JSONDecodeError: Expecting value"),
        ({"write": _nothing}, "was not written"),
        ({"write": _empty}, "was not written"),
        ({"write": _link}, "symbolic link"),
        ({"write": _raising}, r"toy\.table cannot be written: IndexError: no tree 7"),
        ({"prover": "missing"}, "no prover `missing`; available: table"),
        ({"about": {"x": object()}}, "not made of plain values"),
        ({"about": [1]}, "is a list"),
        ({"name": "../out.table"}, "cannot have this name"),
        ({"name": "/etc/table"}, "cannot have this name"),
        ({"name": ".hidden"}, "cannot have this name"),
        ({"name": "receipt.json"}, "cannot have this name"),
        ({"name": "golden/toy.npz"}, "cannot have this name"),
        ({"name": "toy_trees.onnx"}, "two files of the same name"),
        ({"name": "toy_trees.onnx/table"}, "two files of the same name"),
    ],
)
def test_an_artefact_that_fails_its_proof_leaves_the_folder_as_it_was(fitted, monkeypatch, changes, message):
    before = stamps(fitted)
    with_artefacts(monkeypatch, table(**changes))
    with pytest.raises(ExportError, match=message) as raised:
        again(fitted)
    assert raised.value.exit_code == 4 and stamps(fitted) == before
    verify(fitted.exports)


@pytest.mark.parametrize(
    ("prover", "message"),
    [
        (lambda path, about: path.write_text("{}") and {}, "`table` changed it"),
        (lambda path, about: None, "is a NoneType"),
        (lambda path, about: {"x": path}, "not made of plain values"),
        (lambda path, about: about["absent"], "`table` failed: KeyError: 'absent'"),
    ],
)
def test_a_prover_must_return_plain_values_and_not_change_the_file(fitted, monkeypatch, prover, message):
    with_artefacts(monkeypatch, table())
    monkeypatch.setattr(toy_fitted.FittedRecipe, "provers", {"table": prover})
    with pytest.raises(ExportError, match=message):
        again(fitted)


def test_a_file_that_becomes_a_folder_and_back_is_replaced(fitted, monkeypatch):
    folder = toy_fitted.write_folder(toy_fitted.STUMPS)
    with_artefacts(monkeypatch, table(write=folder), table(name="trees"))
    again(fitted)
    assert (fitted.exports / TABLE).is_dir() and (fitted.exports / "trees").is_file()
    verify(fitted.exports)
    with_artefacts(monkeypatch, table(), table(name="trees/all/again", write=folder))
    (fitted.checkpoints("toy_fitted") / "best.pt").write_text("a third")
    stage.export({"toy_fitted": None}, fitted)
    assert (fitted.exports / TABLE).is_file() and (fitted.exports / "trees/all/again").is_dir()
    verify(fitted.exports)


def test_a_file_in_the_folder_of_a_former_artefact_is_kept(fitted, monkeypatch):
    with_artefacts(monkeypatch, table(name="trees/all/0.json"))
    again(fitted)
    assert [path.name for path in (fitted.exports / TREES).iterdir()] == ["0.json"]
    assert not (fitted.exports / TABLE).exists()
    verify(fitted.exports)


def test_two_families_never_overwrite_each_others_artefacts(fitted, monkeypatch):
    toy.save_checkpoint(fitted, toy.EncoderRecipe)
    monkeypatch.setattr(toy.EncoderRecipe, "provers", {"any": lambda path, about: {}}, raising=False)
    graphs = [toy.encoder_graph(None, formats=("onnx",))]
    monkeypatch.setattr(toy.EncoderRecipe, "graphs", lambda self, model: graphs[:0])
    for name in (TREES, f"{TREES}/0.json", "trees"):
        made = Artefact(name, lambda path: path.write_text("x") and None, "any")
        monkeypatch.setattr(toy.EncoderRecipe, "artefacts", lambda self, model, made=made: [made])
        with pytest.raises(ExportError, match=f"same name: {name}"):
            stage.export({"toy_encoder": None}, fitted)
    verify(fitted.exports)
