"""Features: the same bits wherever a file begins or ends, of the declared bars alone, and equal to plain formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.domains.market.making import minutes
from training.domains.market.bars.timeframes import bars_of
from training.domains.market.features.computing import compute, of_bars
from training.domains.market.features.declared import FEATURES, NAMES, TABLE, UNDIRECTED, Feature

COUNT = 40_000


@pytest.fixture(scope="module")
def market():
    return minutes(COUNT, seed=4)


@pytest.fixture(scope="module")
def computed(market):
    return compute(market)


def test_there_are_about_150_features_with_distinct_names_and_values(computed):
    assert len(NAMES) == len(set(NAMES)) == 150
    assert computed.values.dtype == np.float32 and np.isfinite(computed.values).all()
    assert (computed.values.std(0) > 0).all()
    assert set(UNDIRECTED) < set(NAMES)


def test_no_raw_price_is_among_them(market, computed):
    """A market whose prices are multiplied by 8 (exact in binary) has the same features."""
    columns = {name: getattr(market, name) * 8 for name in ("open", "high", "low", "close")}
    scaled = type(market)(market.symbol, market.time, **columns, volume=market.volume, bad=market.bad,
                          segment=market.segment, session=market.session)  # fmt: skip
    again = compute(scaled).values
    close = np.isclose(again, computed.values, rtol=1e-4, atol=1e-6).all(0)
    assert close.all(), [name for name, same in zip(NAMES, close, strict=True) if not same]


def test_features_have_the_same_bits_wherever_a_file_begins_or_ends(market, computed):
    known = {int(at): row.tobytes() for at, row in zip(computed.decided, computed.values, strict=True)}
    random = np.random.default_rng(0)
    compared = 0
    for _ in range(20):
        first = int(random.integers(0, 12_000))
        last = int(random.integers(30_000, COUNT))
        cut = compute(market.between(first, last))
        for at, row in zip(cut.decided.tolist(), cut.values, strict=True):
            assert row.tobytes() == known[at]
        compared += len(cut.decided)
        expected = (computed.decided <= market.time[last - 1]) & (computed.decided > cut.decided[0])
        assert len(cut.decided) >= expected.sum()  # nothing is missing at the end
    assert compared > 20_000


@pytest.mark.parametrize("timeframe", TABLE)
def test_a_feature_depends_on_its_declared_bars_alone(timeframe):
    bars = bars_of(minutes(60_000 if timeframe in ("h4", "d1") else COUNT, seed=5), timeframe)
    own = [feature for feature in FEATURES if feature.timeframe == timeframe]
    before = of_bars(bars, own)
    at = len(bars) - 2
    random = np.random.default_rng(1)
    for number, feature in enumerate(own):
        other = bars.values.copy()
        other[:, : at - feature.bars + 1] *= random.uniform(0.9, 1.1)
        other[:, at + 1 :] *= 1.05
        changed = type(bars)(bars.complete, other, bars.segment, bars.first, bars.last)
        value = of_bars(changed, [feature])[at, 0]
        assert value.tobytes() == before[at, number].tobytes(), feature.name


def test_the_first_value_is_at_the_declared_bar(market):
    bars = bars_of(market, "m5")
    own = [feature for feature in FEATURES if feature.timeframe == "m5"]
    table = of_bars(bars, own)
    for number, feature in enumerate(own):
        first = int(np.flatnonzero(np.isfinite(table[:, number]))[0])
        assert first <= feature.bars - 1, feature.name


def test_nothing_crosses_a_split(market):
    segment = np.zeros(COUNT, np.int32)
    segment[20_000:] = 1
    cut = type(market)(market.symbol, market.time, market.open, market.high, market.low, market.close, market.volume,
                       market.bad, segment, market.session)  # fmt: skip
    found = compute(cut)
    after = found.decided > market.time[20_000]
    alone = compute(market.between(20_000, COUNT))
    assert np.array_equal(found.values[after], alone.values)
    assert found.run[after].min() > found.run[~after].max()


def test_a_longer_bar_is_seen_when_it_is_complete_and_not_before(market, computed):
    """The seed's mistake: an hour's bar joined by the time at which it begins."""
    hours = bars_of(market, "h1")
    number = NAMES.index("h1_ret_1")
    column = of_bars(hours, [feature for feature in FEATURES if feature.name == "h1_ret_1"])[:, 0]
    for i in range(0, len(computed.decided), 37):
        seen = np.flatnonzero(hours.complete <= computed.decided[i])[-1]
        assert computed.values[i, number] == column[seen]


def value_of(name: str, bars, at: int) -> float:
    feature = next(feature for feature in FEATURES if feature.name == name)
    return float(of_bars(bars, [feature])[at, 0])


def test_features_equal_their_formulas(market):
    bars = bars_of(market, "m5")
    o, h, low, c, v = bars.values
    at = 300
    r = np.log(c[1:] / c[:-1])
    last = slice(at - 20 + 1, at + 1)
    typical = (h + low + c) / 3
    ema = np.array([(1 - 2 / 22) ** i for i in range(63)])
    tr = [max(h[j], c[j - 1]) - min(low[j], c[j - 1]) for j in range(at - 13, at + 1)]
    x = r[at - 20 : at]
    signed = np.sign(x) * v[last]
    expected = {
        "m5_ret_5": math.log(c[at] / c[at - 5]),
        "m5_realised_20": math.sqrt((x**2).mean()),
        "m5_parkinson_20": math.sqrt((np.log(h[last] / low[last]) ** 2).mean() / (4 * math.log(2))),
        "m5_atr_14": np.mean(tr) / c[at],
        "m5_sma_20": (c[at] - c[last].mean()) / c[at],
        "m5_ema_21": (c[at] - (ema * c[at - 62 : at + 1][::-1]).sum() / ema.sum()) / c[at],
        "m5_stochastic_14_1": (c[at] - low[at - 13 : at + 1].min())
        / (h[at - 13 : at + 1].max() - low[at - 13 : at + 1].min()),
        "m5_cci_20": (typical[at] - typical[last].mean()) / (1.5 * np.abs(typical[last] - typical[last].mean()).mean()),
        "m5_bollinger_20": (c[at] - c[last].mean()) / (2 * c[last].std()),
        "m5_vwap_12": math.log(c[at] / ((typical * v)[at - 11 : at + 1].sum() / v[at - 11 : at + 1].sum())),
        "m5_obv_20": signed.sum() / v[last].sum(),
        "m5_skew_50": float((lambda y: ((y - y.mean()) ** 3).mean() / y.std() ** 3)(r[at - 50 : at])),
        "m5_kyle_20": (x * signed).sum() / (signed**2).sum() * v[last].mean(),
        "m5_roll_20": 2 * math.sqrt(max(0, -((x - x.mean()) * (r[at - 21 : at - 1] - x.mean())).mean())),
        "m5_body_1": (c[at] - o[at]) / (h[at] - low[at]),
    }
    for name, value in expected.items():
        assert value_of(name, bars, at) == pytest.approx(value, rel=2e-6, abs=1e-9), name


def test_macd_is_the_difference_of_two_averages_and_its_signal(market):
    bars = bars_of(market, "m5")
    c, at = bars.values[3], 300

    def ema(series, span, end):
        weights = np.array([(1 - 2 / (span + 1)) ** i for i in range(3 * span)])
        return (weights * series[end - 3 * span + 1 : end + 1][::-1]).sum() / weights.sum()

    line = {end: ema(c, 12, end) - ema(c, 26, end) for end in range(at - 26, at + 1)}
    weights = np.array([0.8**i for i in range(27)])
    signal = sum(weights[i] * line[at - i] for i in range(27)) / weights.sum()
    assert value_of("m5_macd_26", bars, at) == pytest.approx(line[at] / c[at], rel=1e-5, abs=1e-10)
    assert value_of("m5_macd_signal_26", bars, at) == pytest.approx((line[at] - signal) / c[at], rel=1e-5, abs=1e-10)


def test_a_market_without_range_or_volume_has_finite_features():
    of = minutes(20_000)
    flat = type(of)(of.symbol, of.time, *(np.full(len(of), 10.0) for _ in range(4)), np.zeros(len(of)), of.bad,
                    of.segment, of.session)  # fmt: skip
    assert np.isfinite(compute(flat).values).all()


def test_a_declaration_names_its_bars():
    assert all(isinstance(feature, Feature) and feature.bars >= 1 for feature in FEATURES)
    assert max(feature.bars for feature in FEATURES if feature.timeframe == "d1") <= 10
