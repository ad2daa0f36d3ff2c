"""What is found in a file of bars, and what is done about it: every row of the table in bars/cleaning.py."""

from __future__ import annotations

import numpy as np
import pytest

from tests.domains.market.making import raw_bars
from training.domains.market.bars.cleaning import CONFLICT, clean
from training.domains.market.bars.times import MINUTE
from training.errors import DataError, UsageError

PRICES = ("open", "high", "low", "close")


def with_rows(raw, index, **changes):
    """The bars, and copies of some of them with changed columns at the end of the file."""
    out = {}
    for name, values in raw.items():
        copy = values[index].copy() if len(values) > 1 else values[:0]
        out[name] = np.concatenate([values, changes.get(name, copy)])
    return out


def test_clean_bars_are_all_used(raw):
    found, health = clean("MES", raw)
    assert health.used == health.rows == len(found) == 4_000
    assert not health.faults and not health.bad_ticks and not health.jumps and not health.gaps


def test_equal_bars_of_a_minute_count_once(raw):
    found, health = clean("MES", with_rows(raw, [5, 9]))
    assert health.duplicates == 2
    assert len(found) == 4_000


def test_two_different_bars_of_a_minute_are_both_quarantined(raw):
    found, health = clean("MES", with_rows(raw, [5], volume=raw["volume"][[5]] + 1))
    assert health.reasons == {CONFLICT: 2}
    assert {fault.line for fault in health.faults} == {7, 4_002}
    assert raw["time"][5] not in found.time and len(found) == 3_999


def test_a_symbol_with_many_conflicts_is_refused(raw):
    index = np.arange(10, 14)
    with pytest.raises(DataError, match=r"8 of 4,004 bars are faulty; more than 0\.1% is refused") as error:
        clean("MES", with_rows(raw, index, volume=raw["volume"][index] + 1))
    assert "line 12" in str(error.value) and error.value.exit_code == 3


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("close", np.nan, "no number"),
        ("volume", np.nan, "no number"),
        ("open", 0.0, "0 or less"),
        ("low", -1.0, "0 or less"),
        ("high", 3_000.0, "high is below"),
        ("low", 5_000.0, "high is below|low is above"),
        ("volume", -1.0, "volume is below 0"),
    ],
)
def test_an_impossible_bar_is_quarantined_with_its_line(raw, column, value, reason):
    import re

    raw[column][100] = value
    found, health = clean("MES", raw)
    assert len(found) == 3_999
    assert [fault.line for fault in health.faults] == [102]
    assert re.search(reason, health.faults[0].reason)


def test_a_symbol_with_many_impossible_bars_is_refused(raw):
    raw["close"][:41] = np.nan
    with pytest.raises(DataError, match=r"more than 1\.0% is refused"):
        clean("MES", raw)


def test_a_bad_tick_stays_and_is_marked(raw):
    raw["high"][200] *= 1.05  # one print far away; the close is where it was
    raw["close"][300] *= 0.95
    raw["low"][300] = raw["close"][300]
    found, health = clean("MES", raw)
    assert np.flatnonzero(found.bad).tolist() == [200, 300]
    assert len(found) == 4_000 and len(health.bad_ticks) == 2


def test_a_move_that_stays_is_no_bad_tick(raw):
    for name in PRICES:
        raw[name][200:] *= 1.05
    found, _ = clean("MES", raw)
    assert not found.bad.any()


@pytest.mark.parametrize("factor", [2, 1 / 3, 5, 0.1])
def test_a_split_is_refused_unless_named_or_adjusted_and_nothing_crosses_it(raw, factor):
    for name in PRICES:
        raw[name][1_000:] *= factor
    with pytest.raises(DataError, match=r"--adjusted.*--rolls"):
        clean("MES", raw)
    for more in ({"adjusted": True}, {"cuts": [int(raw["time"][1_000])]}):
        found, health = clean("MES", raw, **more)
        assert found.segment[999] == 0 and found.segment[1_000] == 1
        assert len(health.jumps) == 1


def test_a_roll_over_a_pause_is_refused_unless_listed():
    raw = raw_bars(60_000)
    pause = np.flatnonzero(np.diff(raw["time"]) > 30 * MINUTE)[20] + 1
    for name in PRICES:
        raw[name][pause:] *= 1.012
    with pytest.raises(DataError, match=r"\+1\.\d+% over a pause"):
        clean("MES", raw)
    found, _ = clean("MES", raw, cuts=[int(raw["time"][pause])])
    assert np.flatnonzero(np.diff(found.segment)).tolist() == [pause - 1]


def test_constant_prices_are_refused(raw):
    for name in PRICES:
        raw[name][:] = 10.0
    with pytest.raises(DataError, match="never changes"):
        clean("MES", raw)


def test_gaps_of_the_session_are_counted_and_not_filled():
    raw = raw_bars(20_000)  # in one week alone, what is missing would be no part of the session
    keep = np.ones(20_000, bool)
    keep[500:510] = False
    cut = {name: values[keep] if len(values) > 1 else values for name, values in raw.items()}
    found, health = clean("MES", cut)
    assert len(found) == 19_990
    assert health.gaps == 1 and health.missing == 10


def test_naive_times_need_a_zone(raw):
    raw["naive"][:] = 1
    with pytest.raises(UsageError, match="--timezone"):
        clean("MES", raw)


def test_the_hour_that_occurs_twice_is_quarantined():
    """Clocks in New York are set back on 2024-11-03 at 2:00."""
    raw = raw_bars(180_000, start=20_001 * 1_440)  # from 2024-10-05
    raw["time"] = (20_028 * 1_440 + np.arange(180_000)) * MINUTE  # round the clock from 2024-11-01
    raw["naive"][:] = 1
    found, health = clean("MES", raw, zone="America/New_York")
    assert health.reasons == {"the hour occurs twice when the clocks are set back": 60}
    assert len(found) == 180_000 - 60
    # wall-clock time that does not exist, on 2025-03-09 from 2:00 to 3:00
    raw["time"] = raw["time"] + 126 * 1_440 * MINUTE
    _, health = clean("MES", raw, zone="America/New_York")
    assert health.reasons == {"the hour does not exist: the clocks are set forward": 60}


def test_a_stamp_of_the_close_is_moved_to_the_open(raw):
    opens = clean("MES", raw)[0].time
    raw["time"] = raw["time"] + MINUTE
    assert np.array_equal(clean("MES", raw, stamp="close")[0].time, opens)


def test_a_time_between_minutes_is_quarantined(raw):
    raw["time"][7] += 1_000_000_000
    assert clean("MES", raw)[1].reasons == {"time is not a full minute": 1}


def test_the_order_of_the_file_does_not_matter(raw):
    order = np.random.default_rng(1).permutation(4_000)
    mixed = {name: values[order] if len(values) > 1 else values for name, values in raw.items()}
    assert np.array_equal(clean("MES", mixed)[0].close, clean("MES", raw)[0].close)


def test_a_download_in_pieces_is_refused_as_its_gaps_look_like_a_closed_market():
    """200 bars, then 801 minutes without one, and so on: a program requested 1,000 bars a call, and was given 200."""
    raw = raw_bars(40_000)
    pieces = np.arange(200) * 1_001
    raw["time"] = (pieces[:, None] + np.arange(200)).ravel() * MINUTE + raw["time"][0]
    with pytest.raises(DataError, match=r"40,000 bars in 199,399 minutes, in 200 pieces \(median: 200 bars, then 801"):
        clean("ADA", raw)


def test_bars_outside_of_the_usual_hours_are_used_where_most_are_inside(raw):
    """As of a stock that is traded before the market opens, some days, in some minutes."""
    raw = raw_bars(60_000)
    early = np.random.default_rng(0).random(60_000) < 0.3
    hour = raw["time"] // MINUTE % 1_440 // 60
    keep = (hour >= 14) & (hour < 20) | (hour >= 8) & (hour < 14) & early
    kept = {name: values[keep] if len(values) > 1 else values for name, values in raw.items()}
    found, _ = clean("MES", kept)
    assert len(found) == keep.sum() and 0.1 < 1 - found.session.covers(found.time).mean() < 0.4


def test_a_file_without_one_usable_bar_is_refused_with_the_remedy(raw):
    raw["time"] += 59_000_000_000
    with pytest.raises(DataError, match=r"4,000 of 4,000 bars are faulty(?s:.*)second 59"):
        clean("MES", raw)


@pytest.mark.parametrize(
    ("column", "value", "remedy"), [("volume", -1, "write 0"), ("low", -3, "adjust them by ratios")]
)
def test_many_faulty_bars_are_refused_with_a_remedy_for_their_fault(raw, column, value, remedy):
    raw[column][:1_000] = value
    with pytest.raises(DataError, match=remedy):
        clean("MES", raw)


@pytest.mark.parametrize("step", [5, 60])
def test_bars_of_another_length_are_refused(raw, step):
    longer = {name: values[::step] if len(values) > 1 else values for name, values in raw.items()}
    more = {name: np.concatenate([values] * 2) if len(values) > 1 else values for name, values in longer.items()}
    more["time"] = raw["time"][0] + np.arange(len(more["time"])) * step * MINUTE
    with pytest.raises(DataError, match=f"{step} minutes apart"):
        clean("MES", more)


def contracts(*names: bytes) -> np.ndarray:
    return np.array(names, "S8").view(np.uint8).reshape(len(names), -1)


def test_nothing_crosses_the_bar_from_which_the_file_names_another_contract(raw):
    raw["contract"] = contracts(*[b"MESH4"] * 3_000, *[b"MESM4"] * 1_000)
    for name in PRICES:
        raw[name][3_000:] += 40  # no jump that is seen by its size
    found, health = clean("MES", raw)
    assert np.flatnonzero(np.diff(found.segment)).tolist() == [2_999]
    assert [jump["about"] for jump in health.jumps] == ["MESH4 to MESM4, as the file says"]


def test_bars_of_several_contracts_at_once_are_refused(raw):
    more = with_rows(raw, [5, 9], volume=raw["volume"][[5, 9]] + 1)
    more["contract"] = contracts(*[b"MESH4"] * 4_000, *[b"MESM4"] * 2)
    with pytest.raises(DataError, match=r"2 minutes have bars of several contracts \(MESH4, MESM4\)"):
        clean("MES", more)


@pytest.mark.parametrize(
    ("symbol", "name", "fits"),
    [("MES", b"MESH4", True), ("BTCUSDT", b"BTC/USDT", True), ("EURUSD", b"C:EURUSD", True), ("MES", b"@MES#C", True),
     ("MES", b"5602", True), ("MES", b"", True), ("MES", b"NQH4", False), ("BTC", b"ETH/USD", False)],
)  # fmt: skip
def test_bars_of_another_symbol_are_refused(raw, symbol, name, fits):
    raw["contract"] = contracts(*[name] * 4_000)
    if fits:
        clean(symbol, raw)
    else:
        with pytest.raises(DataError, match=f"bars are of {name.decode()}"):
            clean(symbol, raw)


def test_minutes_that_a_program_filled_in_are_reported(raw):
    for at in np.arange(100, 200):
        for name in PRICES:
            raw[name][at] = raw["close"][99]
        raw["volume"][at] = 0
    found, health = clean("MES", raw)
    assert len(found) == 4_000 and "2% of the bars repeat the last price" in health.remarks[0]
    raw["volume"][:] = 0
    assert clean("MES", raw)[1].remarks == ["there are no volumes: the features of volume are 0"]
