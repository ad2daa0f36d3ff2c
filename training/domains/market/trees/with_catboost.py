"""CatBoost: symmetric trees, one for all classes in a round. It sends x > border to the right, in float32."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import catboost
import numpy as np

from training.domains.market.trees.forest import LEAF, Forest
from training.domains.market.trees.growing import Chunk
from training.domains.market.trees.settings import Trees


class CatBoostLibrary:
    def table(self, features: np.ndarray, label: np.ndarray, weight: np.ndarray, trees: Trees, threads: int) -> Any:
        table = catboost.Pool(features, label, weight=weight, thread_count=threads)
        table.quantize(border_count=trees.bins, task_type=_task(trees))
        return table

    def grow(self, table: Any, margins: np.ndarray, chunk: Chunk, trees: Trees) -> catboost.CatBoost:
        table.set_baseline(margins)
        settings = {
            "loss_function": "MultiClass", "classes_count": margins.shape[1], "iterations": chunk.rounds,
            "depth": trees.depth, "learning_rate": trees.rate, "l2_leaf_reg": trees.l2, "border_count": trees.bins,
            "boosting_type": "Plain", "bootstrap_type": "Bernoulli", "subsample": trees.rows,
            "random_strength": _strength(chunk.first * trees.rate, table.num_row()), "task_type": _task(trees),
            "random_seed": chunk.seed, "thread_count": chunk.threads, "verbose": False, "allow_writing_files": False,
        }  # fmt: skip
        if trees.device == "cpu":  # the GPU has it only for pairwise losses
            settings["rsm"] = trees.columns
        model = catboost.CatBoost(settings)
        model.fit(table)
        return model

    def forest(self, model: catboost.CatBoost) -> Forest:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.json"
            model.save_model(str(path), format="json")
            content = json.loads(path.read_text(encoding="utf-8"))
        about = content["features_info"]["float_features"]
        columns = {one["feature_index"]: one["flat_feature_index"] for one in about}
        scale, bias = content["scale_and_bias"]
        if scale != 1 or any(bias):
            raise ValueError(f"a CatBoost model grown from margins has scale {scale} and bias {bias}")
        classes = len(bias)
        return Forest.join([_tree(tree, columns, classes) for tree in content["oblivious_trees"]])


def _task(trees: Trees) -> str:
    return "GPU" if trees.device == "cuda" else "CPU"


def _strength(grown: float, rows: int) -> float:
    """The random strength of the first of the chunk's rounds: CatBoost lets it fall with the size of the model, of
    which a chunk does not know. `grown`: rounds times learning rate. As in catboost's greedy_tensor_search.cpp
    (CalcDerivativesStDevFromZeroMultiplier): left / (1 + left), left = rows * exp(-grown)."""
    left = math.exp(math.log(rows) - grown)
    return left / (1 + left)


def _tree(tree: dict[str, Any], columns: dict[int, int], classes: int) -> Forest:
    """A symmetric tree of D splits: bit i of a leaf's index is 1 if x is above the border of split i. As a binary tree
    its root asks the last split; node k has the children 2k + 1 and 2k + 2, and the leaves are in the order of their
    index."""
    splits = (tree.get("splits") or [])[::-1]
    depth = len(splits)
    inner, leaves = 2**depth - 1, 2**depth
    level = np.floor(np.log2(np.arange(1, inner + 1))).astype(int)
    feature = np.array([columns[split["float_feature_index"]] for split in splits], np.int32)
    border = np.array([split["border"] for split in splits], np.float32)
    value = np.zeros((inner + leaves, classes), np.float32)
    value[inner:] = np.array(tree["leaf_values"]).reshape(leaves, classes)
    child = np.concatenate([2 * np.arange(inner) + 1, np.zeros(leaves)]).astype(np.int32)
    return Forest(
        np.zeros(1, np.int32), np.concatenate([feature[level], np.full(leaves, LEAF)]).astype(np.int32),
        np.concatenate([border[level], np.zeros(leaves)]).astype(np.float32), child,
        np.where(child > 0, child + 1, 0).astype(np.int32), value,
    )  # fmt: skip
