"""The export stage: the files, the receipt, and errors."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file

from tests.export import toy
from tests.export.conftest import toy_workspace
from training import cli
from training.errors import ExportError, HostError, Interrupted, UsageError
from training.export import coreml, proof
from training.graphs import Graph
from training.stages import export as stage
from training.stages.verify import verify
from training.workspace import Workspace, exclusive


def receipt_of(workspace: Workspace) -> dict:
    return json.loads((workspace.exports / "receipt.json").read_text())


def stamps(workspace: Workspace) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in workspace.exports.rglob("*") if p.is_file() and p.name != ".lock"}


@pytest.fixture
def no_coreml(monkeypatch):
    """A host without coremltools: faster, for tests that are not about CoreML."""
    monkeypatch.setattr(coreml, "installed", lambda: False)


def test_families_exported_in_two_calls_share_one_receipt_that_verifies(exported, capsys):
    families = receipt_of(exported)["families"]
    assert set(families) == {"toy_encoder", "toy_decoder"}
    assert set(families["toy_decoder"]["files"]) == {
        "toy_decoder.onnx",
        "toy_decoder.int8.onnx",
        "toy_decoder.mlpackage",
        "toy_decoder_step.onnx",
        "toy_decoder_step.int8.onnx",
        "toy_decoder.safetensors",
        "golden/toy_decoder.npz",
        "golden/toy_decoder_step.npz",
        "golden/toy_decoder_exam.npz",
        "samples/toy_decoder/note.txt",
    }
    verify(exported.exports)
    output = capsys.readouterr().out
    assert "All 17 files verified" in output and "converted, not executed" in output
    for name in [*families["toy_decoder"]["files"], *families["toy_encoder"]["files"]]:
        assert name in output


def test_the_folder_has_only_files_that_the_receipt_names(exported):
    named = {n for e in receipt_of(exported)["families"].values() for n in e["files"]} | {"receipt.json", ".lock"}
    top = {name.split("/")[0] for name in named}
    assert {p.name for p in exported.exports.iterdir()} == top


def test_parity_is_measured_at_every_trial_and_along_200_steps(exported):
    files = receipt_of(exported)["families"]["toy_decoder"]["files"]
    parity = files["toy_decoder_step.onnx"]["parity"]
    assert [t["sizes"]["batch"] for t in parity["trials"]] == [1, 2, 7]
    assert parity["stepped"]["sizes"]["steps"] == 200
    assert parity["stepped"]["error"]["logits"] < 1e-5


def test_the_effect_of_int8_is_measured_in_the_tasks_metric_for_the_full_and_the_step_graph(exported):
    files = receipt_of(exported)["families"]["toy_decoder"]["files"]
    for name in ("toy_decoder.int8.onnx", "toy_decoder_step.int8.onnx"):
        change = files[name]["change"]
        assert 0 < abs(change["relative_change"]["loss"]) < 0.05 and change["within_limit"]
        assert change["int8"]["loss"] != change["fp32"]["loss"]


def test_the_receipt_records_the_origin_of_every_file(exported):
    receipt = receipt_of(exported)
    entry = receipt["families"]["toy_encoder"]
    assert receipt["synthetic"] is True and entry["synthetic"] is True
    assert entry["trained"]["data_digest"] == "d" * 64 and entry["trained"]["seed"] == 42
    assert entry["cost"] == {"seconds": 12.0, "money": None, "currency": None}
    assert entry["metrics"] == {"val_loss": 1.5} and entry["checkpoint"]["step"] == 7
    assert entry["exported"]["libraries"]["onnx"] == onnx.__version__ and entry["exported"]["code"]
    assert entry["files"]["toy.mlpackage"]["status"] == "converted, not executed"
    assert entry["graphs"]["toy"]["axes"] == {"batch": [1, 64]}


def test_every_file_records_that_its_training_data_was_synthetic(exported):
    model = onnx.load(exported.exports / "toy.onnx")
    metadata = {p.key: p.value for p in model.metadata_props}
    digest = receipt_of(exported)["families"]["toy_encoder"]["checkpoint"]["sha256"]
    assert metadata["synthetic"] == "true" and metadata["checkpoint_sha256"] == digest
    assert metadata["input.sound"] == "f32 [batch, 8, 4]: log energy" and metadata["points"] == "5"


def test_averaged_weights_are_exported_if_the_checkpoint_has_them(exported):
    torch.manual_seed(100)
    averaged = toy.Decoder(16).state_dict()
    left = load_file(exported.exports / "toy_decoder.safetensors")
    assert set(left) == set(averaged) and all(torch.equal(left[k], averaged[k]) for k in left)
    assert receipt_of(exported)["families"]["toy_decoder"]["checkpoint"]["weights"] == "ema"


def test_exported_files_of_the_same_checkpoint_are_not_made_again(exported, capsys):
    before = stamps(exported)
    stage.export({"toy_encoder": None, "toy_decoder": None}, exported)
    assert stamps(exported) == before
    assert capsys.readouterr().out.count("up to date") == 2


def test_a_file_that_was_changed_is_exported_again(exported, capsys, no_coreml):
    (exported.exports / "toy.onnx").write_bytes(b"something else")
    stage.export({"toy_encoder": None}, exported)
    assert "changed since" in capsys.readouterr().out
    verify(exported.exports)


def test_the_error_for_a_missing_checkpoint_names_the_command_that_makes_one(tmp_path, capsys):
    with pytest.raises(UsageError, match="python -m training train toy_encoder") as raised:
        stage.export({"toy_encoder": None}, Workspace(tmp_path))
    assert raised.value.exit_code == 2
    assert "omplete" not in capsys.readouterr().out and not (tmp_path / "exports").exists()


def test_a_checkpoint_file_that_does_not_exist_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match=r"gone\.pt"):
        stage.export({"toy_encoder": tmp_path / "gone.pt"}, Workspace(tmp_path))


def test_a_checkpoint_of_another_family_is_refused(exported):
    path = exported.checkpoints("toy_decoder") / "best.pt"
    with pytest.raises(UsageError, match="toy_decoder"):
        stage.export({"toy_encoder": path}, exported)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    workspace = toy_workspace(tmp_path / "out")
    torch.manual_seed(0)
    state = toy.Encoder(16).state_dict()
    state["mood.bias"][0] = float("nan")
    toy.save_checkpoint(workspace, toy.EncoderRecipe, model=state)
    with pytest.raises(ExportError, match=r"not finite: mood\.bias"):
        stage.export({"toy_encoder": None}, workspace)


def test_an_export_that_differs_leaves_the_folder_as_it_was(exported, monkeypatch, no_coreml):
    """A wrong file never gets its final name; the files of the earlier export are still verified."""
    before = stamps(exported)
    toy.save_checkpoint(exported, toy.EncoderRecipe, seed=3)
    correct = proof.module_run

    def biased(graph: Graph):
        run = correct(graph)
        return lambda inputs: {name: array + np.float32(1e-3) for name, array in run(inputs).items()}

    monkeypatch.setattr(proof, "module_run", biased)
    with pytest.raises(ExportError, match=r"toy\.onnx differs from its model") as raised:
        stage.export({"toy_encoder": None}, exported)
    assert raised.value.exit_code == 4 and "batch 7: places" in str(raised.value)
    assert "Nothing in" in str(raised.value) and "is kept (best.pt)" in str(raised.value)
    assert stamps(exported) == before
    assert not [p for p in exported.exports.iterdir() if p.name.startswith(".making")]
    verify(exported.exports)


def test_an_interruption_is_not_an_export_error_and_leaves_no_temporary_file(exported):
    before = stamps(exported)
    toy.save_checkpoint(exported, toy.EncoderRecipe, seed=3)

    def stopped(*_, **__):
        raise Interrupted("SIGTERM received")

    for place in ("torch.export.export", "torch.onnx.export", "training.export.int8.quantize_dynamic"):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
            patch.setattr(place, stopped)
            stage.export({"toy_encoder": None}, exported)
    assert stamps(exported) == before
    assert not [p for p in exported.exports.rglob("*") if p.name.startswith((".making", ".writing"))]


def test_without_held_out_data_there_is_no_int8_file_and_a_note_explains_it(tmp_path, capsys, no_coreml):
    workspace = toy_workspace(tmp_path / "out")
    workspace.manifest("toy_encoder", "val").unlink()
    stage.export({"toy_encoder": None}, workspace)
    assert "No int8 files of Toy encoder" in capsys.readouterr().out
    assert not (workspace.exports / "toy.int8.onnx").exists() and (workspace.exports / "toy.onnx").exists()
    assert any("No int8" in note for note in receipt_of(workspace)["families"]["toy_encoder"]["notes"])
    verify(workspace.exports)


def test_a_note_reports_int8_metrics_above_the_limit(tmp_path, capsys, monkeypatch, no_coreml):
    workspace = toy_workspace(tmp_path / "out")
    first = []

    def grade(outputs, references):
        """The distance from the first graded output, the fp32 file's: any rounding is a large relative change."""
        first.append(outputs["places"])
        return {"distance": 1e-6 + float(np.abs(outputs["places"] - first[0]).max())}

    monkeypatch.setattr(toy.EncoderRecipe, "grade", staticmethod(grade))
    stage.export({"toy_encoder": None}, workspace, int8_limit=0.01)
    output = capsys.readouterr().out
    assert "is worse than the fp32 file by more than 1%" in output
    assert "toy.mlpackage was not made: coremltools" in output
    assert receipt_of(workspace)["families"]["toy_encoder"]["files"]["toy.int8.onnx"]["change"]["within_limit"] is False


def test_a_folder_in_use_is_not_written_to(exported):
    with exclusive(exported.exports, "test"), pytest.raises(HostError, match="in use"):
        stage.export({"toy_encoder": None}, exported)


def test_files_that_a_family_no_longer_has_are_deleted_by_its_next_export(exported, monkeypatch):
    toy.save_checkpoint(exported, toy.EncoderRecipe, seed=3)
    changes = {"formats": ("onnx",), "name": "renamed"}
    monkeypatch.setattr(toy.EncoderRecipe, "graphs", lambda self, model: [toy.encoder_graph(model, **changes)])
    monkeypatch.setattr(toy.EncoderRecipe, "int8_check", lambda self, rows: None)
    stage.export({"toy_encoder": None}, exported)
    left = {p.name for p in exported.exports.iterdir()}
    assert "renamed.onnx" in left and not {"toy.onnx", "toy.int8.onnx", "toy.mlpackage"} & left
    assert "toy_decoder.onnx" in left
    verify(exported.exports)


def test_two_families_never_overwrite_each_others_files(exported, monkeypatch):
    toy.save_checkpoint(exported, toy.EncoderRecipe, seed=3)
    monkeypatch.setattr(
        toy.EncoderRecipe,
        "graphs",
        lambda self, model: [toy.encoder_graph(model, formats=("onnx",), name="toy_decoder")],
    )
    monkeypatch.setattr(toy.EncoderRecipe, "int8_check", lambda self, rows: None)
    with pytest.raises(ExportError, match=r"same name.*toy_decoder\.onnx"):
        stage.export({"toy_encoder": None}, exported)
    verify(exported.exports)


def test_an_unreadable_receipt_is_reported_and_written_again(exported, capsys, no_coreml):
    (exported.exports / "receipt.json").write_text("{")
    shutil.rmtree(exported.exports / "samples")
    stage.export({"toy_encoder": None}, exported)
    assert "receipt.json cannot be read" in capsys.readouterr().out
    assert set(receipt_of(exported)["families"]) == {"toy_encoder"}


def test_an_export_of_all_families_names_those_that_are_trained(tmp_path, capsys):
    """Exit 2, with the command that exports those: a job that has only scores trains one family of two."""
    (tmp_path / "checkpoints" / "midi_generator").mkdir(parents=True)
    (tmp_path / "checkpoints" / "midi_generator" / "best.pt").touch()
    assert cli.main(["export", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "Not trained in" in error and error.strip().endswith("python -m training export midi_generator")
