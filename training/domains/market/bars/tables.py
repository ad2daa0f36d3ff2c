"""Opens a file of bars as a table: Parquet as it is, CSV (also in .gz and .zip) as texts."""

from __future__ import annotations

import gzip
import io
import re
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

PRICES = ("open", "high", "low", "close")
#: Without a header: the columns in order, by their number. Twelve are those of Binance's files of klines.
HEADERLESS = {
    6: ("time", *PRICES, "volume"),
    7: ("date", "clock", *PRICES, "volume"),
    12: ("open time", *PRICES, "volume", "close time", "quote volume", "count", "taker volume", "taker quote volume",
         "ignore"),
}  # fmt: skip
SEPARATORS = ";\t,"
LINES_BEFORE = 5  # a program's name or address, or comments, before the header


def table_of(path: Path) -> tuple[pl.DataFrame, int, str]:
    """All columns of a file, the number of its first row (a line of CSV, 1 of Parquet), and the separator of its fields
    ("": Parquet).

    Raises ValueError, with the reason and the remedy, for a file that is no table.
    """
    import polars as pl

    try:
        if path.suffix.lower() == ".parquet":
            return pl.read_parquet(path), 1, ""
        return _csv(_content(path))
    except (pl.exceptions.PolarsError, OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise ValueError(f"cannot be read: {(str(error).splitlines() or [''])[0][:200]}") from None


def _content(path: Path) -> bytes:
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if suffix != ".zip":
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        inside = [name for name in archive.namelist() if name.lower().endswith((".csv", ".txt"))]
        if len(inside) != 1:
            raise ValueError(f"holds {len(inside)} files of CSV; one is needed: {', '.join(inside[:5]) or 'none'}")
        try:
            return archive.read(inside[0])
        except (RuntimeError, NotImplementedError) as error:  # a password, or a method that Python does not know
            raise ValueError(f"cannot be read: {error}") from None


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        try:
            return content.decode("utf-16")  # MetaTrader 5
        except UnicodeError:
            raise ValueError(f"is not UTF-8 text (byte {error.start + 1})") from None


def _csv(content: bytes) -> tuple[pl.DataFrame, int, str]:
    import polars as pl

    text = _text(content)
    skipped = _lines_before(text)
    text = "".join(io.StringIO(text).readlines()[skipped:]) if skipped else text
    head = text.partition("\n")[0].strip()
    separator = max(SEPARATORS, key=head.count)
    if not head.count(separator):
        raise ValueError("has no columns: separate them by commas, semicolons or tabs")
    has_header = sum(map(_is_number, head.split(separator))) < len(PRICES)
    table = pl.read_csv(
        text.encode(), separator=separator, has_header=has_header, infer_schema_length=0, truncate_ragged_lines=True,
    )  # fmt: skip
    if not has_header:
        if len(table.columns) not in HEADERLESS:
            known = " or ".join(",".join(HEADERLESS[count]) for count in (6, 7))
            raise ValueError(
                f"has no header and {len(table.columns)} columns. Add a first line with their names; without one, they "
                f"are {known}, or Binance's twelve"
            )
        table.columns = list(HEADERLESS[len(table.columns)])
    return table, skipped + (2 if has_header else 1), separator


def _lines_before(text: str) -> int:
    """How many lines are before the header: comments, empty lines, and lines without a separator."""
    for number, line in enumerate(io.StringIO(text)):
        if number > LINES_BEFORE:
            return 0
        if not line.startswith("#") and any(mark in line.strip() for mark in SEPARATORS):
            return number
    return 0


def _is_number(field: str) -> bool:
    return re.fullmatch(r"\s*-?\d+([.,]\d*)?\s*", field) is not None
