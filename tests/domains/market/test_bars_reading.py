"""Files of bars as programs of the field write them."""

from __future__ import annotations

import gzip
import zipfile

import numpy as np
import polars as pl
import pytest

from training.data.encode import encode_files
from training.domains.market.bars.cleaning import clean
from training.domains.market.bars.files import files_of, others_in, read_cuts
from training.domains.market.bars.reading import ENCODER, NO_TIME, decode
from training.errors import DataError, UsageError

FIRST = np.datetime64("2024-01-02T09:30", "ns").astype(np.int64)
HEADERS = {
    "TradingView": ("time,open,high,low,close,Volume\n1704187800,1,2,0.5,1.5,10\n1704187860,1,2,0.5,1.5,10\n", False),
    "Binance": (
        "open_time,open,high,low,close,volume,close_time\n1704187800000,1,2,0.5,1.5,10,1704187859999\n", False,
    ),
    "MetaTrader 5": (
        "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>\n"
        "2024.01.02\t09:30:00\t1\t2\t0.5\t1.5\t10\t0\t3\n", True,
    ),
    "NinjaTrader": ("20240102 093000;1;2;0.5;1.5;10\n", True),
    "MetaTrader 4": ("2024.01.02,09:30,1,2,0.5,1.5,10\n", True),
    "Interactive Brokers": ("date,open,high,low,close,volume,average\n20240102 09:30:00,1,2,0.5,1.5,10,1\n", True),
    "pandas": ("timestamp,open,high,low,close,volume\n2024-01-02 09:30:00+00:00,1,2,0.5,1.5,10\n", False),
    "ISO with an offset": ("datetime,o,h,l,c,v\n2024-01-02T04:30:00-05:00,1,2,0.5,1.5,10\n", False),
    "German": ("Date;Time;Open;High;Low;Close;Volume\n02.01.2024;09:30:00;1;2;0,5;1,5;10\n", True),
    "Binance's klines without a header": (
        "1704187800000,1,2,0.5,1.5,10,1704187859999,15,3,5,7,0\n1704187860000000,1,2,0.5,1.5,10,1704187919999999,15,3,5,7,0\n",
        False,
    ),
    "Polygon": (
        "ticker,volume,open,close,high,low,window_start,transactions\nMES,10,1,1.5,2,0.5,1704187800000000000,3\n",
        False,
    ),
    "Databento": (
        "ts_event,rtype,publisher_id,instrument_id,open,high,low,close,volume,symbol\n"
        "1704187800000000000,33,1,5602,1000000000,2000000000,500000000,1500000000,10,MESH4\n", False,
    ),
    "TradeStation": ('"Date","Time","Open","High","Low","Close","Up","Down"\n01/31/2024,09:30,9,9,9,9,9,9\n'
                     "01/02/2024,09:30,1,2,0.5,1.5,4,6\n", True),
    "Dukascopy": ("Gmt time,Open,High,Low,Close,Volume\n02.01.2024 09:30:00.000,1,2,0.5,1.5,10\n", False),
    "Dukascopy, local time": (
        "Local time,Open,High,Low,Close,Volume\n02.01.2024 10:30:00.000 GMT+0100,1,2,0.5,1.5,10\n", False,
    ),
    "CryptoDataDownload": (
        "https://www.CryptoDataDownload.com\nunix,date,symbol,open,high,low,close,Volume MES,Volume USD\n"
        "1704187800000,2024-01-02 09:30:00,MES/USD,1,2,0.5,1.5,10,15\n", False,
    ),
    "twelve hours": (
        "Date,Time,Open,High,Low,Close,Volume\n1/31/2024,9:30 PM,9,9,9,9,9\n01/02/2024,9:30 AM,1,2,0.5,1.5,10\n", True,
    ),
    "American": (
        "Date,Time,Open,High,Low,Last,Volume\n01/02/2024,09:30:00,1,2,0.5,1.5,10\n01/31/2024,09:30:00,1,2,0.5,1.5,10\n",
        True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("program", HEADERS)
def test_the_csv_of_a_program_is_read(tmp_path, program):
    text, naive = HEADERS[program]
    path = tmp_path / "MES_1m.csv"
    path.write_text(text)
    found = decode(path)
    at = np.flatnonzero(found["time"] == FIRST)[0]
    assert bool(found["naive"][0]) is naive
    assert [found[name][at] for name in ("open", "high", "low", "close", "volume")] == [1, 2, 0.5, 1.5, 10]


def test_milliseconds_and_microseconds_in_one_file_are_read_each_by_its_size(tmp_path):
    """Binance's monthly files, put together: the unit changed at the end of 2024."""
    path = tmp_path / "MES_1m.csv"
    path.write_text(HEADERS["Binance's klines without a header"][0])
    assert (decode(path)["time"] - FIRST).tolist() == [0, 60_000_000_000]


@pytest.mark.parametrize(
    ("separator", "price", "volume"),
    [(",", '"4,500.25"', '"12,000"'), (";", "4.500,25", "12.000"), (";", "4500,25", "12000"), (",", "4500.25", "12000"),
     (";", "4,500.25", "12,000"), ("\t", "4500,25", "12000")],
)  # fmt: skip
def test_signs_for_decimals_and_thousands_are_those_of_the_file(tmp_path, separator, price, volume):
    path = tmp_path / "MES_1m.csv"
    header = separator.join(("time", "open", "high", "low", "close", "volume"))
    path.write_text(f"{header}\n{separator.join(('1704187800', *[price] * 4, volume))}\n")
    found = decode(path)
    assert (found["close"][0], found["volume"][0]) == (4500.25, 12_000)


def test_the_zone_that_a_file_names_is_the_zone_of_its_times(tmp_path):
    """As Interactive Brokers writes them; --timezone is not needed, and means other files."""
    path = tmp_path / "MES_1m.csv"
    rows = [f"20240102 04:{30 + at}:00 US/Eastern,1,2,0.5,{1.5 - at / 10},10" for at in range(3)]
    path.write_text("date,open,high,low,close,volume\n" + "\n".join(rows))
    assert clean("MES", decode(path), zone="Asia/Tokyo")[0].time[0] == FIRST
    path.write_text(path.read_text().replace("31:00 US/Eastern", "31:00 US/Central"))
    with pytest.raises(ValueError, match="several zones: US/Central, US/Eastern"):
        decode(path)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_epochs_are_read_by_their_size(tmp_path, unit):
    scale = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[unit]
    for kind in (str, int):
        path = tmp_path / "MES_1m.csv"
        path.write_text(f"time,open,high,low,close,volume\n{kind(FIRST // scale)},1,2,0.5,1.5,10\n")
        assert decode(path)["time"][0] == FIRST


@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
def test_parquet_with_datetimes_is_read(tmp_path, zone):
    path = tmp_path / "MES_1m.parquet"
    time = pl.Series([FIRST]).cast(pl.Datetime("ns")).dt.cast_time_unit("us")
    if zone:
        time = time.dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
    rows = {"ts": time, "open": [1.0], "high": [2], "low": [0.5], "close": [1.5], "volume": [10]}
    pl.DataFrame(rows).write_parquet(path)
    found = decode(path)
    assert found["time"][0] == FIRST
    assert bool(found["naive"][0]) is (zone is None)


def test_compressed_csv_is_read(tmp_path):
    path = tmp_path / "MES_1m.csv.gz"
    path.write_bytes(gzip.compress(HEADERS["pandas"][0].encode()))
    assert decode(path)["time"][0] == FIRST


def test_a_zip_with_one_file_is_read_and_others_are_refused(tmp_path):
    path = tmp_path / "MES_1m.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("MES.txt", HEADERS["pandas"][0])
    assert decode(path)["time"][0] == FIRST
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("more.csv", "x")
    with pytest.raises(ValueError, match="holds 2 files of CSV"):
        decode(path)
    path.write_bytes(b"PK no archive")
    with pytest.raises(ValueError, match="cannot be read"):
        decode(path)


def test_lines_before_the_header_are_counted(tmp_path):
    path = tmp_path / "MES_1m.csv"
    path.write_text("# exported\n" + HEADERS["pandas"][0])
    assert decode(path)["first_line"][0] == 3


def test_a_field_that_is_no_number_becomes_nan_and_a_time_unknown(tmp_path):
    path = tmp_path / "MES_1m.csv"
    rows = ["2024-01-02 09:30:00,1,2,0.5,1.5,10"] * 3 + ["bad,1,2,x,1.5,10"]
    path.write_text("time,open,high,low,close,volume\n" + "\n".join(rows))
    found = decode(path)
    assert found["time"][3] == NO_TIME and np.isnan(found["low"][3])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no columns|no rows"),
        ("just words\n", "no columns"),
        ("time,open,high,low,close\n1704187800,1,2,0.5,1.5\n", "no column volume"),
        ("time,open,high,low,close,volume\n5,1,2,0.5,1.5,1\n", "no seconds|times like"),
        ("1,2,3\n4,5,6\n", "no column"),
        ("time,open,high,low,close\n1704187800,1,2,0.5,1.5\n", "add a column of zeros"),
        ("a,1,2,3,4,5,6,7\n", "Add a first line with their names"),
        ("time,open,high,low,close,volume\n\n", "no times"),
        ("time,open,high,low,close,volume\n01/02/2024 09:30,1,2,0.5,1.5,1\n", "January or February"),
    ],
)
def test_a_file_without_bars_is_refused_with_the_reason(tmp_path, text, why):
    path = tmp_path / "MES_1m.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=why):
        decode(path)


def test_files_are_decoded_in_the_sandbox_and_a_damaged_one_is_quarantined(tmp_path):
    (tmp_path / "MES_1m.csv").write_text(HEADERS["pandas"][0])
    (tmp_path / "MGC_1m.parquet").write_bytes(b"PAR1 this is no Parquet")
    paths = files_of(tmp_path)
    assert list(paths) == ["MES", "MGC"]
    records, refused = encode_files([*paths.values()], ENCODER, tmp_path / "cache", 1, lambda line: None)
    assert records[paths["MES"]]["time"][0] == FIRST
    assert "cannot be read" in refused[paths["MGC"]].reason


def test_symbols_are_chosen_by_name(tmp_path):
    for name in ("MES", "MGC"):
        (tmp_path / f"{name}_1m.csv").write_text("x")
    (tmp_path / "notes.txt").write_text("x")
    assert list(files_of(tmp_path, "MGC")) == ["MGC"]
    with pytest.raises(UsageError, match="no ES; there are MES, MGC"):
        files_of(tmp_path, "ES")
    (tmp_path / "MES_1m.parquet").write_text("x")
    with pytest.raises(DataError, match="two files of MES"):
        files_of(tmp_path)


def test_a_folder_without_bars_is_refused_with_what_it_has(tmp_path):
    (tmp_path / "ES_continuous.txt").write_text("x")
    with pytest.raises(DataError, match=r"SYMBOL_1m.*It has ES_continuous\.txt"):
        files_of(tmp_path)


def test_files_that_are_not_used_because_of_their_names_are_known(tmp_path):
    for name in ("MES_1m.csv", "MGC_5m.csv", "es.parquet", "notes.md", ".hidden.csv"):
        (tmp_path / name).write_text("x")
    assert others_in(tmp_path) == ["MGC_5m.csv", "es.parquet"]


@pytest.mark.parametrize("time", ["2024-01-02T09:30", "2024-01-02 09:30:00Z", "2024-01-02T04:30-05:00"])
def test_the_list_of_rolls_is_read(tmp_path, time):
    path = tmp_path / "rolls.csv"
    path.write_text(f"symbol,time\nMES,{time}\nMES,2024-03-15\n")
    assert read_cuts(path)["MES"][0] == FIRST and len(read_cuts(path)["MES"]) == 2


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"symbol,time\nMES,2024-03-15\nMES,soon\n", r"rolls\.csv:3: Invalid isoformat"),
        (b"symbol,time\nMES,1710509400\n", r"rolls\.csv:2"),  # seconds since 1970, which numpy takes for a year
        (b"symbol,time\nMES\n", r"rolls\.csv:2"),
        (b"symbol;time\nMES;2024-03-15\n", "no column 'symbol'"),
        (b"symbol,time\n", "holds no times"),
        (b"\xff\xfe\x00", "is no CSV"),
    ],
)
def test_a_faulty_list_of_rolls_is_refused_with_its_line(tmp_path, content, why):
    (tmp_path / "rolls.csv").write_bytes(content)
    with pytest.raises(DataError, match=why):
        read_cuts(tmp_path / "rolls.csv")
