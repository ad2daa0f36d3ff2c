"""What the stamps of a file mean: the UTC instant at which each one-minute bar opens."""

from __future__ import annotations

from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from training.domains.market.bars.stamps import NO_TIME
from training.errors import UsageError

MINUTE = 60_000_000_000  # nanoseconds
Stamp = Literal["open", "close"]

NO_REASON, UNREADABLE, TWICE, SKIPPED, OFF_MINUTE = range(5)
REASONS = {
    UNREADABLE: "time cannot be read",
    TWICE: "the hour occurs twice when the clocks are set back",
    SKIPPED: "the hour does not exist: the clocks are set forward",
    OFF_MINUTE: "time is not a full minute",
}


def zone_of(name: str | None) -> str | None:
    """A time zone's name, checked. Raises UsageError for an unknown one."""
    if name is None:
        return None
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise UsageError(
            f"--timezone {name} is not a time zone; names are like America/New_York, Europe/Berlin, UTC."
        ) from None
    return name


def opens(time: np.ndarray, zone: str | None, stamp: Stamp) -> tuple[np.ndarray, np.ndarray]:
    """When each bar opens (int64 [n], nanoseconds UTC; NO_TIME where unknown), and why not (uint8 [n], of REASONS).

    `time`: int64 [n], nanoseconds: UTC, or wall-clock time of `zone`. `stamp`: whether a stamp marks a bar's open or
    its close.
    """
    reasons = np.where(time == NO_TIME, UNREADABLE, NO_REASON).astype(np.uint8)
    utc = time if zone is None else _to_utc(time, zone, reasons)
    off = (reasons == NO_REASON) & (utc % MINUTE != 0)
    reasons[off] = OFF_MINUTE
    shifted = utc - (MINUTE if stamp == "close" else 0)
    return np.where(reasons == NO_REASON, shifted, NO_TIME), reasons


def _to_utc(time: np.ndarray, zone: str, reasons: np.ndarray) -> np.ndarray:
    """Wall-clock time of a zone -> UTC; where that is not one instant, `reasons` is filled in."""
    import polars as pl

    wall = pl.Series(np.where(time == NO_TIME, 0, time)).cast(pl.Datetime("ns"))

    def utc(ambiguous: str) -> np.ndarray:
        placed = wall.dt.replace_time_zone(zone, ambiguous=ambiguous, non_existent="null")
        return placed.dt.convert_time_zone("UTC").to_physical().fill_null(NO_TIME).to_numpy()

    early, late = utc("earliest"), utc("latest")
    readable = reasons == NO_REASON
    reasons[readable & (early == NO_TIME)] = SKIPPED
    reasons[readable & (early != late)] = TWICE
    return early


def as_text(time: int) -> str:
    """An instant for messages: 2024-01-02T09:30Z."""
    return "no time" if time == NO_TIME else f"{np.datetime64(int(time), 'ns').astype('datetime64[m]')}Z"
