"""Reads a column of times: numbers since 1970, and texts in the formats of programs of the field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

if TYPE_CHECKING:
    import polars as pl

FORMATS = (
    "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M", "%Y%m%d %H%M%S", "%Y%m%d %H%M",
    "%Y%m%d %H:%M:%S", "%Y%m%d %H:%M", "%Y%m%d%H%M%S", "%Y.%m.%d %H:%M:%S", "%Y.%m.%d %H:%M",
    "%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M", "%d.%m.%Y %H:%M:%S%.f", "%d.%m.%Y %H:%M",
    "%Y-%m-%d %I:%M:%S %p", "%Y-%m-%d %I:%M %p",
)  # fmt: skip
#: Both orders of day and month are read; the one that does not fit the file is refused by its values.
SLASHED = tuple(
    (f"%m/%d/%Y {clock}", f"%d/%m/%Y {clock}") for clock in ("%H:%M:%S", "%H:%M", "%I:%M:%S %p", "%I:%M %p")
)
EPOCHS = ((1e11, 1_000_000_000), (1e14, 1_000_000), (1e17, 1_000), (1e20, 1))  # below -> nanoseconds in a unit
LEAST_EPOCH = 1e8
LINES_TRIED = 2_000
NO_TIME = np.iinfo(np.int64).min
_OFFSET = r"\s?(?:GMT|UTC)?(Z|UTC|GMT|[+-]\d{2}:?\d{2})$"
_ZONE = r"\s([A-Za-z]+(?:/[A-Za-z_]+)+)$"  # 20240226 09:30:00 US/Eastern, as Interactive Brokers writes


@dataclass(frozen=True, eq=False)
class Stamps:
    """`time`: int64 [n], nanoseconds since 1970; NO_TIME: not readable. `naive`: it is wall-clock time; of the zone
    `zone` where the file names one."""

    time: np.ndarray
    naive: bool
    zone: str = ""


def stamps_of(column: pl.Series, clock: pl.Series | None) -> Stamps:
    """The times of a column, or of one of dates with its column `clock`. Raises ValueError with the reason."""
    import polars as pl

    if isinstance(column.dtype, pl.Datetime):
        naive = column.dtype.time_zone is None
        if not naive:
            column = column.dt.convert_time_zone("UTC")
        return Stamps(_filled(column.cast(pl.Datetime("ns", column.dtype.time_zone)).to_physical()), naive)
    if column.dtype.is_numeric() and clock is None:
        return Stamps(_epochs(column.cast(pl.Int64, strict=False)), False)
    if column.dtype != pl.String and clock is None:
        raise ValueError(f"has times of type {column.dtype}; a datetime, a text or a number since 1970 is needed")
    if clock is not None:
        column = column.cast(pl.String) + " " + clock.cast(pl.String)
    column = column.str.strip_chars()
    if column.str.contains("  ", literal=True).any():
        column = column.str.replace_all(r"\s+", " ")
    tried = column.drop_nulls().head(LINES_TRIED)
    if not len(tried):
        raise ValueError("has no times: the column is empty")
    if tried.str.contains(r"^\d{9,}(\.\d+)?$").mean() > 0.5 and tried.str.len_chars().max() != 14:
        integers = column.cast(pl.Int64, strict=False)  # a float has too few digits for nanoseconds
        floats = column.cast(pl.Float64, strict=False).cast(pl.Int64, strict=False)
        return Stamps(_epochs(integers.fill_null(floats)), False)
    if tried.str.contains(_ZONE).mean() > 0.5:
        return _in_zone(column)
    return _texts(column, tried)


def _filled(column: pl.Series) -> np.ndarray:
    return column.fill_null(NO_TIME).to_numpy().astype(np.int64)


def _epochs(column: pl.Series) -> np.ndarray:
    """Seconds, milliseconds, microseconds or nanoseconds since 1970, each by its size: Binance's files have
    milliseconds until 2024 and microseconds since."""
    values = _filled(column)
    out = np.full(len(values), NO_TIME)
    least = LEAST_EPOCH
    for bound, scale in EPOCHS:
        of_unit = (values >= least) & (values < bound)
        out[of_unit] = values[of_unit] * scale
        least = bound
    known = values[values != NO_TIME]
    if (out == NO_TIME).mean() > 0.5:
        size = float(np.median(known)) if len(known) else 0.0
        raise ValueError(f"has times like {size:.0f}, which are no seconds, ms, µs or ns since 1970")
    return out


def _in_zone(column: pl.Series) -> Stamps:
    """Times that end with the name of their zone."""
    zones = column.str.extract(_ZONE).drop_nulls().unique().sort().to_list()
    if len(zones) > 1:
        raise ValueError(f"has times of several zones: {', '.join(zones[:5])}. Export it again in UTC")
    try:
        ZoneInfo(zones[0])
    except (ZoneInfoNotFoundError, ValueError):
        raise ValueError(f"has times of the zone {zones[0]}, which is not known here. Export it again in UTC") from None
    plain = column.str.replace(_ZONE, "")
    found = _texts(plain, plain.drop_nulls().head(LINES_TRIED))
    return Stamps(found.time, True, zones[0])


def _texts(column: pl.Series, tried: pl.Series) -> Stamps:
    """Times in one of the known formats, with an offset to UTC or without."""
    import polars as pl

    aware = tried.str.contains(_OFFSET).mean() > 0.5
    plain = column.str.replace(_OFFSET, "") if aware else column
    form = _format_of(tried.str.replace(_OFFSET, "") if aware else tried, plain)
    time = plain.str.to_datetime(form, strict=False, time_unit="ns").to_physical()
    if aware:
        utc = "+00:00"
        marks = column.str.extract(_OFFSET).replace({"Z": utc, "UTC": utc, "GMT": utc})
        sign = pl.when(marks.str.starts_with("-")).then(-1).otherwise(1)
        digits = marks.str.replace(":", "").str.slice(1)
        shift = (digits.str.slice(0, 2).cast(pl.Int64) * 60 + digits.str.slice(2, 2).cast(pl.Int64)) * 60_000_000_000
        time = time - shift * pl.select(sign).to_series()
    return Stamps(_filled(time), not aware)


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
