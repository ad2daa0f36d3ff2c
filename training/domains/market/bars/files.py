"""The files of a folder of bars: one for each symbol."""

from __future__ import annotations

import csv
from datetime import UTC, datetime, timedelta
from pathlib import Path

from training.data.files import printable
from training.domains.market.bars.reading import NAME, SUFFIXES
from training.errors import DataError, UsageError


def symbol_of(path: Path) -> str | None:
    """The symbol in a file's name; None for another file."""
    found = NAME.match(path.name)
    return found["symbol"] if found else None


def files_of(folder: Path, symbols: str | None = None) -> dict[str, Path]:
    """Symbol -> its file, sorted. `symbols`: those that are wanted, separated by commas; None: all.

    Raises DataError if the folder has no file of bars, or two of one symbol; UsageError for a symbol that it has not.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        symbol = symbol_of(path)
        if symbol is None or not path.is_file():
            continue
        if symbol in found:
            raise DataError(
                f"{printable(folder)} has two files of {symbol}: {found[symbol].name}, {path.name}. Leave one."
            )
        found[symbol] = path
    if not found:
        raise DataError(
            f"{printable(folder)} holds no file of bars. Their names are SYMBOL_1m.parquet, SYMBOL_1m.csv, .txt, "
            f".csv.gz or .zip.{_seen(folder)}"
        )
    if symbols is None:
        return found
    wanted = [name.strip() for name in symbols.split(",") if name.strip()]
    absent = [name for name in wanted if name not in found]
    if absent or not wanted:
        missing = ", ".join(absent) or "symbol"
        raise UsageError(f"--symbols {symbols}: there is no {missing}; there are {', '.join(found)}.")
    return {name: found[name] for name in dict.fromkeys(wanted)}


def others_in(folder: Path) -> list[str]:
    """Files of the folder that may hold bars by their suffix, and are not used because of their name; sorted."""
    names = (path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return sorted(name for name in names if name.lower().endswith(SUFFIXES) and NAME.match(name) is None)


def _seen(folder: Path) -> str:
    others = others_in(folder)
    return f" It has {', '.join(map(printable, others[:3]))}{', ...' if len(others) > 3 else ''}." if others else ""


def read_cuts(path: Path) -> dict[str, list[int]]:
    """Symbol -> times (nanoseconds UTC) of splits and rolls, from a CSV file with the columns symbol and time. The time
    is that of the first bar after it, in UTC.

    Raises DataError that names the line.
    """
    example = "The columns are symbol,time; a line is MES,2024-03-15T13:30."
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{printable(path)} is no CSV: {error}. {example}") from None
    if not rows:
        raise DataError(f"{printable(path)} holds no times. {example}")
    out: dict[str, list[int]] = {}
    for number, row in enumerate(rows, 2):
        try:
            out.setdefault(row["symbol"].strip(), []).append(_instant(row["time"].strip()))
        except KeyError as error:
            raise DataError(f"{printable(path)}:{number}: no column {error}. {example}") from None
        except (ValueError, AttributeError) as error:
            raise DataError(f"{printable(path)}:{number}: {error}. {example}") from None
    return out


def _instant(text: str) -> int:
    """Nanoseconds UTC of an ISO 8601 time, which is UTC without an offset. Raises ValueError."""
    at = datetime.fromisoformat(text)
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1_000
