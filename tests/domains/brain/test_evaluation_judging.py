"""The judgement: above the null, beside banded ridge, and withheld where the split leaks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.domains.brain.conftest import halved
from training.domains.brain.evaluation.judging import (
    Fitting,
    beyond_the_beginning,
    held_of,
    judge,
    linear_baselines,
    not_below,
)
from training.domains.brain.material import Material, Rows
from training.domains.brain.regression.baselines import BANDED, ORACLE, REDUCED, ROLLED
from training.judgement import About, Interval, Metric

FITTING = Fitting(seed=0, searches=2, rank=6)


@pytest.fixture(scope="module")
def material(splits):
    return Material.of(splits["train"])


def test_the_measured_signal_is_learnt_and_the_truth_stands_beside_it(material, splits):
    """A prediction that has half of the measured signal in it is better than every baseline."""
    rows = Rows.of(splits["test"])

    def predict(subject, run, begin, end):
        noise = np.random.default_rng(begin).standard_normal((end - begin, len(rows.voxels)))
        return (material.bold(rows, subject, run, begin, end) + noise).astype(np.float32)

    found = judge(predict, material, halved(splits["test"]), FITTING)
    assert found.verdict.word == "learnt", found.verdict
    metric = found.metrics["voxel_r"]
    assert metric.model.value == pytest.approx(0.7, abs=0.1)
    assert set(metric.baselines) == {"mean", "rolled", "ridge", BANDED, REDUCED, ORACLE}
    assert metric.baselines["mean"] == Interval(0.0, 0.0, 0.0)
    brain = found.more["brain"]
    assert brain["matching"]["of"] == sum(brain["matching"]["right"]) / 3 and brain["matching"]["of"] >= 3
    assert brain["ceiling"]["kind"] == "between subjects" and "lower bound" in brain["ceiling"]["bound"]
    assert brain["truth"]["exact_ceiling"] == pytest.approx(0.38, abs=0.05)


def test_noise_is_not_learnt(material, splits):
    def predict(subject, run, begin, end):
        return np.random.default_rng(begin).standard_normal((end - begin, len(material.train.voxels)))

    found = judge(predict, material, splits["test"], FITTING)
    assert abs(found.metrics["voxel_r"].model.value) < 0.05
    assert found.verdict.word == "not learnt"


def test_ridge_predicts_voxels_that_depend_on_the_film_and_no_others(material, splits, world):
    held = held_of(material, Rows.of(splits["test"]))
    responsive = (world.ceiling_SV > 0).ravel()
    r = {
        name: held.moments(held.predicted(predict)).correlations()
        for name, predict in linear_baselines(material, FITTING).items()
    }
    for name in ("ridge", BANDED, REDUCED):
        assert r[name][responsive].mean() > r[name][~responsive].mean() + 0.02, name
    assert abs(r[ROLLED].mean()) < 0.03


def test_held_out_rows_beside_training_rows_withhold_the_verdict(material, splits):
    row = splits["train"][0]
    near = replace(row, values={**row.values, "begin": row.values["end"], "end": row.values["end"] + 20})
    others = [
        replace(other, values={**other.values, "begin": near.values["begin"], "end": near.values["end"]})
        for other in splits["train"]
        if other.values["begin"] == row.values["begin"]
    ]

    def predict(subject, run, begin, end):
        return np.random.default_rng(begin).standard_normal((end - begin, len(material.train.voxels)))

    found = judge(predict, material, others, FITTING)
    assert found.verdict.word == "not learnt"
    assert any("The split leaks: 0 volumes" in why and "17 are needed" in why for why in found.verdict.why)


@pytest.mark.parametrize(
    ("gap", "mark", "word"),
    [((0.01, 0.005, 0.02), "good", "Better"), ((-0.02, -0.03, -0.01), "fair", "Use the ridge"),
     ((0.001, -0.01, 0.01), "good", "No better than banded ridge regression, and not worse")],
)  # fmt: skip
def test_the_comparison_with_banded_ridge_is_in_words(gap, mark, word):
    metric = Metric(About("higher", "", ""), Interval(0.2, 0.1, 0.3), {BANDED: Interval(0.2, 0.1, 0.3)},
                    {BANDED: Interval(*gap)})  # fmt: skip
    assert not_below(replace(metric, estimated=False)).mark == "fair"
    found = not_below(metric)
    assert found.mark == mark and word in found.sentence


@pytest.mark.parametrize(
    ("low", "high", "sentence"),
    [(0.01, 0.02, "Training has added 0.015"), (-0.02, -0.01, "Training has taken 0.015"),
     (-0.01, 0.04, "Training has added nothing that can be shown")],
)  # fmt: skip
def test_what_training_adds_to_its_warm_start_is_stated(low, high, sentence):
    about = About("higher", "", "")
    metric = Metric(about, Interval(0.2, 0.1, 0.3), {REDUCED: Interval(0.185, 0.1, 0.3)},
                    {REDUCED: Interval((low + high) / 2, low, high)})  # fmt: skip
    assert beyond_the_beginning(metric).startswith(sentence) and "with which it begins" in beyond_the_beginning(metric)


def test_baselines_are_fitted_once_for_both_splits(material, splits, monkeypatch):
    fitted = {}
    zero = np.zeros((1, len(material.train.voxels)), np.float32)

    def predict(subject, run, begin, end):
        return np.repeat(zero, end - begin, 0)

    before = judge(predict, material, splits["val"], FITTING, fitted).metrics["voxel_r"].baselines
    monkeypatch.setattr("training.domains.brain.evaluation.judging.linear_baselines", None)
    again = judge(predict, material, splits["val"], FITTING, fitted).metrics["voxel_r"].baselines
    assert again == before
