"""Writes forests as ONNX (TreeEnsembleRegressor of ai.onnx.ml 3, then Softmax), for all three libraries.

onnxmltools 1.16 writes LightGBM's float64 thresholds rounded to the nearest float32, so rows that lie on a threshold go
the wrong way. Here the thresholds are those of Forest, for which every comparison in float32 is that of the library.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from training.domains.market.trees.forest import LEAF, Forest

OPSETS = {"": 18, "ai.onnx.ml": 3}
IR_VERSION = 10


def nodes_of(forest: Forest, prior: np.ndarray, given: str, margins: str, proba: str) -> list[onnx.NodeProto]:
    """The nodes that compute `margins` and `proba` (float32 [N, C]) from the tensor `given` (float32 [N, F]). `prior`:
    float [C], the margins without a tree."""
    trees = helper.make_node(
        "TreeEnsembleRegressor", [given], [margins], name=margins, domain="ai.onnx.ml", **_attributes(forest, prior)
    )  # fmt: skip
    return [trees, helper.make_node("Softmax", [margins], [proba], name=proba, axis=-1)]


def _attributes(forest: Forest, prior: np.ndarray) -> dict[str, object]:
    count = len(forest.feature)
    sizes = np.diff([*forest.roots, count])
    tree = np.repeat(np.arange(len(sizes)), sizes)
    first = np.repeat(forest.roots, sizes)
    leaf = forest.feature == LEAF
    # A leaf adds only to the classes for which it has a value; one without any adds 0 to the first.
    adds = leaf[:, None] & (forest.value != 0)
    adds[leaf & ~adds.any(1), 0] = True
    node, target = np.nonzero(adds)
    own = np.arange(count) - first
    return {
        "n_targets": len(prior), "aggregate_function": "SUM", "post_transform": "NONE",
        "base_values": prior.astype(np.float32).tolist(),
        "nodes_treeids": tree.tolist(), "nodes_nodeids": own.tolist(),
        "nodes_featureids": np.where(leaf, 0, forest.feature).tolist(), "nodes_values": forest.threshold.tolist(),
        "nodes_modes": np.where(leaf, "LEAF", "BRANCH_LEQ").tolist(),
        "nodes_truenodeids": np.where(leaf, 0, forest.left - first).tolist(),
        "nodes_falsenodeids": np.where(leaf, 0, forest.right - first).tolist(),
        "nodes_missing_value_tracks_true": [0] * count, "nodes_hitrates": [1.0] * count,
        "target_treeids": tree[node].tolist(), "target_nodeids": own[node].tolist(), "target_ids": target.tolist(),
        "target_weights": forest.value[node, target].tolist(),
    }  # fmt: skip


def write_forest(path: Path, forest: Forest, prior: np.ndarray, features: int) -> None:
    """A file with the input `features` (float32 [batch, F]) and the output `proba` (float32 [batch, C])."""
    graph = helper.make_graph(
        nodes_of(forest, prior, "features", "margins", "proba"), "forest",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", features])],
        [helper.make_tensor_value_info("proba", TensorProto.FLOAT, ["batch", len(prior)])],
    )  # fmt: skip
    onnx.save(model_of(graph), path)


def model_of(graph: onnx.GraphProto, opsets: Sequence[tuple[str, int]] = tuple(OPSETS.items())) -> onnx.ModelProto:
    """A graph as a model of the opsets that the trees need."""
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(*one) for one in opsets], ir_version=IR_VERSION)


def on_thresholds(forest: Forest, features: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Rows that try the comparisons: `count` rows of `features` (float32 [N, F]), in each of which one feature is a
    threshold of the forest, or one of the two float32 numbers beside it."""
    random = np.random.default_rng(seed)
    inner = np.flatnonzero(forest.feature != LEAF)
    rows = features[random.integers(len(features), size=count)].copy()
    if len(inner):
        node = inner[random.integers(len(inner), size=count)]
        exact = forest.threshold[node]
        beside = [np.nextafter(exact, np.float32(side)) for side in (-np.inf, np.inf)]
        rows[np.arange(count), forest.feature[node]] = np.choose(random.integers(3, size=count), [exact, *beside])
    return rows
