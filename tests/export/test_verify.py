"""Verify: every way in which a folder can differ from its receipt is found and reported."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import pytest

from tests.export import toy
from training.errors import ExportError
from training.export.files import sha256
from training.stages.verify import verify


def problems_of(folder) -> str:
    with pytest.raises(ExportError) as raised:
        verify(folder)
    assert raised.value.exit_code == 4
    return str(raised.value)


def edit_receipt(folder, change) -> None:
    path = folder / "receipt.json"
    receipt = json.loads(path.read_text())
    change(receipt["families"])
    path.write_text(json.dumps(receipt))


def accept(folder, family: str, name: str) -> None:
    """Put the digest of a changed file into the receipt, so that the change can only be found by running the file."""
    edit_receipt(folder, lambda families: families[family]["files"][name].update(sha256=sha256(folder / name)))


def test_verify_leaves_every_file_as_it_is(exported):
    """coremltools would rewrite the manifest of a package when it opens the package."""

    def state():
        return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in exported.exports.rglob("*") if p.is_file()}

    before = state()
    verify(exported.exports)
    assert state() == before


def test_every_changed_file_is_listed(exported):
    files = [p for p in exported.exports.rglob("*") if p.is_file() and p.name not in ("receipt.json", ".lock")]
    for path in files:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    problems = problems_of(exported.exports)
    names = {name for e in toy_receipt(exported)["families"].values() for name in e["files"]}
    assert len(names) == 17 and all(f"  {name}: is not the file that was exported" in problems for name in names)


def toy_receipt(workspace) -> dict:
    return json.loads((workspace.exports / "receipt.json").read_text())


def test_every_missing_file_is_listed(exported):
    for path in list(exported.exports.iterdir()):
        if path.name not in ("receipt.json", ".lock"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    problems = problems_of(exported.exports)
    assert problems.count("is missing") >= 17


def test_a_folder_without_a_receipt_or_with_a_broken_one_does_not_verify(exported, tmp_path):
    """A folder without exports must not be reported as verified."""
    assert "no exports" in problems_of(tmp_path / "empty")
    (exported.exports / "receipt.json").write_text('{"format": 1, "families": {}}')
    assert "no exports" in problems_of(exported.exports)
    (exported.exports / "receipt.json").write_text("{")
    assert "cannot be read" in problems_of(exported.exports)


def test_a_model_with_one_changed_weight_is_found_by_running_it(exported):
    path = exported.exports / "toy.onnx"
    model = onnx.load(path)
    tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    array = onnx.numpy_helper.to_array(tensor).copy()
    array.flat[0] += 0.5
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    path.write_bytes(model.SerializeToString())
    accept(exported.exports, "toy_encoder", "toy.onnx")
    assert "toy.onnx differs from its model" in problems_of(exported.exports)


def test_an_int8_file_that_is_worse_than_measured_is_found_by_grading_it(exported):
    path = exported.exports / "toy_decoder.int8.onnx"
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 2:
            array = np.zeros_like(onnx.numpy_helper.to_array(tensor))
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    path.write_bytes(model.SerializeToString())
    accept(exported.exports, "toy_decoder", "toy_decoder.int8.onnx")
    assert "loss of the int8 file is" in problems_of(exported.exports)


def test_a_reference_to_external_data_is_refused(exported):
    """Else a model from another host could make `verify` read any file here."""
    path = exported.exports / "toy.onnx"
    model = onnx.load(path)
    tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="receipt.json")
    path.write_bytes(model.SerializeToString())
    accept(exported.exports, "toy_encoder", "toy.onnx")
    assert "toy.onnx: toy.onnx refers to data outside itself" in problems_of(exported.exports)


@pytest.mark.parametrize("name", ["../secret.onnx", "/etc/hostname", "linked.onnx"])
def test_names_that_lead_out_of_the_folder_are_not_opened(exported, name):
    """Else a receipt from another host could make `verify` read any file here."""
    (exported.root / "secret.onnx").write_text("x")
    (exported.exports / "linked.onnx").symlink_to(exported.root / "secret.onnx")
    entry = {"kind": "onnx", "graph": "toy", "sha256": "0", "bytes": 1}
    edit_receipt(exported.exports, lambda families: families["toy_encoder"]["files"].update({name: entry}))
    problems = problems_of(exported.exports)
    assert f"{name}: its name leads out" in problems or f"{name}: is a symbolic link" in problems


def test_a_receipt_without_a_file_or_with_another_checkpoint_is_noticed(exported):
    edit_receipt(exported.exports, lambda f: f["toy_encoder"]["files"].pop("toy.int8.onnx"))
    edit_receipt(exported.exports, lambda f: f["toy_decoder"]["checkpoint"].update(sha256="0" * 64))
    edit_receipt(exported.exports, lambda f: f["toy_encoder"].update(synthetic=False))
    problems = problems_of(exported.exports)
    assert "toy.int8.onnx: the receipt does not list it" in problems
    assert "toy_decoder.onnx: was made from another checkpoint" in problems
    assert "toy.onnx: its metadata has synthetic: true; the receipt has false" in problems


def test_a_package_that_is_another_model_is_noticed(exported):
    folder = exported.exports
    shutil.rmtree(folder / "toy.mlpackage")
    shutil.copytree(folder / "toy_decoder.mlpackage", folder / "toy.mlpackage")
    accept(folder, "toy_encoder", "toy.mlpackage")
    assert "toy.mlpackage: inputs are ['ids', 'mood']" in problems_of(folder)


def test_a_damaged_entry_of_the_receipt_is_reported(exported):
    edit_receipt(exported.exports, lambda f: f["toy_encoder"]["files"]["toy.onnx"].update(kind="nonsense"))
    edit_receipt(exported.exports, lambda f: f["toy_encoder"]["graphs"]["toy"].pop("inputs"))
    problems = problems_of(exported.exports)
    assert "toy.onnx: the receipt's entry is damaged" in problems
    assert "toy.mlpackage: the receipt's entry is damaged" in problems


def test_metrics_that_differ_from_the_receipt_are_noticed(exported, monkeypatch):
    monkeypatch.setattr(toy.EncoderRecipe, "grade", staticmethod(lambda outputs, references: {"distance": 9.0}))
    assert "distance of the fp32 file is 9" in problems_of(exported.exports)


def test_a_model_that_is_not_in_the_receipt_is_reported(exported, capsys):
    shutil.copy(exported.exports / "toy.onnx", exported.exports / "stray.onnx")
    verify(exported.exports)
    assert "stray.onnx is not in the receipt" in capsys.readouterr().out
