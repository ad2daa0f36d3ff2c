"""Forests and their ONNX files decide like the library that grew them, at every threshold and beside it."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from training.domains.market.exports.trees import on_thresholds, write_forest
from training.domains.market.trees.families import CatBoost, LightGBM, XGBoost
from training.domains.market.trees.forest import LEAF, Forest, floor32, softmax
from training.domains.market.trees.growing import Chunk
from training.domains.market.trees.settings import Trees, TreeSettings

from .random_decisions import some_decisions

PRIOR = np.array([-1.0, -1.3, -0.9])
TREES = Trees(depth=4, bins=32, leaf=2)


def by_xgboost(model, rows):
    import xgboost

    return model.predict(xgboost.DMatrix(rows, base_margin=np.zeros((len(rows), 3), np.float32)), output_margin=True)


def by_lightgbm(model, rows):
    return model.predict(rows, raw_score=True)


def by_catboost(model, rows):
    return model.predict(rows, prediction_type="RawFormulaVal")


KINDS = {XGBoost: by_xgboost, LightGBM: by_lightgbm, CatBoost: by_catboost}


def grown(kind):
    """A model of the library, and its forest."""
    decisions = some_decisions(20)
    library = kind(TreeSettings()).library()
    table = library.table(decisions.features, decisions.label.astype(int), np.ones(len(decisions)), TREES, 1)
    model = library.grow(table, np.tile(PRIOR, (len(decisions), 1)), Chunk(0, 6, 5, 1), TREES)
    return model, library.forest(model)


def beside_every_threshold(forest: Forest) -> np.ndarray:
    """Rows in which one feature is a threshold, or up to two float32 numbers from it."""
    features = some_decisions(20).features
    rows = []
    for number, node in enumerate(np.flatnonzero(forest.feature != LEAF)):
        for away in (-2, -1, 0, 1, 2):
            row = features[(number * 7) % len(features)].copy()
            value = forest.threshold[node]
            for _ in range(abs(away)):
                value = np.nextafter(value, np.float32(np.copysign(np.inf, away)))
            row[forest.feature[node]] = value
            rows.append(row)
    return np.array(rows, np.float32)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.family)
def test_at_every_threshold_and_beside_it_forest_and_file_decide_like_the_library(kind, tmp_path):
    model, forest = grown(kind)
    rows = beside_every_threshold(forest)
    assert len(rows) > 400
    wanted = KINDS[kind](model, rows)
    margins = np.zeros((len(rows), 3))
    forest.add_to(margins, rows)
    assert np.abs(margins - wanted).max() < 1e-6

    write_forest(tmp_path / "trees.onnx", forest, PRIOR, rows.shape[1])
    onnx.checker.check_model(tmp_path / "trees.onnx", full_check=True)
    session = onnxruntime.InferenceSession(tmp_path / "trees.onnx")
    found = session.run(["proba"], {"features": rows})[0]
    assert np.abs(found - softmax(wanted + PRIOR)).max() < 1e-6


def test_lightgbms_zeros_go_where_zero_goes():
    """LightGBM takes every x from -1e-35 to 1e-35 for 0."""
    model, forest = grown(LightGBM)
    zero = np.float32(1e-35)
    near = np.abs(forest.threshold[forest.feature == 2])
    assert ((near > 0) & (near < 1e-30)).any(), "no tree asks whether the third feature is 0"
    rows = some_decisions(20).features[:6].copy()
    rows[:, 2] = [-zero, zero, 0, np.nextafter(zero, np.float32(1)), -np.nextafter(zero, np.float32(1)), 1e-38]
    margins = np.zeros((len(rows), 3))
    forest.add_to(margins, rows)
    assert np.abs(margins - by_lightgbm(model, rows)).max() < 1e-6


def test_a_float64_threshold_becomes_the_float32_below_it():
    exact = np.float32(0.1)
    between = (float(exact) + float(np.nextafter(exact, np.float32(1)))) / 2
    below = np.nextafter(exact, np.float32(0))  # 0.1 is below the float32 that is nearest to it
    assert floor32(np.array([float(exact), between, 0.1])).tolist() == [exact, exact, below]


def test_rows_on_thresholds_differ_from_rows_beside_them():
    """The rows with which an exported file is compared find a wrong comparison."""
    _, forest = grown(XGBoost)
    rows = on_thresholds(forest, some_decisions(20).features, 300, 1)
    moved = Forest.of(forest.arrays() | {"threshold": np.nextafter(forest.threshold, np.float32(-np.inf))})
    outputs = []
    for one in (forest, moved):
        margins = np.zeros((len(rows), 3))
        one.add_to(margins, rows)
        outputs.append(margins)
    assert (np.abs(outputs[0] - outputs[1]).max(1) > 1e-3).mean() > 0.1
