"""Where nothing can be predicted, nothing is: ten films that the subjects did not see."""

from __future__ import annotations

import numpy as np
import pytest

from training.domains.brain.bold.values import Normaliser
from training.domains.brain.demo.world import simulate
from training.domains.brain.features.haemodynamics import with_response
from training.domains.brain.regression import ridge
from training.domains.brain.splits.blocks import blocks

VOLUMES, TR, SEEDS = 600, 1.5, 10


def held_out_r(seed: int, null: bool) -> float:
    """The mean correlation of ridge on the drives of the film, over the held-out blocks and all voxels."""
    world = simulate(VOLUMES, 2, seed, tr=TR, side=11, null=null)
    split = blocks(VOLUMES, TR, seed)
    train, held = (
        np.concatenate([np.arange(one.begin, one.end) for one in split if (one.split == "train") == wanted])
        for wanted in (True, False)
    )
    lengths = [one.end - one.begin for one in split if one.split == "train"]
    features = with_response(world.drives_TD.astype(np.float32), TR)
    found = []
    for bold in world.bold_STV:
        values = Normaliser.fitted(bold, train, TR)(bold, TR)
        fitted = ridge.fit(features[train], values[train], lengths)
        found.append(ridge.correlations(fitted.predict(features[held]), values[held]).mean())
    return float(np.mean(found))


@pytest.fixture(scope="module")
def nulls() -> list[float]:
    return [held_out_r(seed, null=True) for seed in range(SEEDS)]


def test_no_null_world_has_a_correlation(nulls):
    assert max(map(abs, nulls)) < 0.02, nulls


def test_a_film_that_was_seen_has_one(nulls):
    assert held_out_r(0, null=False) > 3 * max(map(abs, nulls))
