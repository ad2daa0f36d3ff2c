"""Ready-made ONNX is compared with its numpy reference; recurrences with their blocks and start states."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from tests.export import toy, toy_fitted
from tests.export.conftest import ROWS
from tests.export.test_verify import accept, problems_of
from training.errors import ExportError, HostError
from training.export import golden, proof
from training.export.package import Package
from training.export.ready import write_ready
from training.export.signature import Signature
from training.stages.verify import verify
from training.workspace import Workspace

TREES = toy_fitted.tree_graph(toy_fitted.STUMPS)


def exporting(tmp_path, *graphs) -> Package:
    """Make a package of the fitted toy with these graphs in place of the toy's."""
    recipe = toy_fitted.FittedRecipe(toy.ToySettings())
    recipe.graphs = lambda model: list(graphs)
    package = Package(tmp_path / "made", recipe, {"synthetic": "true"}, say=lambda text: None)
    package.make(toy_fitted.state(), ROWS)
    return package


def stumps(tree: int, column: int, value: float) -> np.ndarray:
    """The toy's trees with one number changed."""
    changed = toy_fitted.STUMPS.copy()
    changed[tree, column] = value
    return changed


def test_a_ready_made_graph_is_exported_with_comparison_metadata_and_golden_file(tmp_path):
    package = exporting(tmp_path, TREES)
    parity = package.files["toy_trees.onnx"]["parity"]
    assert [trial["sizes"] for trial in parity["trials"]] == [{"n": 1}, {"n": 64}]
    assert all(trial["error"] == {"y": 0.0} for trial in parity["trials"])
    model = onnx.load(tmp_path / "made/toy_trees.onnx")
    metadata = {prop.key: prop.value for prop in model.metadata_props}
    assert metadata["synthetic"] == "true" and metadata["trees"] == "2" and metadata["input.x"] == "f32 [n, 3]: counts"
    assert package.files["toy_trees.onnx"]["opset"] == 18 and package.graphs["toy_trees"]["formats"] == ["onnx"]
    (_, (inputs, outputs)) = golden.read_golden(tmp_path / "made/golden/toy_trees.npz").trials
    assert inputs["x"].shape == (64, 3) and set(np.unique(outputs["y"])) <= {1.25, 1.375, 1.75, 1.875}


def test_the_same_ready_made_graph_gives_the_same_bytes_and_keeps_its_own_metadata(tmp_path):
    def write(path):
        TREES.write(path)
        model = onnx.load(path)
        onnx.helper.set_model_props(model, {"made by": "hand", "synthetic": "false"})
        onnx.save(model, path)

    for name in ("a.onnx", "b.onnx"):
        write_ready(replace(TREES, write=write), tmp_path / name, {"synthetic": "true"})
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    metadata = {prop.key: prop.value for prop in onnx.load(tmp_path / "a.onnx").metadata_props}
    assert metadata["made by"] == "hand" and metadata["synthetic"] == "true"


@pytest.mark.parametrize(
    "changed",
    [stumps(0, 1, 5.0), stumps(0, 2, np.nextafter(np.float32(1.25), np.float32(2))), stumps(1, 0, 1)],
    ids=["threshold off by one", "leaf off by a bit", "another feature"],
)
def test_trees_that_differ_from_the_reference_are_refused(tmp_path, changed):
    with pytest.raises(ExportError, match=r"toy_trees\.onnx differs from its model"):
        exporting(tmp_path, replace(TREES, write=toy_fitted.tree_writer(changed)))


def test_a_graph_must_be_either_a_module_or_completely_ready_made(tmp_path):
    for changes, message in (
        ({"module": torch.nn.Identity()}, "module and write and reference"),
        ({"write": None, "reference": None}, "neither a module nor a writer"),
        ({"reference": None}, "has write"),
        ({"write": None}, "has reference"),
        ({"formats": ("onnx", "int8")}, "its format must be onnx alone"),
        ({"formats": ("onnx", "coreml")}, "its format must be onnx alone"),
        ({"formats": ()}, "its formats must include onnx"),
        ({"name": "../toy"}, "cannot be a graph's name"),
        ({"trials": ({"n": 3}, {"n": 3})}, "two sizes"),
    ):
        with pytest.raises(ExportError, match=message):
            exporting(tmp_path, replace(TREES, **changes))
    with pytest.raises(ExportError, match="used once"):
        exporting(tmp_path, TREES, TREES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": (replace(TREES.inputs[0], name="z"),)}, r"inputs are \['x'\], not \['z'\]"),
        ({"outputs": (replace(TREES.outputs[0], dtype="int64"),)}, "output y is float32, not int64"),
        ({"inputs": (replace(TREES.inputs[0], shape=("n", 4)),)}, "axis 1 is 3, not 4"),
        ({"outputs": (replace(TREES.outputs[0], shape=("n", 2)),)}, "axis 1 is 1, not 2"),
    ],
)
def test_a_ready_made_graph_with_another_signature_is_refused(tmp_path, changes, message):
    with pytest.raises(ExportError, match=message):
        exporting(tmp_path, replace(TREES, **changes))


def test_an_error_of_the_writer_is_an_export_error_with_the_reason(tmp_path):
    def invalid(path):
        node = onnx.helper.make_node("Nonsense", ["x"], ["y"])
        values = [onnx.helper.make_tensor_value_info(n, 1, ["n", w]) for n, w in (("x", 3), ("y", 1))]
        graph = onnx.helper.make_graph([node], "g", values[:1], values[1:])
        onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)]), path)

    def raising(path):
        raise IndexError("no tree 7")

    def full(path):
        raise OSError(28, "No space left on device")

    for write, kind, message in (
        (raising, ExportError, "toy_trees cannot be written: IndexError: no tree 7"),
        (lambda path: None, ExportError, "created nothing at the path"),
        (lambda path: path.write_bytes(b"\xff" * 50) and None, ExportError, r"toy_trees\.onnx is not a readable ONNX"),
        (invalid, ExportError, r"toy_trees\.onnx is not valid ONNX.*Nonsense"),
        (full, HostError, "No space left"),
    ):
        with pytest.raises(kind, match=message):
            exporting(tmp_path, replace(TREES, write=write))
        assert not list((tmp_path / "made").glob("*.onnx"))


def test_a_reference_must_return_the_declared_outputs(tmp_path):
    right = TREES.reference

    def failing(inputs):
        raise ZeroDivisionError("by zero")

    for reference, message in (
        (lambda inputs: {}, r"returns \[\]; the outputs of the graph are \['y'\]"),
        (lambda inputs: {"y": right(inputs)["y"].astype(np.float64)}, "returns y as float64"),
        (lambda inputs: {"y": right(inputs)["y"][:, 0]}, r"returns y as float32 \[1\]"),
        (lambda inputs: {"y": right(inputs)["y"][:0]}, r"returns y as float32 \[0, 1\]"),
        (failing, "ZeroDivisionError: by zero"),
    ):
        with pytest.raises(ExportError, match=message):
            exporting(tmp_path, replace(TREES, reference=reference))


# recurrences


def test_a_recurrence_is_stepped_in_blocks_from_its_start_state(tmp_path):
    package = exporting(tmp_path, *toy_fitted.filter_graphs(toy_fitted.DECAY))
    stepped = package.files["toy_filter_step.onnx"]["parity"]["stepped"]
    assert stepped["sizes"] == {"batch": 2, "steps": 50, "block": 4} and stepped["error"]["y"] < 1e-6
    kept = golden.read_golden(tmp_path / "made/golden/toy_filter_step.npz")
    assert kept.steps[0]["u"].shape == (2, 200) and np.array_equal(kept.start["h"], toy_fitted.START)
    recurrence = package.graphs["toy_filter_step"]["recurrence"]
    assert recurrence["block"] == 4 and recurrence["start"] == ["h"] and json.dumps(recurrence)


def recurrence(**changes):
    return replace(toy_fitted.filter_graphs(toy_fitted.DECAY)[1].recurrence, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recurrence": recurrence(start={})}, "stepped, differs"),
        ({"recurrence": recurrence(start={"h": toy_fitted.START + np.float32(0.01)})}, "stepped, differs"),
        ({"recurrence": recurrence(start={"h": np.zeros(2, np.float32)})}, r"the start value of `h` is float32 \[2\]"),
        ({"recurrence": recurrence(start={"h": np.zeros(1)})}, "the start value of `h` is float64"),
        ({"recurrence": recurrence(start={"u": toy_fitted.START})}, r"values of \['u'\]"),
        ({"recurrence": recurrence(block=3)}, "stepped, differs"),
        ({"recurrence": recurrence(block=0)}, "one or more"),
        ({"recurrence": recurrence(block=2000)}, "may be 1 to 1000"),
        ({"recurrence": recurrence(full="nothing")}, "which is not exported"),
    ],
)
def test_a_recurrence_that_differs_from_the_full_graph_is_refused(tmp_path, changes, message):
    with pytest.raises(ExportError, match=message):
        exporting(tmp_path, *toy_fitted.filter_graphs(toy_fitted.DECAY, **changes))


def test_a_step_that_carries_the_wrong_element_to_the_next_block_is_refused(tmp_path):
    wrong = toy_fitted.step_writer(float(toy_fitted.DECAY), carried=0)
    with pytest.raises(ExportError, match=r"toy_filter_step\.onnx differs"):
        exporting(tmp_path, *toy_fitted.filter_graphs(toy_fitted.DECAY, write=wrong))
    full, step = toy_fitted.filter_graphs(toy_fitted.DECAY)
    wrong(tmp_path / "wrong.onnx")
    inputs = proof.sequence_inputs(step, full)
    trial = proof.stepped_trial(
        proof.session(tmp_path / "wrong.onnx"), Signature.of(step), inputs, full.reference(inputs)["y"], {"h": [0.7]}
    )
    assert trial.worst > 1e-2


def test_a_sequence_whose_length_is_not_a_multiple_of_the_block_is_refused():
    step = Signature.of(toy_fitted.filter_graphs(toy_fitted.DECAY)[1])
    u = np.zeros((2, 10), np.float32)
    trial = proof.stepped_trial(lambda inputs: {}, step, {"u": u}, u, {"h": toy_fitted.START})
    assert "10 elements are not a multiple" in trial.failure


def test_a_recurrence_takes_as_many_steps_as_the_full_graph_allows():
    full, step = toy_fitted.filter_graphs(toy_fitted.DECAY)
    full = replace(full, axes={"n": (1, 16), "length": (1, 30)})
    assert proof.sequence_inputs(step, full)["u"].shape == (2, 28)


def test_a_signature_with_blocks_and_start_states_is_the_same_after_writing_and_reading():
    for graph in toy_fitted.filter_graphs(toy_fitted.DECAY):
        signature = Signature.of(graph)
        assert Signature.from_dict(json.loads(json.dumps(signature.to_dict()))) == signature


# verify, from the files alone


@pytest.fixture
def fitted(fitted_once, tmp_path) -> Workspace:
    shutil.copytree(fitted_once.root, tmp_path / "out")
    return Workspace(tmp_path / "out")


def test_trees_off_by_one_bit_on_the_disk_do_not_verify(fitted):
    verify(fitted.exports)
    path = fitted.exports / "toy_trees.onnx"
    model = onnx.load(path)
    weights = next(a for a in model.graph.node[0].attribute if a.name == "target_weights").floats
    weights[0] = np.nextafter(np.float32(weights[0]), np.float32(2))
    path.write_bytes(model.SerializeToString())
    accept(fitted.exports, "toy_fitted", "toy_trees.onnx")
    assert "toy_trees.onnx: toy_trees.onnx differs from its model" in problems_of(fitted.exports)


@pytest.mark.parametrize(
    ("start", "message"),
    [({}, r"needs start values of ['h']; there are values of []"), ({"h": toy_fitted.START * 2}, "differs")],
)
def test_a_golden_file_without_its_start_state_does_not_verify(fitted, start, message):
    name = "golden/toy_filter_step.npz"
    kept = golden.read_golden(fitted.exports / name)
    golden.write_golden(fitted.exports / name, kept.trials, kept.steps, start)
    accept(fitted.exports, "toy_fitted", name)
    assert message in problems_of(fitted.exports)


def test_a_receipt_with_a_wrong_block_does_not_verify(fitted):
    path = fitted.exports / "receipt.json"
    for block, message in ((2, "differs from its model"), (0, "is damaged")):
        content = json.loads(path.read_text())
        content["families"]["toy_fitted"]["graphs"]["toy_filter_step"]["recurrence"]["block"] = block
        path.write_text(json.dumps(content))
        assert f"toy_filter_step.onnx {message}" in problems_of(fitted.exports).replace(": the receipt's entry", "")
