"""Labels against a plain loop; costs and barriers."""

from __future__ import annotations

import numpy as np
import pytest

from tests.domains.market.making import minutes, raw_bars
from training.domains.market.bars.cleaning import Minutes, clean
from training.domains.market.bars.timeframes import bars_of, stretches
from training.domains.market.bars.times import MINUTE
from training.domains.market.labels.barriers import DOWN, FLAT, UP, label, uniqueness
from training.domains.market.labels.costs import (
    COSTS,
    Barriers,
    Costs,
    barriers_of,
    costs_of,
    read_costs,
    remark_on_tick,
    step_of,
    unused_costs,
)
from training.errors import DataError, UsageError


def plain(of: Minutes, base, run, bar, atr, up, down, limit):
    """The definition, slowly: (label, entry, end, price change, that of a sale) or None."""
    inside = []
    for b in range(bar + 1, bar + limit + 1):
        if run[b] != run[bar]:
            break
        inside += [j for j in range(base.first[b], base.last[b]) if not of.bad[j]]
    if not inside:
        return None
    price = of.open[inside[0]]
    upper, lower = price + up * atr, price - down * atr
    for j in inside:
        times = of.time[inside[0]], of.time[j] + MINUTE
        below, above = min(of.open[j], lower) - price, max(of.open[j], upper) - price
        if of.low[j] <= lower:
            return DOWN, *times, below, above if of.high[j] >= upper else below
        if of.high[j] >= upper:
            return UP, *times, above, above
    change = of.close[inside[-1]] - price
    return FLAT, of.time[inside[0]], of.time[inside[-1]] + MINUTE, change, change


def market_with_faults() -> Minutes:
    raw = raw_bars(12_000, seed=2)
    keep = np.ones(12_000, bool)
    keep[3_000:3_020] = keep[7_001:7_004] = False
    raw = {name: values[keep] if len(values) > 1 else values for name, values in raw.items()}
    raw["high"][5_000] *= 1.05
    raw["low"][6_001:6_003] *= 0.95
    return clean("MES", raw)[0]


def test_labels_equal_a_plain_loop():
    of = market_with_faults()
    assert of.bad.sum() == 3
    base = bars_of(of, "m5")
    run = stretches(of, base, 5)
    bar = np.arange(20, len(base))
    random = np.random.default_rng(0)
    atr, cost = random.uniform(1, 6, len(bar)), random.uniform(0, 0.3, len(bar))
    limits = Barriers(1.5, 1.1, 12)
    found = label(of, base, bar, atr, cost, limits)
    kept = {index: at for at, index in enumerate(found.kept.tolist())}
    counts = np.zeros(3, int)
    for i, b in enumerate(bar.tolist()):
        expected = None
        if b + limits.bars < len(base):
            expected = plain(of, base, run, b, atr[i], limits.up + cost[i], limits.down, limits.bars)
        assert (expected is None) == (i not in kept)
        if expected is not None:
            at = kept[i]
            assert (found.label[at], found.entered[at], found.ends[at]) == expected[:3]
            assert found.gain[at] == np.float32(expected[3] / atr[i])
            assert found.gain_sold[at] == np.float32(expected[4] / atr[i])
            counts[expected[0]] += 1
    assert (counts > 50).all()


def test_an_order_is_executed_at_the_next_open_and_after_the_decision():
    of = minutes(6_000)
    base = bars_of(of, "m5")
    bar = np.arange(20, len(base))
    found = label(of, base, bar, np.full(len(bar), 2.0), np.zeros(len(bar)), Barriers(1, 1, 12))
    decided = base.complete[bar[found.kept]]
    assert (found.entered >= decided).all() and (found.ends > found.entered).all()
    assert np.median(found.entered - decided) == 0


def test_a_minute_that_touches_both_barriers_is_a_loss_for_who_bought_and_for_who_sold():
    raw = raw_bars(2_000)
    base = bars_of(clean("MES", raw)[0], "m5")
    at = base.first[101]
    raw["high"][at], raw["low"][at] = raw["open"][at] + 1.2, raw["open"][at] - 1.2
    of = clean("MES", raw)[0]
    found = label(of, base, np.array([100]), np.array([1.0]), np.zeros(1), Barriers(1.0, 1.0, 12))
    assert found.label.tolist() == [DOWN]
    assert found.gain[0] == pytest.approx(-1.0)
    assert found.gain_sold[0] == pytest.approx(1.0)


@pytest.mark.parametrize(("column", "sign", "expected"), [("low", -1, DOWN), ("high", 1, UP)])
def test_a_price_that_just_reaches_a_barrier_touches_it(column, sign, expected):
    """Prices lie on ticks, so that they often equal a barrier."""
    raw = raw_bars(2_000)
    base = bars_of(clean("MES", raw)[0], "m5")
    begin, end = base.first[101], base.last[112]
    for name in ("open", "high", "low", "close"):
        raw[name][begin:end] = 5000.0
    raw[column][begin + 7] = 5000.0 + sign * 2.0
    of = clean("MES", raw)[0]
    assert not of.bad[begin:end].any()
    found = label(of, base, np.array([100]), np.array([2.0]), np.zeros(1), Barriers(1.0, 1.0, 12))
    assert found.label.tolist() == [expected] and found.gain[0] == sign
    assert found.ends[0] == of.time[begin + 7] + MINUTE


def test_a_gap_through_the_stop_is_filled_at_the_worse_open():
    raw = raw_bars(2_000)
    at = bars_of(clean("MES", raw)[0], "m5").first[101]
    for name in ("open", "high", "low", "close"):
        raw[name][at + 1 :] -= 30.0
    of = clean("MES", raw)[0]
    found = label(of, bars_of(of, "m5"), np.array([100]), np.array([5.0]), np.zeros(1), Barriers(3.0, 3.0, 12))
    assert found.gain[0] == pytest.approx((of.open[at + 1] - of.open[at]) / 5, rel=1e-6)
    assert found.gain[0] < -3.5


def test_only_the_end_of_the_file_leaves_decisions_without_a_label():
    of = minutes(6_000)
    base = bars_of(of, "m5")
    bar = np.arange(20, len(base))
    found = label(of, base, bar, np.full(len(bar), 2.0), np.zeros(len(bar)), Barriers(1, 1, 25))
    assert found.kept.tolist() == list(range(len(bar) - 25))


def test_uniqueness_equals_its_definition():
    random = np.random.default_rng(1)
    first = np.sort(random.integers(0, 180, 60))
    last = first + random.integers(0, 15, 60)
    spans = [sum(a <= t <= b for a, b in zip(first, last, strict=True)) for t in range(200)]
    expected = [np.mean([1 / spans[t] for t in range(a, b + 1)]) for a, b in zip(first, last, strict=True)]
    assert uniqueness(first, last, 200) == pytest.approx(expected)


def test_costs_are_ticks_times_the_price_of_a_tick():
    """The seed multiplied by dollars: five times too much for MES, ten times for MGC."""
    assert COSTS["MES"].of(np.array([1.0, 2.0])).tolist() == [1.5 * 0.25, 2.5 * 0.25]
    assert COSTS["MGC"].of(np.array([1.0, 2.0])) == pytest.approx([0.18, 0.33])


def test_barriers_depend_on_symbol_and_horizon():
    assert barriers_of("MES", 20) == Barriers(3.0, 2.1, 50)
    assert barriers_of("MGC", 5) == Barriers(1.2, 1.2, 12)
    assert barriers_of("ES", 20) == barriers_of("ES", 10) == Barriers(1.8, 1.35, 25)
    with pytest.raises(UsageError, match="5, 10, 15, 20"):
        barriers_of("MES", 7)


def test_a_symbol_without_costs_is_refused_with_the_line_to_write(tmp_path):
    with pytest.raises(UsageError, match=r"SPY: \{tick"):
        costs_of("SPY", {})
    path = tmp_path / "costs.yaml"
    path.write_text("SPY: {tick: 0.01, spread: 1, slippage: [0.5, 1.0]}\n")
    assert costs_of("SPY", read_costs(path)) == Costs(0.01, 1, 0.5, 1)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("SPY: 3", "costs.yaml:1: SPY: the keys are"),
        ("MES: {tick: 1, spread: 1, slippage: [1, 1]}\nSPY: {tick: 0.01}", "costs.yaml:2: SPY: the keys are"),
        ("SPY: {tick: 0, spread: 1, slippage: [1, 1]}", "a tick is above 0"),
        ("- a", "list"),
        ("", "a line for each symbol"),
        ("SPY: [", "costs.yaml is not valid YAML"),
        ("SPY: {tick: x, spread: 1, slippage: [1, 1]}", "'x' is no number"),
        ("SPY: {tick: true, spread: 1, slippage: [1, 1]}", "True is no number"),
        ("SPY: {tick: 1, spread: false, slippage: [1, 1]}", "False is no number"),
        ("SPY: {tick: 1, spread: 1, slippage: '05'}", "slippage is two numbers"),
        ("SPY: {tick: 1, spread: 1, slippage: 1}", "slippage is two numbers"),
        ("SPY: {tick: 1, spread: 1, slippage: [1, 1]}\nSPY: {tick: 2, spread: 1, slippage: [1, 1]}", "set twice"),
        ("6: {tick: 1, spread: 1, slippage: [1, 1]}", "write it in quotes"),
    ],
)
def test_a_faulty_file_of_costs_is_refused_with_its_line(tmp_path, text, why):
    (tmp_path / "costs.yaml").write_text(text)
    with pytest.raises((DataError, UsageError), match=why):
        read_costs(tmp_path / "costs.yaml")


def test_costs_of_a_symbol_without_bars_are_named():
    costs = COSTS["MES"]
    assert unused_costs({"mes": costs, "ES": costs}, ["MES", "ES"]) == "costs of mes: there are no such bars"
    assert unused_costs({"ES": costs}, ["MES", "ES"]) is None


def test_a_tick_that_is_not_the_step_of_the_prices_is_noticed():
    """Twelve fifty is what a step of ES is worth in dollars; costs would be fifty times too high."""
    prices = 4_500 + 0.25 * np.random.default_rng(0).integers(0, 400, 5_000)
    assert remark_on_tick(prices, 0.25) is None
    assert "steps of 0.25, but its costs have a tick of 12.5" in remark_on_tick(prices, 12.5)
    assert "a tick of 0.01" in remark_on_tick(prices, 0.01)
    adjusted = prices * np.linspace(1, 1.3, len(prices))  # a step that changes is none
    assert step_of(adjusted) is None and remark_on_tick(adjusted, 12.5) is None
