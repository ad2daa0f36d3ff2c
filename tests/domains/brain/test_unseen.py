"""A subject who is left out of training: nothing of it reaches the shared part, nor its test rows its head."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.domains.brain.conftest import SETTINGS, changed, job_of, options_of
from training.data.summary import summary_of
from training.domains.brain.autoencoder.recipe import AutoencoderRecipe
from training.domains.brain.autoencoder.settings import AutoencoderSettings
from training.domains.brain.decoding.recipe import DecodingRecipe
from training.domains.brain.decoding.settings import DecodingSettings
from training.domains.brain.encoding.recipe import EncodingRecipe
from training.domains.brain.evaluation import unseen
from training.domains.brain.prepare import prepare
from training.domains.brain.rows import UNSEEN
from training.errors import UsageError

LEFT_OUT = "03"
SECTIONS = {name: value for name, value in SETTINGS.model_dump().items() if name in ("windows", "data")}


@pytest.fixture(scope="module")
def recipe() -> EncodingRecipe:
    return EncodingRecipe(SETTINGS)


def without(rows):
    """The rows as prepare writes them with --hold-out-subject 03."""
    return [
        replace(row, values={**row.values, "subjects": 2,
                             **({UNSEEN: True} if row.values["subject"] == LEFT_OUT else {})})
        for row in rows
    ]  # fmt: skip


def garbage(rows, spans):
    """The rows with garbage in the subject who is left out, at some volumes."""
    others = [row for row in rows if UNSEEN not in row.values]
    return [*others, *changed([row for row in rows if UNSEEN in row.values], spans)]


@pytest.fixture(scope="module")
def left_out(splits):
    return {split: without(rows) for split, rows in splits.items()}


@pytest.mark.parametrize(
    "family",
    [EncodingRecipe(SETTINGS),
     AutoencoderRecipe(AutoencoderSettings(model={"rank": 6, "width": 8}, warm_start={"searches": 2}, **SECTIONS)),
     DecodingRecipe(DecodingSettings(model={"rank": 6, "width": 8}, **SECTIONS))],
    ids=lambda recipe: recipe.family,
)  # fmt: skip
def test_nothing_of_the_subject_reaches_training(family, left_out):
    rows, every = left_out["train"], [(0, 300)]
    constants, after = family.fit_constants(rows), family.fit_constants(garbage(rows, every))
    assert all(np.array_equal(value, after[name]) for name, value in constants.items())
    assert constants["drift"].shape[0] == 2
    for split in ("train", "val"):
        dataset = family.dataset(garbage(left_out[split], every), training=split == "train")
        clean = family.dataset(left_out[split], training=split == "train")
        assert len(dataset) == len(clean) > 0
        item, expected = dataset.item(0, 0), clean.item(0, 0)
        assert item["bold"].shape[0] == 2 and all(np.array_equal(item[name], expected[name]) for name in expected)


@pytest.fixture(scope="module")
def judged(recipe, left_out):
    """(rows of training, of the test) -> what the evaluation finds of the subject, and the weights of its heads."""
    torch.manual_seed(0)
    model = recipe.build(recipe.fit_constants(left_out["train"])).eval()

    def judge(train, test):
        heads = []
        with pytest.MonkeyPatch.context() as patch:
            fitted = unseen.Head.fitted
            patch.setattr(unseen.Head, "fitted", lambda *of: heads.append(fitted(*of)) or heads[-1])
            found = EncodingRecipe(SETTINGS).evaluate(SimpleNamespace(model=model, train=train, held_out=test))
        return found, [head.weights for head in heads]

    return judge


def test_its_test_rows_reach_no_head_and_its_training_rows_do(judged, left_out):
    train, test = left_out["train"], left_out["test"]
    (found, heads), held = judged(train, test), [(row.values["begin"], row.values["end"]) for row in test]
    after, same = judged(garbage(train, held), garbage(test, held))
    assert len(heads) == len(same) > 0 and all(np.array_equal(a, b) for a, b in zip(heads, same, strict=True))
    assert found.metrics == after.metrics  # the other subjects' results do not depend on this one
    (entry,), (changed_entry,) = found.more["brain"]["unseen"], after.more["brain"]["unseen"]
    assert entry["subject"] == LEFT_OUT and abs(changed_entry["of"][-1]["shared"]["r"]) < 0.05
    spans = [(row.values["begin"], row.values["end"]) for row in train]
    _, others = judged(garbage(train, spans), test)
    assert not np.array_equal(heads[0], others[0])
    assert set(found.more["brain"]["r_by_subject"]) == {"01", "02"}
    assert any(f"Subject {LEFT_OUT} was left out of training" in why for why in found.verdict.why)


def test_minutes_are_the_first_volumes_of_the_training_blocks():
    assert unseen._amounts(900, 1.5) == [(200, 5.0), (400, 10.0), (800, 20.0), (900, 22.5)]
    assert unseen._amounts(150, 1.5) == [(150, 3.8)]
    assert unseen._first([120, 100, 50], 200) == [120, 80]


def test_prepare_marks_the_subject_and_refuses_one_that_is_not_there(laboratory, prepared, tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "cache").symlink_to(prepared[0].workspace.cache)
    job, lines = job_of(tmp_path, **options_of(laboratory), hold_out_subject="sub-02")
    prepare(job)
    assert summary_of(job.workspace)["left_out"] == ["02"] and any("left out of training" in line for line in lines)
    lines = (job.workspace.manifests / "brain_train.jsonl").read_text().splitlines()
    marked = {UNSEEN in line for line in lines if '"subject": "02"' in line}
    assert marked == {True} and not any(UNSEEN in line for line in lines if '"subject": "02"' not in line)
    each = r"no subject each; there are 01, 02, 03\. For each of them in turn"
    for text, message in (("each", each), ("7", "no subject 7;"), ("01,02,03", "no subject is left")):
        with pytest.raises(UsageError, match=message):
            prepare(job_of(tmp_path, **options_of(laboratory), hold_out_subject=text)[0])
