"""Bar 12 compares sides that train the same questions with the same labels, and fails where they do not."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.sql import material, sft, sides, trl
from training.domains.sql.bases.folder import base_at, tokenizer_of
from training.engine.loading.batches import BatchPlan

SETUP = replace(trl.SMALL["small"], agreed=2)
MISSING = "trl not installed (make bench REFERENCES=1)"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def questions(cache):
    return material.demo_material(cache / "databases", SETUP.count)


@pytest.fixture(scope="module")
def tokenizer(cache, questions):
    return tokenizer_of(base_at(material.BASES["tiny"](cache, questions.texts)))


@pytest.fixture
def ours_alone(monkeypatch, cache):
    monkeypatch.setattr(trl, "CACHE", cache)
    monkeypatch.setattr(trl, "not_installed", lambda *_: MISSING)


def test_without_trl_the_domain_is_measured_alone_and_the_rest_is_reported(ours_alone):
    rows = trl.rows(SETUP)
    assert [row.bar for row in rows] == ["12e", "12f", "12g", "12h"]
    assert [row.met for row in rows] == [None, None, None, True]
    assert all(MISSING in row.note for row in rows[:3])
    alone = rows[3]
    assert alone.ours > 0 and alone.reference > 0 and alone.wanted == "stated"
    shared, single = (int(part.replace(",", "")) for part in tokens_of(alone.note))
    assert shared < 0.7 * single, "two questions of a bundle share their schema"


def tokens_of(note: str) -> list[str]:
    """ "...; computed a step: 1,054 against 1,966 tokens; ..." -> ["1,054", "1,966"]"""
    return note.partition("computed a step: ")[2].partition(" tokens")[0].split(" against ")


def test_sides_that_train_other_questions_are_refused(ours_alone, monkeypatch):
    monkeypatch.setattr(sides, "placed", lambda samples, plan: list(samples))
    with pytest.raises(RuntimeError, match=r"single: the loss of step 1 is .* the sides do not train the same"):
        trl.rows(SETUP)


def test_a_step_takes_the_questions_in_the_given_order():
    plan = BatchPlan(samples=12, batch_size=2, accumulate=2, world=1, seed=5)
    samples = sides.placed([(number,) for number in range(12)], plan)
    taken = [samples[index][0] for step in range(3) for index in plan.step_samples(step)]
    assert taken == list(range(12)) != [sample[0] for sample in samples]


@pytest.mark.parametrize(
    ("losses", "norms", "why"),
    [([2.0, 1.5], [1.0, 1.0], None), ([2.00001, 1.5], [1.0, 1.00005], None),
     ([2.001, 1.5], [1.0, 1.0], "loss of step 1"), ([2.0, 1.6], [1.0, 1.0], "loss of step 2"),
     ([2.0, math.nan], [1.0, 1.0], "loss of step 2"), ([2.0, 1.5], [1.001, 1.0], "gradient norm of step 1")],
)  # fmt: skip
def test_losses_and_gradients_must_agree(losses, norms, why):
    ours = sides.Done(losses=[2.0, 1.5, 1.0], norms=[1.0, 1.0, 1.0])
    done = sides.Done(losses=losses, norms=norms)
    if why is None:
        assert sides.difference("padded", done, ours, 2) < 1e-4
    else:
        with pytest.raises(RuntimeError, match=why):
            sides.difference("padded", done, ours, 2)


def test_a_step_that_a_side_did_not_train_is_no_agreement():
    with pytest.raises(ValueError, match="argument"):
        sides.difference(
            "padded", sides.Done(losses=[2.0], norms=[1.0]), sides.Done(losses=[2.0, 1.5], norms=[1.0, 1.0]), 2
        )


def test_labels_that_differ_from_the_domains_are_refused(questions, tokenizer):
    one = material.demo_case(questions, tokenizer, 2, 1).asked(0, 1)[0]
    ids = [*one.row.prompt.tolist(), *one.row.answer.tolist()]
    labels = [-100] * len(one.row.prompt) + one.row.answer.tolist()
    sft._require_same_rows([{"input_ids": ids, "labels": labels}], [one])
    with pytest.raises(RuntimeError, match="question 0"):
        sft._require_same_rows([{"input_ids": ids, "labels": ids}], [one])


def test_wide_schemas_hold_a_thousand_tokens_and_the_same_questions(questions, tokenizer):
    narrow, wide = (make(questions, tokenizer, 4, 1) for make in (material.demo_case, material.wide_case))
    assert narrow.schema_tokens < 600 and 950 < wide.schema_tokens < 1_050
    assert [one.sql for one in wide.asked(0, 5)] == [one.sql for one in narrow.asked(0, 5)]
    assert len(wide.asked(0, 1)) == wide.questions == 4
    first = wide.steps[0][0]
    shared = min(len(one.row.prompt) for one in first)
    same = np.all([one.row.prompt[: shared - 60] == first[0].row.prompt[: shared - 60] for one in first])
    assert same and shared > 1_000, "the questions of a bundle begin with the same schema"


def test_trl_trains_the_same_padded_and_packed(monkeypatch, cache):
    """Only where TRL is installed (make bench REFERENCES=1), which it is not in the project's environment."""
    pytest.importorskip("trl")
    monkeypatch.setattr(trl, "CACHE", cache)
    rows = trl.rows(SETUP)
    assert [row.bar for row in rows] == ["12e", "12f", "12g", "12h"]
    assert all(row.met is not None and row.ours > 0 and row.reference > 0 for row in rows)
    shared, padded = (int(part.replace(",", "")) for part in tokens_of(rows[0].note))
    packed = int(tokens_of(rows[2].note)[1].replace(",", ""))
    assert shared < packed <= padded
