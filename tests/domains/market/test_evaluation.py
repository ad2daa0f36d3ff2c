"""Measures, trades and ratios against their definitions; verdicts with and without an edge."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from training.data.rows import Row
from training.domains.market.decisions import Decisions
from training.domains.market.evaluation import trials
from training.domains.market.evaluation.baselines import PRIOR, VOLATILITY, Logistic, baselines
from training.domains.market.evaluation.judging import judge
from training.domains.market.evaluation.measures import score_of, summarise, sums_of
from training.domains.market.evaluation.sharpe import Daily, deflated, expected_best, probabilistic
from training.domains.market.evaluation.trading import drawdown, random_entries, results, sides, trade
from training.domains.market.rows import DECISIONS_PATH

NAMES = ("m5_ret_1", "m5_realised_10", "time_day_sin")
MINUTE = 60_000_000_000


def market(days: int = 60, a_day: int = 40, edge: float = 0.0, seed: int = 0) -> Decisions:
    """A volatility that decides how often nothing is touched, and a direction with a weight of `edge`."""
    random = np.random.default_rng(seed)
    count = days * a_day
    direction, volatility = random.standard_normal(count), random.standard_normal(count)
    margin = np.stack([-edge * direction, -volatility, edge * direction], 1) + random.gumbel(size=(count, 3))
    label = margin.argmax(1)
    up, down = np.full(count, 2.1, np.float32), np.full(count, 2.0, np.float32)
    gain = np.select([label == 0, label == 2], [-down, up], random.uniform(-1, 1, count))
    decided = (np.arange(count) * 5 + (np.arange(count) // a_day) * 1_200) * MINUTE
    features = np.stack([direction, volatility, random.standard_normal(count)], 1).astype(np.float32)
    return Decisions(
        NAMES, features, label.astype(np.int8), decided, decided, decided + random.integers(5, 60, count) * MINUTE,
        np.full(count, 0.3, np.float32), *[gain.astype(np.float32)] * 2, up, down, np.full(count, 0.1, np.float32),
        (np.arange(count) // a_day).astype(np.int32), np.zeros(count, np.int32),
    )  # fmt: skip


def rows_of(decisions: Decisions, tmp_path, share: float = 0.6) -> tuple[list[Row], list[Row]]:
    arrays, cut = decisions.arrays(), int(len(decisions) * share)

    def row(first: int, last: int) -> Row:
        path = tmp_path / "data" / "decisions" / "MES.decisions"
        values = {DECISIONS_PATH: str(path), "symbol": "MES", "first": first, "last": last}
        return Row(values, "m:1", {DECISIONS_PATH: arrays})

    return [row(0, cut)], [row(cut, len(decisions))]


def means(sums) -> dict[str, float]:
    return {name: table[:, 0].sum() / table[:, 1].sum() for name, table in sums.items()}


def test_measures_equal_their_definitions():
    held = market(6)
    random = np.random.default_rng(1)
    proba = random.dirichlet([2, 1, 2], len(held))
    found = summarise(means(sums_of(proba, held)))
    label = held.label.astype(int)
    guess = proba.argmax(1)
    assert found["log_loss"] == pytest.approx(np.mean([-math.log(p[y]) for p, y in zip(proba, label, strict=True)]))
    assert found["brier"] == pytest.approx(((proba - np.eye(3)[label]) ** 2).sum(1).mean())
    assert found["ic"] == pytest.approx(np.corrcoef(score_of(proba, held), held.gain)[0, 1])
    f1 = []
    for c in range(3):
        hit = ((guess == c) & (label == c)).sum()
        f1.append(2 * hit / ((guess == c).sum() + (label == c).sum()))
    assert found["macro_f1"] == pytest.approx(np.mean(f1))
    t, p = (np.bincount(x, minlength=3) for x in (label, guess))
    n, hits = len(label), (label == guess).sum()
    mcc = (hits * n - t @ p) / math.sqrt((n**2 - p @ p) * (n**2 - t @ t))
    assert found["mcc"] == pytest.approx(mcc)
    sure, ece = proba.max(1), 0.0
    for b in range(10):
        inside = (sure >= b / 10) & (sure < (b + 1) / 10)
        if inside.any():
            ece += inside.mean() * abs(sure[inside].mean() - (guess == label)[inside].mean())
    assert found["ece"] == pytest.approx(ece)


def test_a_constant_prediction_has_no_correlation():
    held = market(6)
    found = summarise(means(sums_of(np.tile([0.4, 0.2, 0.4], (len(held), 1)), held)))
    assert found["ic"] == 0 and found["mcc"] == 0


def test_trades_do_not_overlap_and_pay_costs():
    held = market(20)
    proba = np.random.default_rng(2).dirichlet([1, 1, 1], len(held))
    side = sides(proba, held)
    found = trade(held, side)
    assert len(found.index) > 50
    assert (held.decided[found.index[1:]] >= held.ends[found.index[:-1]]).all()
    for at, which, result in zip(found.index.tolist(), found.side, found.result, strict=True):
        expected = min(held.gain[at], held.up[at]) if which > 0 else -max(held.gain[at], -held.down[at])
        assert result == pytest.approx(expected - held.cost[at])
        value = held.up[at] * proba[at, 2] - held.down[at] * proba[at, 0]
        assert which * value > held.cost[at]
    assert found.daily.sum() == pytest.approx(found.result.sum())
    assert len(found.daily) == 20


def test_a_stop_is_filled_at_the_worse_price_and_a_target_at_its_own():
    held = market(1, 2)
    gap = held.take(np.array([0, 0]))
    gap = replace(gap, **dict.fromkeys(("gain", "gain_sold"), np.array([-3.5, 3.5], np.float32)))
    assert results(gap, np.array([1, 1])) == pytest.approx([-3.6, 2.0])
    assert results(gap, np.array([-1, -1])) == pytest.approx([1.9, -3.6])


def test_random_entries_earn_what_the_market_gives():
    held = market(60)
    found = trade(held, np.ones(len(held), np.int8))
    luck = random_entries(held, found, 1)
    assert luck.mean() == pytest.approx(found.result.mean() * len(found.index), abs=3 * luck.std())


def test_the_largest_loss_from_a_peak():
    assert drawdown(np.array([1.0, -2, 1, -2, 5])) == 3
    assert drawdown(np.array([-1.0])) == 1
    assert drawdown(np.array([1.0, 1])) == 0


def test_the_deflated_sharpe_ratio_equals_the_example_of_its_paper():
    """Bailey and Lopez de Prado (2014): 2.5 a year over 1,250 days, skewness -3, kurtosis 10, 100 trials of variance
    1/2 a year: 0.9004."""
    benchmark = expected_best(100, 1 / 2 / 250)
    assert benchmark == pytest.approx(0.1132, abs=1e-4)
    assert probabilistic(Daily(1_250, 2.5 / math.sqrt(250), -3, 10), benchmark) == pytest.approx(0.9004, abs=2e-3)


def test_the_best_of_24_strategies_without_an_edge_rarely_passes():
    random = np.random.default_rng(3)
    passed = chosen = 0
    for _ in range(300):
        many = [Daily.of(random.standard_normal(250)) for _ in range(24)]
        best = max(many, key=lambda daily: daily.sharpe)
        passed += deflated(best, 24) > 0.95
        chosen += probabilistic(best) > 0.95
    assert passed <= 0.05 * 300
    assert chosen > 0.5 * 300  # what happens if trials are not counted


def test_the_logistic_regression_finds_the_probabilities():
    of = market(200, edge=0.8)
    proba = Logistic([0, 1, 2]).fit(of.features, of.label, of.weight).proba(of.features)
    direction, volatility = of.features[:, 0], of.features[:, 1]
    true = np.exp(np.stack([-0.8 * direction, -volatility, 0.8 * direction], 1))
    true /= true.sum(1, keepdims=True)
    assert np.abs(proba - true).mean() < 0.03


def test_the_volatility_only_model_sees_no_direction():
    of = market(100, edge=2.0)
    train, held = of.take(np.arange(2_400)), of.take(np.arange(2_400, 4_000))
    found = baselines(train, held)
    ic = {name: summarise(means(sums_of(proba, held)))["ic"] for name, proba in found.items()}
    loss = {name: summarise(means(sums_of(proba, held)))["log_loss"] for name, proba in found.items()}
    assert abs(ic[VOLATILITY]) < 0.1
    assert loss[VOLATILITY] < loss[PRIOR]


def fitted(of: Decisions, columns) -> np.ndarray:
    train = of.take(slice(0, int(0.6 * len(of))))
    return Logistic(columns).fit(train.features, train.label, train.weight).proba(of.features)


def test_an_edge_is_learnt_and_volatility_alone_is_not(tmp_path):
    of = market(120, edge=0.5, seed=5)
    found = judge(fitted(of, [0, 1, 2]), *rows_of(of, tmp_path), name="a", seed=1)
    assert found.verdict.word == "learnt", found.verdict.why
    of = market(120, seed=6)
    found = judge(fitted(of, [1]), *rows_of(of, tmp_path), name="b", seed=1)
    assert found.verdict.word == "weak", found.verdict.why  # better than class shares: volatility
    assert any("No edge" in sentence or "volatility alone" in sentence for sentence in found.verdict.why)
    assert found.more["market"]["trading"]["deflated"] < 0.95


def test_a_model_without_any_information_is_not_learnt(tmp_path):
    of = market(60)
    proba = np.random.default_rng(4).dirichlet([1, 1, 1], len(of))
    assert judge(proba, *rows_of(of, tmp_path), name="a", seed=1).verdict.word == "not learnt"


def test_decisions_without_a_prediction_are_left_out(tmp_path):
    of = market(40)
    proba = np.full((len(of), 3), 1 / 3)
    proba[-100:] = np.nan
    found = judge(proba, *rows_of(of, tmp_path), name="a", seed=1)
    assert found.more["market"]["decisions"] == 0.4 * len(of) - 100
    json.dumps(found.more)


def test_every_model_is_counted_as_a_trial_once(tmp_path):
    path = tmp_path / "runs" / "trials.jsonl"
    assert trials.record(path, "MES", "a", "1") == 1
    assert trials.record(path, "MES", "b", "2") == 2
    assert trials.record(path, "MES", "a", "1") == 2
    assert trials.record(path, "MGC", "a", "1") == 1
    with path.open("a") as stream:
        stream.write('{"symbol": "ME')  # a crash
    assert len(trials.lines(path, "MES")) == 2
    assert trials.record(path, "MES", "c", "3") == 3
    assert len(trials.lines(path, "MES")) == 3  # the next line is not lost in the incomplete one


def test_more_trials_deflate_more(tmp_path):
    of = market(120, edge=0.12, seed=5)
    rows, proba = rows_of(of, tmp_path), fitted(of, [0, 1, 2])
    first = judge(proba, *rows, name="a", seed=1).more["market"]
    for number in range(30):
        trials.record(tmp_path / "runs" / "trials.jsonl", "MES", "tried", str(number))
    again = judge(proba, *rows, name="a", seed=1).more["market"]
    assert (first["trials"], again["trials"]) == (1, 31)
    assert again["trading"]["deflated"] < first["trading"]["deflated"]


def test_the_sealed_test_is_no_further_trial(tmp_path):
    of = market(40)
    rows = rows_of(of, tmp_path)
    judge(fitted(of, [0]), *rows, name="a", seed=1)
    assert judge(fitted(of, [1]), *rows, name="a", seed=1, counts=False).more["market"]["trials"] == 1


def test_paths_hold_out_everything_once_and_find_the_edge_that_is_there(monkeypatch):
    from training.domains.market.detector.statistics import ridge
    from training.domains.market.evaluation import paths

    monkeypatch.setattr(paths, "STRATEGIES", {"ridge regression": ridge})
    of = market(300, edge=0.8, seed=9)
    found = paths.walk_paths(of)
    assert found["splits"] == 15 and len(found["paths"]) == 5
    assert all(path["ic"] > 0.3 and len(path["equity"]) == 300 for path in found["paths"])
    assert found["sharpe"]["low"] > 5
    assert found["overfitting"]["probability"] <= 1
    nothing = paths.walk_paths(market(300, seed=10))
    assert abs(nothing["sharpe"]["mean"]) < 3 or nothing["sharpe"]["mean"] < 0
    json.dumps(found)
