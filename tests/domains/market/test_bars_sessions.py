"""Sessions, timeframes and stretches."""

from __future__ import annotations

import numpy as np
import pytest

from tests.domains.market.making import MONDAY, minutes, open_minutes
from training.domains.market.bars.sessions import Session, find_session
from training.domains.market.bars.timeframes import TIMEFRAMES, bars_of, latest, stretches
from training.domains.market.bars.times import MINUTE


def test_the_session_is_what_is_present_in_half_of_the_weeks():
    time = open_minutes(60_000) * MINUTE
    session = find_session(time)
    assert session.day_start == 23 * 60
    assert session.open_minutes.reshape(7, 1_440).sum(1).tolist() == [1_380] * 4 + [1_320, 0, 0]
    assert Session.of(session.plain()).plain() == session.plain()


def test_a_pause_is_not_missing_and_a_gap_is():
    time = open_minutes(60_000) * MINUTE
    session = find_session(time)
    assert not session.missing(time).any()
    cut = np.delete(time, slice(1_000, 1_007))
    assert session.missing(cut)[1_000] == 7
    assert session.missing(cut).sum() == 7


def test_a_trading_day_has_the_date_on_which_most_of_it_lies():
    session = find_session(open_minutes(60_000) * MINUTE)
    days = session.days(np.array([MONDAY + 23 * 60, MONDAY + 1_440, MONDAY + 2 * 1_440 - 120]) * MINUTE)
    assert np.datetime64(int(days[0]), "D") == np.datetime64("2024-01-02")
    assert len(set(days.tolist())) == 1
    stocks = Session(np.tile(np.isin(np.arange(1_440), np.arange(870, 1_260)), 7), 870)
    days = stocks.days(np.array([MONDAY + 870, MONDAY + 1_259]) * MINUTE)
    assert [np.datetime64(int(day), "D") for day in days] == [np.datetime64("2024-01-01")] * 2


def test_a_market_without_a_pause_has_days_from_midnight():
    session = find_session((MONDAY + np.arange(30_000)) * MINUTE)
    assert session.day_start == 0 and session.open_minutes.all()


@pytest.mark.parametrize("timeframe", TIMEFRAMES)
def test_a_bar_is_stamped_when_it_is_complete_and_holds_its_minutes(timeframe):
    of = minutes(20_000)
    bars = bars_of(of, timeframe)
    assert len(bars) > 10
    for i in range(len(bars)):
        inside = slice(bars.first[i], bars.last[i])
        width = TIMEFRAMES[timeframe] * MINUTE
        assert of.time[inside][-1] + MINUTE <= bars.complete[i]
        assert of.time[inside][0] >= bars.complete[i] - width
        expected = [of.open[inside][0], of.high[inside].max(), of.low[inside].min(), of.close[inside][-1]]
        assert bars.values[:4, i].tolist() == expected
        assert bars.values[4, i] == of.volume[inside].sum()


@pytest.mark.parametrize("timeframe", TIMEFRAMES)
def test_a_bar_is_the_same_wherever_the_file_begins_or_ends(timeframe):
    of = minutes(20_000)
    complete = bars_of(of, timeframe)
    known = {int(at): complete.values[:, i].tobytes() for i, at in enumerate(complete.complete)}
    random = np.random.default_rng(0)
    for _ in range(20):
        first = int(random.integers(0, 5_000))
        last = int(random.integers(12_000, 20_000))
        cut = bars_of(of.between(first, last), timeframe)
        for i, at in enumerate(cut.complete.tolist()):
            assert cut.values[:, i].tobytes() == known[at]


def test_a_decision_sees_only_bars_that_are_complete():
    of = minutes(20_000)
    base, hours = bars_of(of, "m5"), bars_of(of, "h1")
    index = latest(hours, base.complete, base.segment)
    for i, at in enumerate(index.tolist()):
        if at >= 0:
            assert hours.complete[at] <= base.complete[i]
        if at + 1 < len(hours):
            assert hours.complete[at + 1] > base.complete[i]


def test_a_stretch_ends_at_a_gap_of_more_than_five_minutes():
    of = minutes(4_000)
    keep = np.ones(4_000, bool)
    keep[1_003:1_008] = False  # five minutes: crossed
    keep[2_001:2_014] = False
    index = np.flatnonzero(keep)
    cut = type(of)(of.symbol, *(getattr(of, name)[index] for name in (
        "time", "open", "high", "low", "close", "volume", "bad", "segment")), of.session)  # fmt: skip
    bars = bars_of(cut, "m5")
    run = stretches(cut, bars, 5)
    gap = of.time[2_001]
    before, after = bars.complete <= gap, bars.complete - 5 * MINUTE >= gap + 13 * MINUTE
    assert len(set(run[before].tolist())) == 1
    assert len(set(run[after].tolist())) == 1
    assert run[after][0] > run[before][0]
