"""Rows of files of questions: JSONL, JSON, and CSV with any of the usual separators."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from training.data.files import printable, regular_file
from training.errors import DataError

_CSV_FIELD = 16 << 20  # characters of one field; the csv module's default is too short for a large schema
_SEPARATORS = ",;\t"


def rows_of(path: Path) -> Iterator[tuple[int, Any]]:
    """(line, or number of the entry of a JSON list; row), or the ValueError of a line that holds none.

    Raises DataError if the file cannot be read or is of no known kind.
    """
    reason = regular_file(path)
    if reason:
        raise DataError(f"{printable(path)}: {reason}")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        more = f" Write it as JSONL first:\n{_to_jsonl(path)}" if path.suffix.lower() == ".parquet" else ""
        raise DataError(f"{printable(path)}: questions are read from {', '.join(_READERS)} files.{more}")
    return reader(path)


def _to_jsonl(path: Path) -> str:
    """The commands that write a Parquet file as JSONL, in an environment that they make."""
    code = f"import polars; polars.read_parquet({str(path)!r}).write_ndjson({str(path.with_suffix('.jsonl'))!r})"
    return (
        "  python3 -m venv /tmp/polars && /tmp/polars/bin/pip install polars\n"
        f"  /tmp/polars/bin/python -c {shlex.quote(code)}"
    )


def _jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number, row), or the ValueError of a line that holds none."""
    content = path.read_bytes()
    _refuse_utf16(path, content)
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip(b"\xef\xbb\xbf \t\r"):
            continue
        try:
            yield number, json.loads(line.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            yield number, ValueError(f"is not UTF-8 text (byte {error.start + 1})")
        except json.JSONDecodeError as error:
            yield number, ValueError(f"is not valid JSON: {error.msg} (column {error.colno})")
        except RecursionError:
            yield number, ValueError("is nested too deeply")


def _json(path: Path) -> Iterator[tuple[int, Any]]:
    """(number of the entry, row) of a list."""
    try:
        rows = json.loads(_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{printable(path)} is not valid JSON: {error}") from None
    lists = [value for value in rows.values() if isinstance(value, list)] if isinstance(rows, dict) else [rows]
    if len(lists) != 1 or not isinstance(lists[0], list):  # {"data": [...]} is a list of questions, too
        raise DataError(f"{printable(path)} is a {type(rows).__name__}; a .json file is a list of questions.")
    rows = lists[0]
    yield from enumerate(rows, 1)


def _csv(path: Path) -> Iterator[tuple[int, Any]]:
    """(number of the first line, row), by the names in the first line, whose separator is that of the file."""
    csv.field_size_limit(_CSV_FIELD)
    text = _text(path)
    separator = max(_SEPARATORS, key=text.partition("\n")[0].count)
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, delimiter=separator)
    begin = 2
    try:
        for row in reader:
            if None in row or None in row.values():
                count = len(reader.fieldnames or ())
                yield begin, ValueError(f"has another number of columns than the first line, which has {count}")
            else:
                yield begin, row
            begin = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{printable(path)}:{reader.line_num}: is not valid CSV: {error}") from None


def _text(path: Path) -> str:
    content = path.read_bytes()
    _refuse_utf16(path, content)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{printable(path)} is not UTF-8 text (byte {error.start + 1}); save it as UTF-8.") from None


def _refuse_utf16(path: Path, content: bytes) -> None:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{printable(path)} is UTF-16 text; save it as UTF-8.")


_READERS: dict[str, Callable[[Path], Iterator[tuple[int, Any]]]] = {
    ".jsonl": _jsonl, ".ndjson": _jsonl, ".json": _json, ".csv": _csv, ".tsv": _csv,
}  # fmt: skip
