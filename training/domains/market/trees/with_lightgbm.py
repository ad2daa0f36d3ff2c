"""LightGBM: leaf-wise trees, one for each class and round. It sends x <= threshold to the left, in float64, and takes
every x from -1e-35 to 1e-35 for 0 (kZeroThreshold)."""

from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np

from training.domains.market.trees.forest import LEAF, Forest, floor32
from training.domains.market.trees.growing import Chunk
from training.domains.market.trees.settings import Trees

ZERO = np.float32(1e-35)


class LightGBMLibrary:
    def table(self, features: np.ndarray, label: np.ndarray, weight: np.ndarray, trees: Trees, threads: int) -> Any:
        return lightgbm.Dataset(
            features, label, weight=weight, params=_of_table(trees, threads), free_raw_data=True
        ).construct()  # fmt: skip

    def grow(self, table: Any, margins: np.ndarray, chunk: Chunk, trees: Trees) -> lightgbm.Booster:
        table.set_init_score(margins)
        model = lightgbm.Booster(
            _of_table(trees, chunk.threads)
            | {
                "objective": "multiclass", "num_class": margins.shape[1], "boost_from_average": False,
                "max_depth": trees.depth, "num_leaves": 2**trees.depth - 1, "learning_rate": trees.rate,
                "bagging_fraction": trees.rows, "bagging_freq": 1, "feature_fraction": trees.columns,
                "lambda_l2": trees.l2, "min_data_in_leaf": max(1, round(trees.leaf)), "seed": chunk.seed,
                "deterministic": True,
            },
            table,
        )  # fmt: skip
        for _ in range(chunk.rounds):
            if model.update():  # no leaf can be split any more
                break
        return model

    def forest(self, model: lightgbm.Booster) -> Forest:
        classes = model.num_model_per_iteration()
        blocks = model.model_to_string(num_iteration=-1).split("\nTree=")[1:]
        trees = [_tree(block, number % classes, classes) for number, block in enumerate(blocks)]
        return Forest.join(trees) if trees else Forest.empty(classes)


def _of_table(trees: Trees, threads: int) -> dict[str, Any]:
    return {"max_bin": trees.bins, "feature_pre_filter": False, "min_data_in_leaf": max(1, round(trees.leaf)),
            "force_row_wise": True, "num_threads": threads, "verbosity": -1}  # fmt: skip


def _thresholds(exact: np.ndarray) -> np.ndarray:
    """float64 thresholds as float32, for x that are not taken for 0 first: all x in [-ZERO, ZERO] go where 0 goes."""
    below = np.nextafter(-ZERO, np.float32(-np.inf))
    return np.select([(exact >= 0) & (exact <= ZERO), (exact < 0) & (exact >= -ZERO)], [ZERO, below], floor32(exact))


def _tree(block: str, number: int, classes: int) -> Forest:
    """A tree of the text format. Its inner nodes are 0, 1 ...; a child of -1, -2 ... is leaf 0, 1 ..."""
    text = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)

    def column(name: str, dtype: type) -> np.ndarray:
        return np.array(text.get(name, "").split(), dtype)

    leaves = column("leaf_value", np.float64)
    inner = len(leaves) - 1
    value = np.zeros((inner + len(leaves), classes), np.float32)
    value[inner:, number] = leaves

    def children(name: str) -> np.ndarray:
        child = column(name, np.int32)[:inner]
        return np.concatenate([np.where(child < 0, inner - child - 1, child), np.zeros(len(leaves), np.int32)])

    feature = np.concatenate([column("split_feature", np.int32)[:inner], np.full(len(leaves), LEAF)])
    threshold = np.concatenate([_thresholds(column("threshold", np.float64)[:inner]), np.zeros(len(leaves))])
    return Forest(
        np.zeros(1, np.int32), feature.astype(np.int32), threshold.astype(np.float32),
        children("left_child").astype(np.int32), children("right_child").astype(np.int32), value,
    )  # fmt: skip
