"""int8, CoreML, weights and golden files."""

from __future__ import annotations

import importlib.util
import json
import logging
import subprocess
import sys
import types

import numpy as np
import onnx
import pytest
import torch
from onnxruntime.quantization import quantize_dynamic
from safetensors.torch import load_file, save_file

from tests.export import toy
from training.errors import ExportError
from training.export import coreml, golden, int8, proof, weights
from training.export.files import files_below, sha256
from training.export.onnx import write_onnx
from training.export.signature import Signature
from training.export.trace import trace
from training.workspace import PROJECT

MAC_SCRIPT = PROJECT / "scripts" / "check_coreml_on_mac.py"


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(1)
    return toy.encoder_graph(toy.Encoder(16).eval())


@pytest.fixture(scope="module")
def made(encoder, tmp_path_factory):
    """toy.onnx, toy.mlpackage and golden/toy.npz in a folder."""
    folder = tmp_path_factory.mktemp("made")
    program = trace(encoder)
    write_onnx(encoder, program, folder / "toy.onnx", {"synthetic": "true"})
    coreml.write_coreml(encoder, program, folder / "toy.mlpackage", {"synthetic": "true"})
    truth = proof.module_run(encoder)
    golden.write_golden(folder / "golden/toy.npz", [(i, truth(i)) for _, i in proof.trial_inputs(encoder)], None)
    return folder


# int8


def test_quantising_deletes_stale_shapes_and_would_fail_with_them(encoder, made, tmp_path, monkeypatch):
    int8.write_int8(made / "toy.onnx", tmp_path / "toy.int8.onnx")
    inputs = dict(zip(("sound", "mood"), encoder.example({"batch": 7}, 3), strict=True))
    want, got = proof.module_run(encoder)(inputs), proof.session(tmp_path / "toy.int8.onnx")(inputs)
    assert 0 < proof.relative_error(got["places"], want["places"]) < 0.05
    with pytest.raises(Exception, match="ShapeInference"):
        quantize_dynamic(made / "toy.onnx", tmp_path / "plain.onnx")
    monkeypatch.setattr(int8, "drop_stale_shapes", lambda model: None)
    with pytest.raises(ExportError, match="cannot be quantised"):
        int8.write_int8(made / "toy.onnx", tmp_path / "other.int8.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["toy.int8.onnx"]


def test_int8_weights_use_seven_of_eight_bits_and_metadata_is_kept(made, tmp_path):
    int8.write_int8(made / "toy.onnx", tmp_path / "toy.int8.onnx")
    model = onnx.load(tmp_path / "toy.int8.onnx")
    eight = [onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8]
    matrices = [a for a in eight if a.ndim == 2]
    assert len(matrices) >= 5 and all(np.abs(a.astype(int)).max() <= 64 for a in matrices)
    metadata = {p.key: p.value for p in model.metadata_props}
    assert metadata["synthetic"] == "true" and metadata["precision"] == "int8 weights"


def test_change_is_relative_per_metric_and_infinite_where_a_metric_is_not_finite():
    change = int8.Change({"a": 2.0, "b": 0.0, "c": 1.0}, {"a": 2.1, "b": 0.0, "c": float("nan")}, 0.05)
    assert change.relative == {"a": pytest.approx(0.05), "b": 0.0, "c": float("inf")}
    assert not change.within
    assert int8.Change({"a": 2.0}, {"a": 1.0}, 0.05).within
    with pytest.raises(ExportError, match="no metric"):
        int8.measure(lambda outputs, references: {}, {}, {}, {}, 0.05)


# CoreML


def test_a_package_is_converted_from_the_torch_program_and_its_description_matches(encoder, made):
    signature = Signature.of(encoder)
    assert coreml.description_problems(made / "toy.mlpackage", signature) == []
    spec = description(made / "toy.mlpackage")
    assert [f.name for f in spec.description.output] == ["places", "loudness"]
    assert spec.description.metadata.userDefined["synthetic"] == "true"
    assert spec.description.metadata.userDefined["output.places"] == "f32 [batch, 5, 3]: x, y, z"


def description(path):
    with coreml.quiet_coremltools() as ct:
        return ct.models.MLModel(str(path), skip_model_load=True).get_spec()


def test_a_package_with_other_names_ranges_or_fixed_sizes_is_noticed(encoder, made, tmp_path):
    """From its description alone, since Linux cannot run it."""
    path = made / "toy.mlpackage"
    wider = toy.encoder_graph(None, axes={"batch": (1, 65)})
    assert any("takes sizes [(1, 64)" in p for p in coreml.description_problems(path, Signature.of(wider)))
    renamed = toy.encoder_graph(None, outputs=encoder.outputs[:1])
    assert any("outputs are" in p for p in coreml.description_problems(path, Signature.of(renamed)))

    class Baked(torch.nn.Module):
        """Its output has three rows, whatever the batch."""

        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, sound, mood):
            places, loudness = self.inner(sound, mood)
            return places.mean(0, keepdim=True).expand(3, -1, -1) * 1.0, loudness

    baked = toy.encoder_graph(Baked(encoder.module).eval())
    coreml.write_coreml(baked, trace(baked), tmp_path / "baked.mlpackage", {})
    problems = coreml.description_problems(tmp_path / "baked.mlpackage", Signature.of(baked))
    assert problems == ["output places has shape [3, 5, 3] in the program, not ['batch', 5, 3]"]


def test_integers_and_empty_axes_are_converted_to_what_coreml_supports(tmp_path):
    torch.manual_seed(0)
    step = toy.decoder_graphs(toy.Decoder(16).eval())[1]
    coreml.write_coreml(step, trace(step), tmp_path / "step.mlpackage", {})
    assert coreml.description_problems(tmp_path / "step.mlpackage", Signature.of(step)) == []
    assert coreml.coreml_axes(step.axes) == {"batch": (1, 16), "past": (1, 255)}


def test_messages_of_the_converter_are_suppressed(encoder, tmp_path, capfd, caplog):
    """Warnings about untested versions, and progress bars. The logging levels are restored."""
    before = logging.getLogger("coremltools").level
    coreml.write_coreml(encoder, trace(encoder), tmp_path / "toy.mlpackage", {})
    out, err = capfd.readouterr()
    assert out == "" and err == ""
    assert not [r for r in caplog.records if r.name.startswith("coremltools") and r.levelno >= logging.WARNING]
    assert logging.getLogger("coremltools").level == before


def mac_check():
    spec = importlib.util.spec_from_file_location("mac_check", MAC_SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac executes")
def test_mac_script_reports_that_linux_cannot_execute(made):
    done = subprocess.run([sys.executable, "-I", MAC_SCRIPT, made], capture_output=True, text=True, check=False)
    assert done.returncode == 6 and "none executed" in done.stdout
    assert "import training" not in MAC_SCRIPT.read_text() and "from training" not in MAC_SCRIPT.read_text()


@pytest.mark.parametrize(("bias", "code"), [(0.0, 0), (0.01, 4), (float("nan"), 4)])
def test_mac_script_compares_every_package_with_its_golden_file(encoder, made, monkeypatch, capsys, bias, code):
    """With a stand-in for the CoreML runtime that returns the outputs of the model, with or without an error."""
    truth = proof.module_run(encoder)

    class MLModel:
        def __init__(self, path, compute_units):
            assert path.endswith("toy.mlpackage")

        def predict(self, inputs):
            return {name: array + np.float32(bias) for name, array in truth(inputs).items()}

    fake = types.SimpleNamespace(
        models=types.SimpleNamespace(MLModel=MLModel), ComputeUnit=types.SimpleNamespace(CPU_ONLY=1)
    )
    monkeypatch.setitem(sys.modules, "coremltools", fake)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert mac_check().check(made) == code
    output = capsys.readouterr().out
    assert output.count("toy.mlpackage  batch") == 3 and ("DIFFERS" in output) == bool(code)


def test_mac_script_finds_the_packages_of_items_and_skips_artefacts(tmp_path, monkeypatch, capsys):
    for name in ("left/toy.mlpackage", "right/toy.mlpackage", "own.mlpackage"):
        (tmp_path / name).mkdir(parents=True)
    kinds = {"left/toy.mlpackage": "coreml", "gone/toy.mlpackage": "coreml", "own.mlpackage": "artefact"}
    receipt = {"families": {"toy": {"files": {name: {"kind": kind} for name, kind in kinds.items()}}}}
    (tmp_path / "receipt.json").write_text(json.dumps(receipt))
    monkeypatch.setattr(sys, "platform", "linux")
    assert mac_check().check(tmp_path) == 4
    output = capsys.readouterr().out
    assert "gone/toy.mlpackage: missing" in output and "2 CoreML models found" in output


# weights


def test_weights_may_be_numpy_arrays(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    array.setflags(write=False)
    assert weights.write_weights({"a": array}, tmp_path / "w.safetensors", {}) == {"tensors": 1, "values": 6}
    assert torch.equal(load_file(tmp_path / "w.safetensors")["a"], torch.arange(6.0).reshape(2, 3))


def test_weights_are_written_under_plain_names_and_always_as_the_same_bytes(tmp_path):
    model = toy.Encoder(16)
    model.block = torch.compile(model.block, backend="eager")
    compiled = torch.compile(model, backend="eager").state_dict()
    assert sum("_orig_mod" in name for name in compiled) == len(compiled)
    assert any(name.count("_orig_mod") == 2 for name in compiled)
    assert set(weights.plain_names(compiled)) == set(toy.Encoder(16).state_dict())
    digests = set()
    for _ in range(3):
        weights.write_weights(weights.plain_names(compiled), tmp_path / "w.safetensors", {"b": "1", "a": "2", "c": "3"})
        digests.add(sha256(tmp_path / "w.safetensors"))
    assert len(digests) == 1
    counts = {"tensors": len(compiled), "values": sum(t.numel() for t in compiled.values())}
    assert weights.inspect_weights(tmp_path / "w.safetensors") == counts


@pytest.mark.parametrize(
    ("tensors", "message"),
    [({"_orig_mod.a": torch.ones(1)}, "compiled model"), ({"a": torch.tensor([float("nan")])}, "not finite")],
)
def test_names_of_compiled_models_and_nans_are_noticed_in_a_file(tmp_path, tensors, message):
    save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(ExportError, match=message):
        weights.inspect_weights(tmp_path / "w.safetensors")


# golden files


def test_golden_files_contain_the_cases_that_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(golden, "BUDGET", 3000)
    cases = [({"x": np.full(n, n, np.float32)}, {"y": np.full(n, -n, np.float32)}) for n in (300, 10, 9000, 20)]
    steps = ({"x": np.arange(3)}, {"y": np.arange(3.0)})
    assert golden.write_golden(tmp_path / "g.npz", cases, steps) == [0, 1, 3]
    kept = golden.read_golden(tmp_path / "g.npz")
    assert [len(i["x"]) for i, _ in kept.trials] == [300, 10, 20]
    assert np.array_equal(kept.trials[0][1]["y"], cases[0][1]["y"]) and kept.steps is not None
    assert np.array_equal(kept.steps[1]["y"], np.arange(3.0))
    golden.write_golden(tmp_path / "one.npz", cases[2:3], None)
    assert len(golden.read_golden(tmp_path / "one.npz").trials) == 1


def test_golden_files_depend_on_the_arrays_alone_and_never_unpickle(tmp_path):
    for name in ("a", "b"):
        golden.write_int8_check(tmp_path / f"{name}.npz", {"x": np.ones(3)}, {"r": np.zeros(2)})
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    np.savez(tmp_path / "p.npz", **{"trial0/in/x": np.array([print], object)})
    with pytest.raises(ExportError, match="not a readable golden file"):
        golden.read_golden(tmp_path / "p.npz")


def test_a_folders_digest_covers_names_and_content_and_refuses_links(tmp_path):
    folder = tmp_path / "m.mlpackage"
    folder.mkdir()
    (folder / "a").write_text("1")
    first = sha256(folder)
    (folder / "a").rename(folder / "b")
    assert sha256(folder) != first
    (folder / "link").symlink_to("/etc/hostname")
    with pytest.raises(ExportError, match="symbolic link"):
        files_below(folder)
