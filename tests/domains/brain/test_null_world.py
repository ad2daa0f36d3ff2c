"""Subjects who saw another film: whatever is trained on them, nothing of it is predicted, and the verdict says so. And
what is not a training row changes nothing that is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.domains.brain.conftest import SIDE, SUBJECTS, TR, VOLUMES, changed, halved
from tests.domains.brain.test_brain_settings import RECIPES
from training.data.rows import Row
from training.domains.brain.demo.world import World, simulate
from training.domains.brain.rows import BOLD_PATH
from training.recipe import Stepped, TrainingProgress

STEPS = 6


def seen_by(world: World, rows: Sequence[Row]) -> list[Row]:
    """The rows with the BOLD of the subjects of another world."""
    records = {}
    for row in rows:
        number = int(row.values["subject_number"]) - 1
        if number not in records:
            bold, record = world.bold_STV[number], row.records[BOLD_PATH]
            offset, scale = bold.mean(0), np.ptp(bold, 0) / 60_000
            blocks = len(record["scale"])
            records[number] = {name: record[name] for name in ("shape", "affine", "tr")} | {
                "data": np.rint((bold - offset) / scale).astype(np.int16), "index": np.flatnonzero(world.mask),
                "scale": np.repeat(scale[None], blocks, 0), "offset": np.repeat(offset[None], blocks, 0),
            }  # fmt: skip
    return [
        replace(row, records={**row.records, BOLD_PATH: records[int(row.values["subject_number"]) - 1]})
        for row in rows
    ]  # fmt: skip


def trained(recipe: Stepped, rows: Sequence[Row]) -> torch.nn.Module:
    """Some steps on the windows of the rows, from the warm start."""
    constants = recipe.fit_constants(rows)
    torch.manual_seed(0)
    model, dataset = recipe.build(constants).train(), recipe.dataset(rows, training=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(STEPS):
        batch = dataset.collate([dataset.item(step, index) for index in range(min(2, len(dataset)))])
        counts = recipe.counts(batch)
        losses = recipe.losses(model, batch, TrainingProgress(step, STEPS))
        optimizer.zero_grad()
        sum(one.total * one.coefficient / counts[name] for name, one in losses.items()).backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def null(splits):
    world = simulate(VOLUMES, SUBJECTS, 6, tr=TR, side=SIDE)
    return {split: seen_by(world, rows) for split, rows in splits.items()}


@pytest.mark.parametrize(("family", "name", "most"), [
    ("encoding", "voxel_r", 0.02), ("autoencoder", "voxel_r", 0.02),
    ("decoding", "decode_r", 0.1),  # features are few and go together: test_nulls.py has the mean over films
])  # fmt: skip
def test_nothing_is_learnt_of_a_film_that_was_not_seen(null, family, name, most):
    recipe = RECIPES[family]
    model = trained(recipe, null["train"])
    found = recipe.evaluate(SimpleNamespace(model=model, train=null["train"], held_out=halved(null["test"])))
    metric = found.metrics[name]
    r = {"model": metric.model.value} | {of: one.value for of, one in metric.baselines.items()}
    assert max(map(abs, r.values())) < most, r
    assert found.verdict.word == "not learnt", found.verdict
    assert found.more["rows"] == {"train": len(null["train"]) / SUBJECTS, "held_out": 4}  # time blocks, not rows
    few = recipe.evaluate(SimpleNamespace(model=model, train=null["train"], held_out=null["test"]))
    assert few.verdict.word == "not learnt" and "Too few time blocks" in few.verdict.why[0], few.verdict


@pytest.mark.parametrize("family", RECIPES)
def test_garbage_in_held_out_volumes_changes_no_trained_weight(splits, family):
    held = [(row.values["begin"], row.values["end"]) for split in ("val", "test") for row in splits[split]]
    recipe = RECIPES[family]
    before, after = (trained(recipe, rows).state_dict() for rows in (splits["train"], changed(splits["train"], held)))
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(value, after[name]), name
