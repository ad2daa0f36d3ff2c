"""XGBoost: depth-wise trees, one for each class and round. It sends x < threshold to the left, in float32."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import xgboost

from training.domains.market.trees.forest import LEAF, Forest
from training.domains.market.trees.growing import Chunk
from training.domains.market.trees.settings import Trees
from training.errors import UsageError


class XGBoostLibrary:
    def table(self, features: np.ndarray, label: np.ndarray, weight: np.ndarray, trees: Trees, threads: int) -> Any:
        if trees.device == "cuda" and not xgboost.build_info()["USE_CUDA"]:
            raise UsageError(
                "trees.device is cuda, and the installed XGBoost has no CUDA. Install it without its own NCCL, which "
                "would replace torch's: pip uninstall xgboost-cpu, then pip install --no-deps "
                f"xgboost=={xgboost.__version__}"
            )
        return xgboost.QuantileDMatrix(
            features, label=label, weight=weight, max_bin=trees.bins, nthread=threads
        )  # fmt: skip

    def grow(self, table: Any, margins: np.ndarray, chunk: Chunk, trees: Trees) -> xgboost.Booster:
        table.set_base_margin(margins.astype(np.float32))
        return xgboost.train(
            {
                "objective": "multi:softprob", "num_class": margins.shape[1], "tree_method": "hist",
                "max_depth": trees.depth, "eta": trees.rate, "subsample": trees.rows, "max_bin": trees.bins,
                "colsample_bytree": trees.columns, "lambda": trees.l2,
                # the hessian of the softmax with 3 equal classes is 2 p (1 - p) = 4/9 a decision
                "min_child_weight": trees.leaf * 4 / 9,
                "device": trees.device, "seed": chunk.seed, "nthread": chunk.threads, "verbosity": 0,
            },
            table, chunk.rounds,
        )  # fmt: skip

    def forest(self, model: xgboost.Booster) -> Forest:
        content = json.loads(bytes(model.save_raw("json")))["learner"]["gradient_booster"]["model"]
        classes = max(content["tree_info"]) + 1
        return Forest.join([
            _tree(tree, number, classes)
            for tree, number in zip(content["trees"], content["tree_info"], strict=True)
        ])  # fmt: skip


def _tree(tree: dict[str, Any], number: int, classes: int) -> Forest:
    left = np.array(tree["left_children"], np.int32)
    split = np.array(tree["split_conditions"], np.float32)  # of a leaf: its value
    leaf = left < 0
    value = np.zeros((len(left), classes), np.float32)
    value[leaf, number] = split[leaf]
    return Forest(
        np.zeros(1, np.int32), np.where(leaf, LEAF, np.array(tree["split_indices"])).astype(np.int32),
        # x < t is x <= the float32 before t
        np.where(leaf, 0, np.nextafter(split, np.float32(-np.inf))).astype(np.float32),
        np.maximum(left, 0), np.maximum(np.array(tree["right_children"], np.int32), 0), value,
    )  # fmt: skip
