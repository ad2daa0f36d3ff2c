"""Reads annotations of a film: tables (.xlsx, .tsv, .csv) and subtitles (.srt, .vtt). Runs in the sandbox."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from training.data.encode import Encoder

SUFFIXES = (".xlsx", ".tsv", ".csv", ".srt", ".vtt")
_BEGIN = ("start time (s)", "start time", "start", "onset", "begin", "start_time", "start (s)", "time (s)", "time")
_END = ("end time (s)", "end time", "end", "offset", "end_time", "end (s)", "stop")
_DURATION = ("duration", "duration (s)", "length")
_CUE = re.compile(r"^\s*(?P<begin>[\d:.,]+)\s*-->\s*(?P<end>[\d:.,]+)")
_TAG = re.compile(r"<[^>]*>|\{[^}]*\}")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_TITLE_ROWS = 10  # among which the header of a table is looked for
_MOST_TEXT = 50_000_000  # characters of a file


def decode(path: Path) -> dict[str, np.ndarray]:
    """The words of a file with their times.

    onset: float64 [n], seconds of the film, ascending; the words of an annotation are spread evenly over its time.
    word: int32 [n], index into the vocabulary. vocabulary: uint8, a JSON list of words in lower case, sorted.
    skipped: int64 [1], rows without a time or text.

    Raises ValueError, with line or row and the remedy, for a file that has no such rows.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"is no annotation file: {', '.join(SUFFIXES)} are read")
    if suffix in (".srt", ".vtt"):
        spans, skipped = _subtitles(_text(path)), 0
    else:
        spans, skipped = _table(_sheet(path) if suffix == ".xlsx" else _delimited(path, suffix))
    words = [(at, word) for begin, end, text in spans for at, word in spread(begin, end, text)]
    if not words:
        raise ValueError("holds no word with a time")
    words.sort(key=lambda pair: pair[0])
    vocabulary = sorted({word for _, word in words})
    number = {word: index for index, word in enumerate(vocabulary)}
    return {
        "onset": np.array([at for at, _ in words]), "word": np.array([number[word] for _, word in words], np.int32),
        "vocabulary": np.frombuffer(json.dumps(vocabulary, ensure_ascii=False).encode(), np.uint8),
        "skipped": np.array([skipped]),
    }  # fmt: skip


def spread(begin: float, end: float, text: str) -> Iterator[tuple[float, str]]:
    """(onset in seconds, word in lower case) of every word of an annotation."""
    words = _WORD.findall(text.lower())
    for number, word in enumerate(words):
        yield begin + (end - begin) * number / len(words), word


def vocabulary_of(arrays: dict[str, np.ndarray]) -> list[str]:
    """The words that `word` refers to."""
    return json.loads(arrays["vocabulary"].tobytes())


def _text(path: Path) -> str:
    raw = path.read_bytes()
    if len(raw) > _MOST_TEXT:
        raise ValueError(f"has {len(raw):,} bytes: it is no annotation file")
    for encoding in ("utf-8-sig", "utf-16") if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig",):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError as error:
            place = error.start
    line = raw[:place].count(b"\n") + 1
    raise ValueError(f"line {line} is no UTF-8: save the file as UTF-8")


# -- tables ------------------------------------------------------------------------------------------------------------


def _delimited(path: Path, suffix: str) -> list[tuple[int, list[str]]]:
    """(line number, cells) of every line that is not empty."""
    text = _text(path)
    separator = "\t" if suffix == ".tsv" else _separator(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        return [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num} cannot be read: {error}") from None


def _separator(text: str) -> str:
    first = text.split("\n", 1)[0]
    return max(",;\t", key=first.count)


def _sheet(path: Path) -> list[tuple[int, list[str]]]:
    """(row number, cells) of the first sheet."""
    import openpyxl
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        sheet = book.worksheets[0]
        rows = [
            (number, ["" if cell is None else str(cell) for cell in row])
            for number, row in enumerate(sheet.iter_rows(values_only=True), 1)
        ]
    except (InvalidFileException, zipfile.BadZipFile, KeyError, IndexError, OSError) as error:
        raise ValueError(f"cannot be read as .xlsx: {error}. Save it again, or as .csv") from None
    return [(number, row) for number, row in rows if any(cell.strip() for cell in row)]


def _table(rows: list[tuple[int, list[str]]]) -> tuple[list[tuple[float, float, str]], int]:
    """(begin, end, text) of every row, and the number of rows without a time or text. All columns of text count."""
    if len(rows) < 2:
        raise ValueError("holds no rows below its header")
    header = _titles(rows[0][1])
    for place, (_, row) in enumerate(rows[:_TITLE_ROWS]):  # a table may have a title and remarks above its header
        if _column(_titles(row), _BEGIN) is not None:
            rows, header = rows[place:], _titles(row)
            break
    begin = _column(header, _BEGIN)
    if begin is None:
        raise ValueError(
            f"no row of the first {_TITLE_ROWS} has a column of start times: the first has "
            f"{', '.join(filter(None, header))[:200]}. Name the column `Start Time (s)`, `onset` or `start`; it holds "
            "seconds of the film"
        )
    end, duration = _column(header, _END), _column(header, _DURATION)
    timing = {begin, end, duration} - {None}
    texts = _text_columns(header, rows[1:], timing)
    if not texts:
        raise ValueError("has no column of text beside its times")
    found, skipped, bad = [], 0, []
    for place, row in rows[1:]:
        cells = [*row, *[""] * (len(header) - len(row))]
        text = " ".join(cells[column] for column in texts if cells[column].strip())
        try:
            at = seconds(cells[begin])
            until = seconds(cells[end]) if end is not None else (
                at + seconds(cells[duration]) if duration is not None else at
            )  # fmt: skip
        except ValueError as error:
            skipped += 1
            bad.append(f"row {place}: {error}")
            continue
        if not text.strip():
            skipped += 1
        elif until < at:
            raise ValueError(f"row {place} ends at {until:g} s, before it begins at {at:g} s: correct its times")
        else:
            found.append((at, until, text))
    if len(bad) > len(rows) // 2:
        raise ValueError(f"more than half of its rows have no time; the first is {bad[0]}")
    return found, skipped


def _titles(row: Sequence[str]) -> list[str]:
    return [" ".join(cell.lower().split()) for cell in row]


def _column(header: Sequence[str], names: Sequence[str]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


def _text_columns(header: Sequence[str], rows: Iterable[tuple[int, list[str]]], timing: set) -> list[int]:
    """Columns in which most filled cells hold a word; not identifiers and numbers."""
    out = []
    listed = list(rows)
    for column in range(len(header)):
        filled = [row[column] for _, row in listed if column < len(row) and row[column].strip()]
        wordy = sum(bool(_WORD.search(cell)) for cell in filled)
        if column not in timing and filled and wordy > len(filled) / 2:
            out.append(column)
    return out


def seconds(text: str) -> float:
    """A time: 83.5, 1:23.5 or 00:01:23,500 -> seconds. Raises ValueError."""
    parts = text.strip().replace(",", ".").split(":")
    try:
        values = [float(part) for part in parts]
    except ValueError:
        raise ValueError(f"{text!r} is no time: write seconds, or minutes:seconds, without a date") from None
    if len(parts) > 3 or not all(np.isfinite(values)) or min(values) < 0:
        raise ValueError(f"{text!r} is no time: write seconds, or minutes:seconds, without a date")
    total = 0.0
    for value in values:
        total = 60 * total + value
    return total


# -- subtitles ---------------------------------------------------------------------------------------------------------


def _subtitles(text: str) -> list[tuple[float, float, str]]:
    """(begin, end, text) of every cue of SubRip or WebVTT."""
    found, lines = [], text.splitlines()
    number = 0
    while number < len(lines):
        cue = _CUE.match(lines[number])
        number += 1
        if not cue:
            continue
        try:
            begin, end = seconds(cue["begin"]), seconds(cue["end"])
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
        if end < begin:
            raise ValueError(f"line {number} ends at {end:g} s, before it begins at {begin:g} s: correct its times")
        spoken = []
        while number < len(lines) and lines[number].strip() and not _CUE.match(lines[number]):
            spoken.append(lines[number])
            number += 1
        found.append((begin, end, _TAG.sub(" ", " ".join(spoken))))
    return found


ENCODER = Encoder("annotations", "annotations 2", decode, megabytes=2048, imports=("openpyxl",))
