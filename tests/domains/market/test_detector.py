"""Every leak is seen by one of the two nets, and a clean pipeline by none."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.domains.market.leaks import MUTANTS
from tests.domains.market.making import minutes
from training.domains.market.building import Trade, build
from training.domains.market.detector import statistics, structure
from training.domains.market.detector.worlds import flip_signs, move_labels
from training.domains.market.features.declared import NAMES
from training.domains.market.labels.costs import COSTS, barriers_of
from training.domains.market.splits.purging import Spans

TRADE = Trade(barriers_of("MES", 5), COSTS["MES"])
#: Which net sees a leak: structure, statistics (with ridge regression and a small market), or both.
SEEN = {
    "clean": set(), "random folds": {"structure"}, "centred average": {"structure", "statistics"},
    "hour stamped left": {"structure", "statistics"}, "next close as feature": {"structure", "statistics"},
    "z-score over all": {"structure"}, "no purge, contiguous folds": {"structure"},
}  # fmt: skip


@pytest.fixture(scope="module")
def market():
    return minutes(60_000, seed=8)


@pytest.mark.parametrize("leak", MUTANTS)
def test_a_leak_is_seen_by_the_net_that_should_see_it(market, leak):
    pipeline = MUTANTS[leak]
    decisions = build(market, TRADE)
    built = structure.examine(market, Spans(decisions.decided, decisions.ends), pipeline, NAMES, 1)
    seen = {"structure"} if built.reasons else set()
    if leak != "random folds":  # memory of neighbours: trees have it, a linear model has not
        earned = statistics.examine(market, TRADE, pipeline, "signs", 1, statistics.ridge, 4)
        seen |= {"statistics"} if earned.reasons else set()
    assert seen == SEEN[leak], built.reasons


def test_flipped_bars_are_mirrored_and_their_sizes_stay(market):
    flipped = flip_signs(market, 3)
    assert np.array_equal(flipped.volume, market.volume) and np.array_equal(flipped.time, market.time)
    for of in (market, flipped):
        assert (of.high >= np.maximum(of.open, of.close) * (1 - 1e-12)).all()
        assert (of.low <= np.minimum(of.open, of.close) * (1 + 1e-12)).all()
    moves, other = (np.diff(np.log(of.close)) for of in (market, flipped))
    assert np.abs(moves) == pytest.approx(np.abs(other), abs=1e-12)
    assert 0.45 < (np.sign(moves) == np.sign(other)).mean() < 0.55
    assert np.log(market.high / market.low) == pytest.approx(np.log(flipped.high / flipped.low), abs=1e-12)


def test_moved_labels_keep_their_order_and_lengths(market):
    decisions = build(market, TRADE)
    moved = move_labels(decisions, 2)
    assert np.array_equal(moved.features, decisions.features)
    assert sorted(moved.gain.tolist()) == sorted(decisions.gain.tolist())
    assert (moved.ends > moved.decided).all()
    assert (moved.gain != decisions.gain).mean() > 0.5


def test_one_world_above_zero_is_no_flag_and_five_are():
    assert statistics.probability_of([0.05, -0.02, 0.01, -0.04, 0.02]) > 0.2
    assert statistics.probability_of([0.05, 0.06, 0.04, 0.05, 0.07]) < 0.01


@pytest.mark.parametrize(("symbols", "stopped"), [(1, True), (30, False)])
def test_thirty_symbols_are_not_thirty_times_as_likely_to_stop_a_job(market, monkeypatch, symbols, stopped):
    monkeypatch.setattr(statistics, "_worlds", lambda *_: [0.05, 0.03, 0.03, 0.05, 0.01])
    monkeypatch.setattr(statistics, "correlation", lambda world, *_: world)
    earned = statistics.examine(market, TRADE, MUTANTS["clean"], "labels", 1, symbols=symbols)
    assert 0.01 / 30 < earned.probability < 0.01 and bool(earned.reasons) is stopped


def test_a_flag_stops_the_job_with_what_was_found(tmp_path, monkeypatch):
    from training.domain import Job
    from training.domains.market import places
    from training.domains.market.detector import node
    from training.errors import TrainingError
    from training.workspace import Workspace

    job = Job(Workspace(tmp_path), {}, say=lambda line: None)
    monkeypatch.setattr(node, "_symbols", lambda job: {"MES": {}})
    monkeypatch.setattr(node, "_symbol", lambda job, symbol, about, symbols: {"reasons": ["features change"]})
    with pytest.raises(TrainingError, match=r"(?s)nothing is exported.*MES: features change") as error:
        node.look_for_leaks(job)
    assert error.value.exit_code == 5
    assert json.loads(places.detector_path(job.workspace).read_text())["MES"]["reasons"] == ["features change"]
