"""One ONNX file for the complete ensemble: scalers, trees, networks and their combination."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from training.domains.market.decisions import BAR, CLASSES
from training.domains.market.exports.trees import OPSETS, model_of, nodes_of, on_thresholds
from training.domains.market.stacking.combining import Combination
from training.domains.market.stacking.members import LEAST, log_probabilities, window_of
from training.export.onnx import write_onnx
from training.export.trace import trace
from training.graphs import Graph, TensorSpec

WINDOW = "window"


def ensemble_graph(name: str, members: Mapping[str, Any], combination: Combination, sample: np.ndarray) -> Graph:
    """The graph with the input `window` float32 [batch, T, F] (raw features, the decision last; T is the longest window
    of a member) and the outputs `proba` and, for each member, `proba_<member>`, float32 [batch, C].

    `members`: family -> its trained model. `sample`: float32 [n, F], of which example inputs are made; the last
    decision of each lies on a threshold of a member's trees, or beside one.
    """
    length, features = max(window_of(one.model) for one in members.values()), sample.shape[1]
    forests = [one.model.forests[-1] for one in members.values() if hasattr(one.model, "forests")]

    def example(sizes, seed):
        random = np.random.default_rng(seed)
        window = sample[random.integers(len(sample), size=(sizes["batch"], length))]
        if forests:
            forest = forests[int(random.integers(len(forests)))]
            window[:, -1] = on_thresholds(forest, sample, sizes["batch"], seed)
        return (window,)

    def reference(inputs):
        given = {name: _last(one, inputs[WINDOW]) for name, one in members.items()}
        proba = combination.probabilities(log_probabilities(given)).astype(np.float32)
        return {"proba": proba} | {f"proba_{name}": of for name, of in given.items()}

    outputs = ["proba", *(f"proba_{name}" for name in members)]
    return Graph(
        name, None,
        (TensorSpec(WINDOW, "float32", ("batch", length, features), "raw features, the decision last"),),
        tuple(TensorSpec(one, "float32", ("batch", len(CLASSES)), f"of {', '.join(CLASSES)}") for one in outputs),
        {"batch": (1, 4096)}, example, ({"batch": 1}, {"batch": 200}), tolerance=1e-5,
        write=lambda path: _write(path, members, combination, length, features), reference=reference,
    )  # fmt: skip


def _last(trained: Any, window: np.ndarray) -> np.ndarray:
    """A member's probabilities float32 [B, C] for windows float32 [B, T, F], by the model itself."""
    own = window_of(trained.model)
    batch = len(window)
    rows = np.ascontiguousarray(window[:, -own:]).reshape(batch * own, -1)
    run = np.repeat(np.arange(batch), own)
    return trained.model.predict(-1, rows, run, run * BAR)[own - 1 :: own]


def _write(path: Path, members: Mapping[str, Any], combination: Combination, length: int, features: int) -> None:
    nodes, constants = [], {"one": np.array([1]), "end": np.array([np.iinfo(np.int64).max])}
    opsets, ready = dict(OPSETS), []
    for name, one in members.items():
        own, cut = window_of(one.model), f"{name}/window"
        constants[f"{name}/begin"] = np.array([-own])
        nodes.append(helper.make_node("Slice", [WINDOW, f"{name}/begin", "end", "one"], [cut], name=cut))
        proba = f"proba_{name}"
        if hasattr(one.model, "forests"):
            constants[f"{name}/shape"] = np.array([-1, features])
            rows = f"{name}/features"
            nodes.append(helper.make_node("Reshape", [cut, f"{name}/shape"], [rows], name=rows))
            nodes += nodes_of(one.model.forests[-1], one.model.prior[-1], rows, f"{name}/margins", proba)
        else:
            network = _network(name, one, cut, proba)
            opsets |= {found.domain: found.version for found in network.opset_import}
            nodes += network.graph.node
            ready += network.graph.initializer
    nodes += _combining(combination, list(members), constants)
    inputs = [helper.make_tensor_value_info(WINDOW, TensorProto.FLOAT, ["batch", length, features])]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", len(CLASSES)])
        for name in ("proba", *(f"proba_{name}" for name in members))
    ]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "ensemble", inputs, outputs, [*tensors, *ready])
    onnx.save(model_of(graph, [*opsets.items()]), path)


def _combining(combination: Combination, names: list[str], constants: dict[str, np.ndarray]) -> list[onnx.NodeProto]:
    """The nodes from the members' probabilities to `proba`; adds their constants."""
    classes = len(combination.bias)
    constants["least"] = np.array(LEAST, np.float32)
    constants["weights"] = combination.weights.reshape(-1, classes).astype(np.float32)
    constants["bias"] = combination.bias.astype(np.float32)
    return [
        helper.make_node("Concat", [f"proba_{name}" for name in names], ["members"], name="members", axis=1),
        helper.make_node("Max", ["members", "least"], ["at_least"], name="at_least"),
        helper.make_node("Log", ["at_least"], ["logs"], name="logs"),
        helper.make_node("Gemm", ["logs", "weights", "bias"], ["margins"], name="margins"),
        helper.make_node("Softmax", ["margins"], ["proba"], name="proba", axis=-1),
    ]


def _network(name: str, trained: Any, given: str, proba: str) -> onnx.ModelProto:
    """A member's exported network, whose names begin with the member's, from the tensor `given` to `proba`."""
    (graph,) = trained.recipe.graphs(trained.model.float().eval().cpu())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        write_onnx(graph, trace(graph), path, {})
        model = onnx.load(path)
    if model.functions:
        raise ValueError(f"the exported {name} has local functions, which cannot be put into another graph")
    model = compose.add_prefix(model, f"{name}/")
    renamed = {f"{name}/{WINDOW}": given, f"{name}/proba": proba}
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [renamed.get(one, one) for one in names]
    return model
