"""Decodes a file of one-minute bars, as programs of the field write them, into arrays. Runs in the sandbox.

What the times mean (their zone, whether they stamp a bar's open or close) is decided later, in `times.py`: it depends
on options, and a stored record depends on the file alone.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from training.data.encode import Encoder

if TYPE_CHECKING:
    import polars as pl

NAME = re.compile(r"^(?P<symbol>[^_].*)_1m\.(parquet|csv|csv\.gz)$", re.I)
#: Column -> its names in files, in lower case without brackets, spaces and underscores.
ALIASES = {
    "time": ("open time", "opentime", "time", "datetime", "timestamp", "ts", "date time", "ts_event", "index",
             "index level 0", "unix", "date"),
    "clock": ("time", "clock"),  # beside a column `date`
    "open": ("open", "o", "open price", "first"),
    "high": ("high", "h", "high price", "max"),
    "low": ("low", "l", "low price", "min"),
    "close": ("close", "c", "close price", "last"),
    # MetaTrader: the real volume is 0 for most symbols, beside a tick volume
    "volume": ("volume", "tick volume", "tickvol", "tick vol", "vol", "v", "real volume", "total volume", "size"),
}  # fmt: skip
PRICES = ("open", "high", "low", "close")
#: Without a header: the columns in order, by their number.
HEADERLESS = {6: ("time", *PRICES, "volume"), 7: ("date", "clock", *PRICES, "volume")}
FORMATS = (
    "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M", "%Y%m%d %H%M%S", "%Y%m%d %H%M",
    "%Y%m%d %H:%M:%S", "%Y%m%d %H:%M", "%Y%m%d%H%M%S", "%Y.%m.%d %H:%M:%S", "%Y.%m.%d %H:%M",
    "%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M", "%d.%m.%Y %H:%M:%S%.f", "%d.%m.%Y %H:%M",
)  # fmt: skip
#: Both orders of day and month are read; the one that does not fit the file is refused by its values.
SLASHED = (("%m/%d/%Y %H:%M:%S", "%d/%m/%Y %H:%M:%S"), ("%m/%d/%Y %H:%M", "%d/%m/%Y %H:%M"))
EPOCHS = ((1e11, 1_000_000_000), (1e14, 1_000_000), (1e17, 1_000), (1e20, 1))  # below -> nanoseconds in a unit
LINES_TRIED = 2_000
NO_TIME = np.iinfo(np.int64).min


def decode(path: Path) -> dict[str, np.ndarray]:
    """The rows of a file, in its order.

    time: int64 [n], nanoseconds since 1970: UTC, or wall-clock time of an unknown zone; NO_TIME: not readable.
    open, high, low, close, volume: float64 [n]; nan where it is no number.
    naive: uint8 [1], whether the zone is unknown. first_line: int64 [1], the line or row number of the first row.

    Raises ValueError, with the reason and the remedy, for a file that has no such columns.
    """
    table, first_line = _table(path)
    if not len(table):
        raise ValueError("holds no rows")
    names = _columns(table.columns)
    time, naive = _times(table, names)
    out = {name: _numbers(table[names[name]]) for name in (*PRICES, "volume")}
    return {
        "time": time, **out, "naive": np.array([naive], np.uint8), "first_line": np.array([first_line], np.int64),
    }  # fmt: skip


def _table(path: Path) -> tuple[pl.DataFrame, int]:
    """All columns of a file as they are (Parquet) or as texts (CSV), and the number of the first row."""
    import polars as pl

    try:
        if path.suffix.lower() == ".parquet":
            return pl.read_parquet(path), 1
        return _csv(path)
    except (pl.exceptions.PolarsError, OSError, EOFError) as error:
        raise ValueError(f"cannot be read: {str(error).splitlines()[0][:200]}") from None


def _csv(path: Path) -> tuple[pl.DataFrame, int]:
    import gzip

    import polars as pl

    content = gzip.decompress(path.read_bytes()) if path.suffix.lower() == ".gz" else path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        try:
            text = content.decode("utf-16")  # MetaTrader 5
        except UnicodeError:
            raise ValueError(f"is not UTF-8 text (byte {error.start + 1})") from None
    head = text.lstrip().partition("\n")[0].strip()
    separator = max(";\t,", key=head.count)
    if not head or not head.count(separator):
        raise ValueError("has no columns: separate them by commas, semicolons or tabs")
    has_header = sum(map(_is_number, head.split(separator))) < len(PRICES)
    table = pl.read_csv(
        text.encode(), separator=separator, has_header=has_header, infer_schema_length=0, truncate_ragged_lines=True,
    )  # fmt: skip
    if not has_header:
        if len(table.columns) not in HEADERLESS:
            known = " or ".join(",".join(names) for names in HEADERLESS.values())
            raise ValueError(f"has no header and {len(table.columns)} columns; without a header: {known}")
        table.columns = list(HEADERLESS[len(table.columns)])
    if separator == ";":  # the decimal sign may be a comma then
        table = table.with_columns(pl.col(pl.String).str.replace(r"^(-?\d+),(\d+)$", "${1}.${2}"))
    return table, 2 if has_header else 1


def _is_number(field: str) -> bool:
    return re.fullmatch(r"\s*-?\d+([.,]\d*)?\s*", field) is not None


def _plain(name: str) -> str:
    return re.sub(r"[\s_]+", " ", name.strip().strip("<>").lower()).strip()


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
    missing = [name for name in ("time", *PRICES, "volume") if name not in found]
    if missing:
        accepted = "; ".join(f"{name}: {', '.join(ALIASES[name])}" for name in missing)
        raise ValueError(f"has no column {', '.join(missing)} (it has {', '.join(columns)}). Accepted: {accepted}")
    return found


def _numbers(column: pl.Series) -> np.ndarray:
    import polars as pl

    return column.cast(pl.Float64, strict=False).fill_null(float("nan")).to_numpy().astype(np.float64)


def _times(table: pl.DataFrame, names: dict[str, str]) -> tuple[np.ndarray, bool]:
    """Nanoseconds, and whether their zone is unknown."""
    import polars as pl

    column = table[names["time"]]
    if isinstance(column.dtype, pl.Datetime):
        naive = column.dtype.time_zone is None
        if not naive:
            column = column.dt.convert_time_zone("UTC")
        return _filled(column.cast(pl.Datetime("ns", column.dtype.time_zone)).to_physical()), naive
    if column.dtype.is_numeric():
        return _epochs(column.cast(pl.Int64, strict=False)), False
    if column.dtype != pl.String:
        raise ValueError(f"has times of type {column.dtype}; a datetime, a text or a number since 1970 is needed")
    if "clock" in names:
        column = column + " " + table[names["clock"]].cast(pl.String)
    column = column.str.strip_chars()
    tried = column.drop_nulls().head(LINES_TRIED)
    if tried.str.contains(r"^\d{9,}(\.\d+)?$").mean() > 0.5 and tried.str.len_chars().max() != 14:
        integers = column.cast(pl.Int64, strict=False)  # a float has too few digits for nanoseconds
        return _epochs(integers.fill_null(column.cast(pl.Float64, strict=False).cast(pl.Int64, strict=False))), False
    return _texts(column, tried)


def _filled(column: pl.Series) -> np.ndarray:
    return column.fill_null(NO_TIME).to_numpy().astype(np.int64)


def _epochs(column: pl.Series) -> np.ndarray:
    """Seconds, milliseconds, microseconds or nanoseconds since 1970, by their size."""
    values = _filled(column)
    good = values[values != NO_TIME]
    size = float(np.median(good)) if len(good) else 0.0
    for bound, scale in EPOCHS:
        if 1e8 <= size < bound:
            return np.where(values == NO_TIME, NO_TIME, values * scale)
    raise ValueError(f"has times like {size:.0f}, which are no seconds, ms, µs or ns since 1970")


def _texts(column: pl.Series, tried: pl.Series) -> tuple[np.ndarray, bool]:
    """Times in one of the known formats, with an offset to UTC or without."""
    import polars as pl

    offset = r"\s?(Z|UTC|[+-]\d{2}:?\d{2})$"
    aware = tried.str.contains(offset).mean() > 0.5
    plain = column.str.replace(offset, "") if aware else column
    form = _format_of(tried.str.replace(offset, "") if aware else tried, plain)
    time = plain.str.to_datetime(form, strict=False, time_unit="ns").to_physical()
    if aware:
        marks = column.str.extract(offset).replace({"Z": "+00:00", "UTC": "+00:00"})
        sign = pl.when(marks.str.starts_with("-")).then(-1).otherwise(1)
        digits = marks.str.replace(":", "").str.slice(1)
        shift = (digits.str.slice(0, 2).cast(pl.Int64) * 60 + digits.str.slice(2, 2).cast(pl.Int64)) * 60_000_000_000
        time = time - shift * pl.select(sign).to_series()
    return _filled(time), not aware


def _format_of(tried: pl.Series, complete: pl.Series) -> str:
    """The format of a column of times. Raises ValueError if it is none, or day and month cannot be distinguished."""

    def read(form: str, column: pl.Series = tried) -> int:
        return column.str.to_datetime(form, strict=False, time_unit="ns").count()

    best = max(FORMATS, key=read)
    if read(best) > 0.5 * len(tried):
        return best
    for american, european in SLASHED:
        counts = {form: read(form, complete) for form in (american, european)}
        if max(counts.values()) > 0.5 * len(complete):
            if len(set(counts.values())) == 1:
                raise ValueError("has dates like 01/02/2024 alone, which may be January or February: write 2024-01-02")
            return max(counts, key=counts.get)
    raise ValueError(f"has times like {tried[0]!r}; use 2024-01-02 09:30:00, 2024-01-02T09:30Z or seconds since 1970")


ENCODER = Encoder("bars", "bars 1", decode, seconds=300.0, processor=60.0, bytes_per_second=5e6, megabytes=16384,
                  imports=("polars",))  # fmt: skip
