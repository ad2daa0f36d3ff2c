"""Where nothing can be predicted, nothing is: films that the subjects did not see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from training.domains.brain.bold.values import Normaliser
from training.domains.brain.decoding.linear import delayed, delays_of
from training.domains.brain.demo.world import simulate
from training.domains.brain.evaluation.measures import BlockEstimate, Moments, joined
from training.domains.brain.features.haemodynamics import with_response
from training.domains.brain.regression import dual, ridge
from training.domains.brain.splits.blocks import blocks, rows_of

VOLUMES, TR, SEEDS = 600, 1.5, 16


@dataclass(frozen=True)
class Found:
    """Correlations over held-out blocks: of voxels with what ridge predicts, of the drives with what it decodes."""

    encoded: BlockEstimate
    decoded: BlockEstimate


def held_out(seed: int, null: bool) -> Found:
    world = simulate(VOLUMES, 2, seed, tr=TR, side=9, null=null)
    split = blocks(VOLUMES, TR, seed)
    trained = [(one.begin, one.end) for one in split if one.split == "train"]
    held = [row for one in split if one.split != "train" for row in rows_of(one)]
    train = np.concatenate([np.arange(*span) for span in trained])
    drives = world.drives_TD.astype(np.float32)
    drives = (drives - drives[train].mean(0)) / drives[train].std(0)
    features, delays = with_response(drives, TR), delays_of(TR)
    ahead, encoded, decoded = max(delays), [], []
    for bold in world.bold_STV:
        values = Normaliser.fitted(bold, train, TR)(bold, TR)
        fitted = ridge.fit(features[train], values[train], [end - begin for begin, end in trained])
        encoded.append(Moments.of([fitted.predict(features[a:b]) for a, b in held], [values[a:b] for a, b in held]))
        parts = [delayed(values[a:b], delays) for a, b in trained]
        stacked = [np.concatenate(of) for of in zip(*parts, strict=True)]
        targets = np.concatenate([drives[a : b - ahead] for a, b in trained])
        lengths = [b - a - ahead for a, b in trained]
        weights = dual.fit(dual.gram(stacked), targets, lengths).weights(stacked)
        found = sum(part @ of for part, of in zip(delayed(values, delays), weights, strict=True))
        decoded.append(Moments.of([found[a : b - ahead] for a, b in held], [drives[a : b - ahead] for a, b in held]))
    return Found(joined(encoded).mean_of(), joined(decoded).mean_of())


@pytest.fixture(scope="module")
def nulls() -> list[Found]:
    return [held_out(seed, null=True) for seed in range(SEEDS)]


@pytest.mark.parametrize(("what", "most"), [("encoded", 0.03), ("decoded", 0.15)])
def test_the_mean_over_films_that_were_not_seen_is_zero(nulls, what, most):
    """A single film has a correlation by chance, of decoding more than of voxels: 13 drives, which go together, are
    correlated over minutes. The mean over films has none."""
    r = np.array([getattr(one, what).value for one in nulls])
    error = r.std(ddof=1) / np.sqrt(SEEDS)
    assert abs(r.mean()) < 0.02 and abs(r.mean()) < 2.5 * error, (r.mean(), error)
    assert np.abs(r).max() < most, r


@pytest.mark.parametrize("what", ["encoded", "decoded"])
def test_an_interval_is_above_zero_no_more_often_than_it_claims(nulls, what):
    assert sum(getattr(one, what).interval().low > 0 for one in nulls) <= 1  # of 16, at 2.5 %


def test_a_film_that_was_seen_has_one(nulls):
    seen = held_out(0, null=False)
    assert seen.encoded.value > 3 * max(abs(one.encoded.value) for one in nulls)
    assert seen.encoded.interval().low > 0.05 and seen.decoded.interval().low > 0.05
