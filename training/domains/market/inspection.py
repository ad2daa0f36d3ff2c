"""What is read from one file of bars, for `inspect`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from training.domain import Inspected
from training.domains.market.bars.cleaning import Health, clean
from training.domains.market.bars.files import symbol_of
from training.domains.market.bars.reading import NO_TIME, decode
from training.domains.market.bars.times import as_text
from training.errors import DataError

SHOWN = 20


def inspect(path: Path) -> Inspected:
    """The columns, times and faults of a file of one-minute bars. Raises ValueError with the reason where `prepare`
    would refuse the file."""
    raw = decode(path)
    symbol = symbol_of(path) or path.stem
    named = bytes(raw["zone"]).decode() if "zone" in raw else ""
    naive = bool(raw["naive"][0]) and not named
    known = raw["time"][raw["time"] != NO_TIME]
    prices = raw["close"][np.isfinite(raw["close"])]
    facts = {
        "symbol": symbol,
        "rows": len(raw["time"]),
        "first time": as_text(int(known.min())) if len(known) else None,
        "last time": as_text(int(known.max())) if len(known) else None,
        "zone": "none: --timezone is needed" if naive else named or "UTC",
        "median close": float(np.median(prices)) if len(prices) else None,
    }
    try:
        minutes, health = clean(symbol, raw, zone="UTC" if naive else None, adjusted=True)
    except DataError as error:
        raise ValueError(str(error)) from None
    facts |= {"minutes used": len(minutes), "trading days": len(np.unique(minutes.session.days(minutes.time)))}
    return Inspected("one-minute bars", facts, _tables(health), tuple(_remarks(path, naive, health)))


def _tables(health: Health) -> dict[str, list[dict[str, object]]]:
    found = {
        "exact duplicates (dropped)": health.duplicates, "gaps of more than 5 minutes": health.gaps,
        "missing minutes": health.missing, "bad ticks": len(health.bad_ticks),
    } | health.reasons  # fmt: skip
    tables = {"found": [{"what": name, "count": count} for name, count in found.items()]}
    if health.faults:
        tables["quarantined"] = [{"line": f.line, "time": f.time, "reason": f.reason} for f in health.faults[:SHOWN]]
    if health.jumps:
        tables["splits or rolls"] = [dict(jump) for jump in health.jumps[:SHOWN]]
    return tables


def _remarks(path: Path, naive: bool, health: Health) -> list[str]:
    out = ["times are read as the open of a bar; --stamp close if they mark its close"]
    if symbol_of(path) is None:
        out.append("the name is not SYMBOL_1m.parquet or SYMBOL_1m.csv: prepare does not read this file")
    if naive:
        out.append("times have no zone, and are shown as if they were UTC")
    if any("as the file says" not in str(jump["about"]) for jump in health.jumps):
        out.append("jumps like splits or rolls: prepare refuses them without --adjusted or --rolls")
    return [*out, *health.remarks]
