"""Emotion labels of songs: from a user's file of labels, else from the names of folders and files."""

from __future__ import annotations

import csv
import io
import json
import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from training.data.files import Found, printable, regular_file
from training.domains.music import emotion
from training.errors import DataError, UsageError

_KEY_COLUMNS = ("path", "id", "file", "name", "relative_path", "audio_path", "midi_path")
_WORD_COLUMNS = ("emotion", "label", "word", "mood")
_VECTOR_COLUMNS = ("valence", "arousal", "intensity")


@dataclass(frozen=True)
class Label:
    emotion: tuple[float, ...]  # 3 or 64 numbers
    name: str  # of the emotion that the vector is classified as
    source: str  # "labels", "path" or "none"


def of_song(files: Iterable[Found], given: Labels) -> Label:
    """The label of a song from its files (recording first): the user's, else a word in their folders' or own names."""
    files = list(files)
    for file in files:
        label = given.find(file)
        if label is not None:
            return label
    for file in files:
        found = emotion.label_for(file.relative)
        if found.hinted:
            given.note(file, found)
            return _shared(found.vector, found.emotion, "path")
    return _shared(emotion.NEUTRAL, "neutral", "none")


@cache
def _shared(vector: tuple[float, ...], name: str, source: str) -> Label:
    """One object for all songs with this label: there may be millions."""
    return Label(vector, name, source)


def contradiction(audio: Found, midi: Found) -> str | None:
    """Why a recording and a score of the same stem are different songs: their names contain different emotions."""
    first, second = emotion.label_for(audio.relative), emotion.label_for(midi.relative)
    if first.hinted and second.hinted and first.vector != second.vector:
        return f"the recording's path names {first.word}, the score's {second.word}"
    return None


class Labels:
    """A user's labels: relative path, with or without extension, -> emotion. And what is uncertain in the labels that
    were taken from paths."""

    def __init__(self, entries: Mapping[str, Label] | None = None, path: Path | None = None):
        self._entries, self._path = dict(entries or {}), path
        self._used: set[str] = set()
        self._disagree: Counter[tuple[str, str]] = Counter()  # (folder, what its names mean) -> files
        self._unsure: Counter[tuple[str, str]] = Counter()

    def refuse_if_useless(self, files: Iterable[Found]) -> None:
        """Raise DataError if there are labels, and none is of one of the files."""
        if not self._entries or any(file.relative in self._entries or file.key in self._entries for file in files):
            return
        names = "".join(f"\n  {printable(name)}" for name in sorted(self._entries)[:5])
        raise DataError(
            f"--labels {printable(self._path or '')}: none of its {len(self._entries)} paths is a file under "
            "--audio-root or --midi-root. Paths are relative to these folders (happy/track001.wav, or happy/track001):"
            f"{names}"
        )

    def note(self, file: Found, found: emotion.Match) -> None:
        """Note what is uncertain in a label that was found in the names of folders."""
        if found.against:
            self._disagree[file.relative.rpartition("/")[0], f"{found.emotion}, by {found.where}; {found.against}"] += 1
        elif not found.alone and found.where.startswith("folder "):
            self._unsure[file.relative.rpartition("/")[0], f"{found.emotion}, by {found.where}"] += 1

    def disagreements(self) -> list[str]:
        """Folders of which another folder in the path names another emotion; the label that its files got."""
        return _folders(self._disagree)

    def unsure(self) -> list[str]:
        """Folders whose emotion is one word in a longer name, which may be of an artist or album."""
        return _folders(self._unsure)

    def find(self, file: Found) -> Label | None:
        for key in (file.relative, file.key):
            if key in self._entries:
                self._used.add(key)
                return self._entries[key]
        return None

    def unused(self) -> list[str]:
        """Names in the labels that no file has matched so far."""
        return sorted(self._entries.keys() - self._used)

    def __len__(self) -> int:
        return len(self._entries)


def _folders(noted: Mapping[tuple[str, str], int]) -> list[str]:
    return [f"{folder} ({count} song{'s' * (count != 1)}): {why}" for (folder, why), count in sorted(noted.items())]


def read(path: Path) -> Labels:
    """A CSV, JSON or JSONL file of labels.

    CSV: `path,emotion` or `path,valence,arousal,intensity`, with or without a header. JSON: {path: emotion}, or a list
    of {"path": ..., "emotion": ...}; JSONL: one of these objects per line. An emotion is a word of the lexicon, 3 or 64
    numbers. Raises UsageError if the file is missing, DataError with line numbers if its content is invalid, or if it
    holds two labels for one path.
    """
    reason = regular_file(path)
    if reason:
        raise UsageError(f"--labels {printable(path)}: {reason}.")
    name = printable(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"--labels {name} is not UTF-8 text (byte {error.start + 1}).") from None
    entries: dict[str, Label] = {}
    faults: list[str] = []
    try:
        items = list(_json(text) if path.suffix.lower() in (".json", ".jsonl") else _csv(text))
    except ValueError as error:
        raise DataError(f"--labels {name}: {error}") from None
    for line, key, value in items:
        try:
            if isinstance(value, ValueError):
                raise value
            where = unicodedata.normalize("NFC", key.strip().replace("\\", "/").removeprefix("./"))
            label = _label(value)
            if not where:
                raise ValueError("has an empty path")
            if entries.get(where, label) != label:
                raise ValueError(f"{printable(where)} has a different label in an earlier line")
            entries[where] = label
        except ValueError as error:
            faults.append(f"  {name}:{line}: {error}")
    if faults:
        more = [f"  ... and {len(faults) - 20} more"] if len(faults) > 20 else []
        raise DataError("\n".join(["The labels have mistakes:", *faults[:20], *more]))
    if not entries:
        raise DataError(f"--labels {name} holds no label.")
    return Labels(entries, path)


def _label(value: Any) -> Label:
    if isinstance(value, str):
        try:
            vector = emotion.vector(value)
        except UsageError as error:
            raise ValueError(str(error)) from None
        return Label(vector, emotion.classify(vector), "labels")
    if not isinstance(value, list) or len(value) not in (3, 64):
        raise ValueError(f"an emotion must be a word, 3 or 64 numbers; here it is {value!r}")
    for place, number in enumerate(value):
        low = 0 if len(value) == 3 and place == 2 else -1
        plain = isinstance(number, int | float) and not isinstance(number, bool)
        if not plain or not math.isfinite(number) or not low <= number <= 1:
            raise ValueError(f"number {place + 1} of an emotion must be between {low} and 1; here it is {number!r}")
    vector = tuple(float(number) for number in value)
    return Label(vector, emotion.classify(vector), "labels")


def _csv(text: str) -> Iterator[tuple[int, str, Any]]:
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    layout: _Layout | None = None
    try:
        for cells in rows:
            if not any(cell.strip() for cell in cells):
                continue
            if layout is None:
                layout = _layout([cell.strip().casefold() for cell in cells])
                if layout.header:
                    continue
            if len(cells) != layout.width:
                yield rows.line_num, "", ValueError(f"has {len(cells)} fields, not {layout.width}")
                continue
            values = [cells[place].strip() for place in layout.values]
            yield rows.line_num, cells[layout.name], values[0] if len(values) == 1 else _numbers(values)
    except csv.Error as error:
        raise ValueError(f"line {rows.line_num} is not CSV: {error}") from None


class _Layout(NamedTuple):
    """The columns of name and emotion in a CSV file."""

    header: bool
    name: int
    values: tuple[int, ...]
    width: int


def _layout(cells: list[str]) -> _Layout:
    """From the first line: its header, or its number of fields."""
    for column in (*_KEY_COLUMNS, *_WORD_COLUMNS, *_VECTOR_COLUMNS):
        if cells.count(column) > 1:
            raise ValueError(f"has the column `{column}` twice")
    name = next((cells.index(column) for column in _KEY_COLUMNS if column in cells), None)
    word = next((cells.index(column) for column in _WORD_COLUMNS if column in cells), None)
    if name is not None and all(column in cells for column in _VECTOR_COLUMNS):
        return _Layout(True, name, tuple(cells.index(column) for column in _VECTOR_COLUMNS), len(cells))
    if name is not None and word is not None:
        return _Layout(True, name, (word,), len(cells))
    if len(cells) in (2, 4):
        return _Layout(False, 0, tuple(range(1, len(cells))), len(cells))
    raise ValueError("has neither a header (path,emotion or path,valence,arousal,intensity) nor 2 or 4 fields per line")


def _numbers(values: list[str]) -> list[float] | ValueError:
    try:
        return [float(value) for value in values]
    except ValueError as error:
        return ValueError(str(error))


class _Object(dict):
    """A JSON object that also has its pairs in order: a plain dict keeps the last of several equal keys."""

    def __init__(self, pairs: list[tuple[str, Any]]):
        super().__init__(pairs)
        self.pairs = pairs


def _json(text: str) -> Iterator[tuple[int, str, Any]]:
    try:
        document = json.loads(text, object_pairs_hook=_Object)
    except json.JSONDecodeError:
        document = None  # not one JSON document: JSONL
    if isinstance(document, list):
        for number, item in enumerate(document, 1):
            yield from _object(number, item)
    elif isinstance(document, dict) and not (document.keys() & set(_KEY_COLUMNS) and "emotion" in document):
        yield from ((number, key, value) for number, (key, value) in enumerate(document.pairs, 1))
    else:
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                try:
                    yield from _object(number, json.loads(line, object_pairs_hook=_Object))
                except json.JSONDecodeError as error:
                    yield number, "", ValueError(f"is not valid JSON: {error.msg} (column {error.colno})")


def _object(number: int, item: Any) -> Iterator[tuple[int, str, Any]]:
    key = next((k for k in _KEY_COLUMNS if isinstance(item, dict) and k in item), None)
    if key is None or "emotion" not in item or not isinstance(item[key], str):
        yield number, "", ValueError('is not an object like {"path": ..., "emotion": ...}')
    elif repeated := [name for name in (key, "emotion") if sum(name == other for other, _ in item.pairs) > 1]:
        yield number, "", ValueError(f"has the key `{repeated[0]}` twice")
    else:
        yield number, item[key], item["emotion"]


def count(labels: Iterable[Label]) -> dict[str, int]:
    """Songs per emotion, most first."""
    return dict(sorted(Counter(label.name for label in labels).items(), key=lambda item: (-item[1], item[0])))
