"""Decodes a file of one-minute bars, as programs of the field write them, into arrays. Runs in the sandbox.

What the times mean (their zone, whether they stamp a bar's open or close) is decided later, in `times.py`: it depends
on options, and a stored record depends on the file alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from training.data.encode import Encoder
from training.domains.market.bars.numbers import numbers_of
from training.domains.market.bars.stamps import NO_TIME, stamps_of
from training.domains.market.bars.tables import PRICES, table_of

if TYPE_CHECKING:
    import polars as pl

__all__ = ["ENCODER", "NAME", "NO_TIME", "PRICES", "SUFFIXES", "decode"]

#: What files of bars end with; the names of others are listed as not used.
SUFFIXES = (".parquet", ".csv", ".txt", ".csv.gz", ".txt.gz", ".csv.zip", ".zip")
NAME = re.compile(r"^(?P<symbol>[^_].*)_1m(" + "|".join(map(re.escape, SUFFIXES)) + r")$", re.I)
#: Column -> its names in files, in lower case without brackets, spaces and underscores.
ALIASES = {
    "time": ("open time", "opentime", "time", "datetime", "timestamp", "ts", "date time", "ts_event", "index",
             "index level 0", "unix", "window start", "gmt time", "utc time", "time utc", "date utc", "datetime utc",
             "timestamp utc", "local time", "start time", "t", "date"),
    "clock": ("time", "clock"),  # beside a column `date`
    "open": ("open", "o", "open price", "first"),
    "high": ("high", "h", "high price", "max"),
    "low": ("low", "l", "low price", "min"),
    "close": ("close", "c", "close price", "last"),
    # MetaTrader: the real volume is 0 for most symbols, beside a tick volume
    "volume": ("volume", "tick volume", "tickvol", "tick vol", "vol", "v", "real volume", "total volume", "size"),
    "contract": ("symbol", "ticker", "contract", "instrument", "raw symbol"),
}  # fmt: skip
NEEDED = ("time", *PRICES, "volume")
TRADESTATION = ("up", "down")  # volumes at rising and falling prices
DATABENTO = {"rtype", "publisher id"}
DATABENTO_PARTS = 1e9  # its prices are integers of this part, unless it is requested to write decimals
MOST_CONTRACT = 32  # bytes of a contract's name


def decode(path: Path) -> dict[str, np.ndarray]:
    """The rows of a file, in its order.

    time: int64 [n], nanoseconds since 1970: UTC, or wall-clock time of an unknown zone; NO_TIME: not readable.
    open, high, low, close, volume: float64 [n]; nan where it is no number.
    naive: uint8 [1], whether the times are wall-clock time. first_line: int64 [1], the line or row number of the first
    row. Where the file has them: zone, uint8 [k], the name of the times' zone; contract: uint8 [n, k], the symbol or
    contract of each row, padded with zeros.

    Raises ValueError, with the reason and the remedy, for a file that has no such columns.
    """
    table, first_line, separator = table_of(path)
    if not len(table):
        raise ValueError("holds no rows")
    names = _columns(table.columns)
    stamps = stamps_of(table[names["time"]], table[names["clock"]] if "clock" in names else None)
    columns = (*PRICES, "volume", *(name for name in TRADESTATION if name in names))
    out = dict(zip(columns, numbers_of([table[names[name]] for name in columns], separator), strict=True))
    if TRADESTATION[0] in out:
        out["volume"] = out.pop(TRADESTATION[0]) + out.pop(TRADESTATION[1])
    if _in_parts(table, names):
        out |= {name: out[name] / DATABENTO_PARTS for name in PRICES}
    in_utc = stamps.naive and {"utc", "gmt"} & set(_plain(names["time"]).split())
    out |= {
        "time": stamps.time, "naive": np.array([stamps.naive and not in_utc], np.uint8),
        "first_line": np.array([first_line], np.int64),
    }  # fmt: skip
    if stamps.zone:
        out["zone"] = np.frombuffer(stamps.zone.encode(), np.uint8)
    if "contract" in names:
        out["contract"] = _texts(table[names["contract"]])
    return out


def _plain(name: str) -> str:
    return re.sub(r"[\s_()\[\]]+", " ", name.strip().strip("<>").lower()).strip()


def _columns(columns: list[str]) -> dict[str, str]:
    """Our name -> the file's. Raises ValueError if one is missing."""
    known = {_plain(column): column for column in columns}
    found = {}
    for name, aliases in ALIASES.items():
        hit = next((known[alias] for alias in map(_plain, aliases) if alias in known), None)
        if hit is not None:
            found[name] = hit
    if "date" in known and "clock" in found and found["clock"] != known["date"]:
        found["time"] = known["date"]
    else:
        found.pop("clock", None)
    if "volume" not in found:
        found |= _volume(known)
    missing = [name for name in NEEDED if name not in found]
    if missing:
        accepted = "; ".join(f"{name}: {', '.join(ALIASES[name])}" for name in missing)
        hint = " Where volumes are not known, add a column of zeros." if missing == ["volume"] else ""
        raise ValueError(
            f"has no column {', '.join(missing)} (it has {', '.join(columns)}). Accepted: {accepted}.{hint}"
        )
    return found


def _volume(known: Mapping[str, str]) -> dict[str, str]:
    """The volume under less usual names: `Volume BTC`, or TradeStation's two columns."""
    named = [column for name, column in known.items() if name.startswith("volume ")]
    if named:
        return {"volume": named[0]}
    if all(name in known for name in TRADESTATION):
        return {"volume": known[TRADESTATION[0]]} | {name: known[name] for name in TRADESTATION}
    return {}


def _in_parts(table: pl.DataFrame, names: Mapping[str, str]) -> bool:
    """Whether prices are Databento's integers ("fixed-precision integers" in its reference of the DBN encoding)."""
    import polars as pl

    column = table[names["close"]]
    integers = column.str.contains(r"^-?\d+$").all() if column.dtype == pl.String else column.dtype.is_integer()
    return bool(integers) and {_plain(name) for name in table.columns} >= DATABENTO


def _texts(column: pl.Series) -> np.ndarray:
    """uint8 [n, k]: the texts, padded with zeros."""
    import polars as pl

    names = column.cast(pl.String).fill_null("").str.strip_chars()
    of = names.unique().sort()
    table = np.array([name.encode()[:MOST_CONTRACT] for name in of.to_list()], np.bytes_)
    place = names.replace_strict(of, range(len(of)), return_dtype=pl.Int64).to_numpy()
    return table.view(np.uint8).reshape(len(table), -1)[place]


ENCODER = Encoder("bars", "bars 2", decode, seconds=300.0, processor=60.0, bytes_per_second=5e6, megabytes=16384,
                  imports=("polars",))  # fmt: skip
