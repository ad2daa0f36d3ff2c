"""A tiny fitted family, whose model is two numpy arrays. It is exported as ready-made ONNX (trees; a linear recurrence,
at once and in blocks of four from a start state) and as two artefacts, a file and a folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from tests.export.toy import ToySettings
from training.data.files import sha256
from training.errors import ExportError
from training.graphs import Artefact, Graph, Recurrence, TensorSpec
from training.recipe import Fitted
from training.registry import item_of
from training.stages.trained import Trained
from training.workspace import Workspace

BLOCK = 4
START = np.array([0.7], np.float32)
#: feature, threshold, value at or below it, value above it: sums are exact in float32.
STUMPS = np.array([[0, 4, 1.25, 1.75], [2, 6, 0.0, 0.125]], np.float32)
DECAY = np.float32(0.75)

Write = Callable[[Path], None]


def state() -> dict[str, np.ndarray]:
    """A fitted model."""
    return {"stumps": STUMPS.copy(), "decay": np.array([DECAY])}


def tree_writer(stumps: np.ndarray) -> Write:
    """Two trees of one split, as a TreeEnsembleRegressor: x [n, 3] -> y [n, 1]."""
    at = range(len(stumps))
    trees = helper.make_node(
        "TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", n_targets=1, aggregate_function="SUM",
        nodes_treeids=[t for t in at for _ in range(3)], nodes_nodeids=[0, 1, 2] * len(stumps),
        nodes_featureids=[int(f) for s in stumps for f in (s[0], 0, 0)],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"] * len(stumps),
        nodes_values=[float(v) for s in stumps for v in (s[1], 0, 0)],
        nodes_truenodeids=[1, 0, 0] * len(stumps), nodes_falsenodeids=[2, 0, 0] * len(stumps),
        target_treeids=[t for t in at for _ in range(2)], target_nodeids=[1, 2] * len(stumps),
        target_ids=[0] * (2 * len(stumps)), target_weights=[float(v) for s in stumps for v in s[2:]],
    )  # fmt: skip
    return _saved([trees], [("x", ["n", 3])], [("y", ["n", 1])], [("ai.onnx.ml", 3), ("", 18)])


def _saved(nodes: list, inputs: list, outputs: list, opsets: list, constants: list | None = None) -> Write:
    values = [[helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in side] for side in (inputs, outputs)]
    graph = helper.make_graph(nodes, "toy", *values, initializer=constants or [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid(*one) for one in opsets], ir_version=8)
    return lambda path: path.write_bytes(model.SerializeToString()) and None


def tree_graph(stumps: np.ndarray, **changes: object) -> Graph:
    """The graph of the trees; with `tolerance` 0, outputs must be equal in every bit."""

    def reference(inputs):
        x = inputs["x"]
        parts = [np.where(x[:, int(f)] <= split, low, high) for f, split, low, high in stumps]
        return {"y": np.sum(parts, 0, dtype=np.float32)[:, None]}

    graph = {
        "name": "toy_trees",
        "module": None,
        "inputs": (TensorSpec("x", "float32", ("n", 3), "counts"),),
        "outputs": (TensorSpec("y", "float32", ("n", 1)),),
        "axes": {"n": (1, 1000)},
        "example": lambda sizes, seed: (
            np.random.default_rng(seed).integers(0, 10, (sizes["n"], 3)).astype(np.float32),
        ),
        "trials": ({"n": 1}, {"n": 64}),
        "tolerance": 0.0,
        "metadata": {"trees": str(len(stumps))},
        "write": tree_writer(stumps),
        "reference": reference,
    }
    return Graph(**{**graph, **changes})


def full_writer(decay: float, start: float = float(START[0])) -> Write:
    """y[t] = decay y[t - 1] + u[t], y[-1] = start: u [n, length] -> y [n, length], by a Scan."""
    one = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None]) for name in ("before", "now", "after", "out")]
    body = helper.make_graph(
        [
            helper.make_node("Mul", ["before", "decay"], ["kept"]),
            helper.make_node("Add", ["kept", "now"], ["after"]),
            helper.make_node("Identity", ["after"], ["out"]),
        ],
        "body", one[:2], one[2:], [helper.make_tensor("decay", TensorProto.FLOAT, [], [decay])],
    )  # fmt: skip
    nodes = [
        helper.make_node("Shape", ["u"], ["count"], start=0, end=1),
        helper.make_node(
            "ConstantOfShape", ["count"], ["begin"], value=helper.make_tensor("v", TensorProto.FLOAT, [1], [start])
        ),
        helper.make_node(
            "Scan", ["begin", "u"], ["end", "y"], body=body, num_scan_inputs=1, scan_input_axes=[1],
            scan_output_axes=[1],
        ),
    ]  # fmt: skip
    return _saved(nodes, [("u", ["n", "length"])], [("y", ["n", "length"])], [("", 18)])


def step_writer(decay: float, carried: int = BLOCK - 1) -> Write:
    """The same, four elements per step: u [n, 4], h [n, 1] -> y [n, 4], new_h [n, 1]. `carried`: the element of y that
    becomes the next state (all but the last are wrong)."""
    powers = np.subtract.outer(np.arange(BLOCK), np.arange(BLOCK)).T
    inside = np.where(powers >= 0, float(decay) ** np.maximum(powers, 0), 0).astype(np.float32)
    before = (float(decay) ** np.arange(1, BLOCK + 1)).astype(np.float32)[None]
    constants = [
        helper.make_tensor(name, TensorProto.FLOAT, array.shape, array.ravel())
        for name, array in (("inside", inside), ("before", before))
    ] + [helper.make_tensor("last", TensorProto.INT64, [1], [carried])]
    nodes = [
        helper.make_node("MatMul", ["u", "inside"], ["own"]),
        helper.make_node("MatMul", ["h", "before"], ["old"]),
        helper.make_node("Add", ["own", "old"], ["y"]),
        helper.make_node("Gather", ["y", "last"], ["new_h"], axis=1),
    ]
    inputs, outputs = [("u", ["n", BLOCK]), ("h", ["n", 1])], [("y", ["n", BLOCK]), ("new_h", ["n", 1])]
    return _saved(nodes, inputs, outputs, [("", 18)], constants)


def filtered(u: np.ndarray, before: np.ndarray, decay: np.float32) -> np.ndarray:
    """u [n, length], before [n] -> y [n, length]."""
    out = np.empty_like(u)
    for at in range(u.shape[1]):
        before = out[:, at] = decay * before + u[:, at]
    return out


def filter_graphs(decay: np.float32, **changes: object) -> list[Graph]:
    """The graphs of the recurrence at once, and in blocks from a start state; `changes` apply to the second."""

    def example(sizes, seed):
        return (np.random.default_rng(seed).normal(size=(sizes["n"], sizes["length"])).astype(np.float32),)

    def step_example(sizes, seed):
        random = np.random.default_rng(seed)
        return tuple(random.normal(size=(sizes["n"], width)).astype(np.float32) for width in (BLOCK, 1))

    def step_reference(inputs):
        y = filtered(inputs["u"], inputs["h"][:, 0], decay)
        return {"y": y, "new_h": y[:, -1:]}

    full = Graph(
        "toy_filter", None, (TensorSpec("u", "float32", ("n", "length")),),
        (TensorSpec("y", "float32", ("n", "length")),), {"n": (1, 16), "length": (1, 1000)}, example,
        ({"n": 1, "length": 1}, {"n": 3, "length": 30}), tolerance=1e-5, write=full_writer(float(decay)),
        reference=lambda inputs: {"y": filtered(inputs["u"], np.repeat(START, len(inputs["u"])), decay)},
    )  # fmt: skip
    step = {
        "name": "toy_filter_step",
        "module": None,
        "inputs": (TensorSpec("u", "float32", ("n", BLOCK)), TensorSpec("h", "float32", ("n", 1))),
        "outputs": (TensorSpec("y", "float32", ("n", BLOCK)), TensorSpec("new_h", "float32", ("n", 1))),
        "axes": {"n": (1, 16)},
        "example": step_example,
        "trials": ({"n": 1}, {"n": 5}),
        "tolerance": 1e-5,
        "recurrence": Recurrence("toy_filter", ("u",), (("h", "new_h"),), "y", 50, BLOCK, {"h": START}),
        "write": step_writer(float(decay)),
        "reference": step_reference,
    }
    return [full, Graph(**{**step, **changes})]


def write_table(stumps: np.ndarray) -> Write:
    """Write the trees as a table in JSON."""
    return lambda path: path.write_text(json.dumps({"stumps": stumps.tolist()})) and None


def write_folder(stumps: np.ndarray) -> Write:
    """Write a folder with one file per tree."""

    def write(path: Path) -> None:
        path.mkdir()
        for number, stump in enumerate(stumps):
            (path / f"{number}.json").write_text(json.dumps({"stumps": [stump.tolist()]}))

    return write


def prove_table(path: Path, about) -> dict[str, object]:
    """Read the trees back and evaluate them on the example of `about`: the answer must be equal in every bit."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    stumps = [stump for file in files for stump in json.loads(file.read_text())["stumps"]]
    answer = sum(low if about["x"][int(f)] <= split else high for f, split, low, high in stumps)
    if answer != about["answer"]:
        raise ExportError(f"{path.name} answers {answer}, not {about['answer']}.")
    return {"trees": len(stumps), "answer": answer}


class FittedRecipe(Fitted):
    """Two stumps and a decay; it is never fitted."""

    family, title, manifest = "toy_fitted", "Toy fitted", "toy_fitted"
    settings_type = ToySettings
    provers = {"table": prove_table}  # noqa: RUF012

    def encoders(self):
        raise AssertionError("an export must not call this")

    begin = advance = score = dump = load = encoders

    def samples(self, model, held_out, folder, seed):
        (folder / "note.txt").write_text(f"{len(held_out)} rows, {len(model['stumps'])} trees")
        return [folder / "note.txt"]

    def graphs(self, model):
        return [tree_graph(model["stumps"]), *filter_graphs(model["decay"][0])]

    def artefacts(self, model):
        about = {"x": (5.0, 0.0, 6.0), "answer": 1.75}
        return [
            Artefact("toy.table", write_table(model["stumps"]), "table", about),
            Artefact("trees/all", write_folder(model["stumps"]), "table", about),
        ]


def load_fitted(
    run: str, workspace: Workspace, checkpoint: Path | None = None, options: Mapping[str, Any] | None = None
) -> Trained:
    """A stand-in for stages.trained.load_trained for the fitted toy, whose checkpoint is any file."""
    path = checkpoint or workspace.checkpoints(run) / "best.pt"
    recipe = FittedRecipe(ToySettings())
    recipe.item = item_of(run)
    content = {
        "family": recipe.run, "metrics": {"val_loss": 0.5}, "progress": {"step": 30},
        "provenance": {"synthetic": True, "seconds": 3.0, "data_digest": "d" * 64, "seed": 42},
    }  # fmt: skip
    return Trained(path, sha256(path), content, recipe, state())
