"""Reads questions with their SQL from JSONL, JSON and CSV files, and finds the files of their databases.

Known rows: chat messages whose last answer is the SQL; one text with such a conversation (texts.py); columns
`question`, `sql` (or `query`, `SQL`), `db_id` (or `database`), `schema` (or `context`), `evidence`; the train.json and
dev.json of Spider and BIRD, which have the same.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.data.encode import Quarantined
from training.data.files import printable, regular_file
from training.domains.sql.questions.texts import messages_of
from training.errors import DataError

#: What a quarantined question is called in quarantine.jsonl.
KIND = "question"
DATABASE_SUFFIXES = (".sqlite", ".sqlite3", ".db")
TEXT = "text"  # the usual name of the column of a text with a complete conversation
_CSV_FIELD = 16 << 20  # characters of one field; the csv module's default is too short for a large schema

#: Names that a column may have, the first that holds a text being used. (Spider's `sql` is a parsed query.)
_COLUMNS = {
    "question": ("question",),
    "sql": ("sql", "query", "SQL"),
    "database": ("db_id", "database"),
    "schema": ("schema", "context"),
    "evidence": ("evidence",),
}
#: Heading of a part of a chat message -> the part; None: it begins the answer's place, and nothing follows.
_HEADINGS = {
    "database": "database", "database name": "database", "database id": "database", "schema": "schema",
    "database schema": "schema", "context": "schema", "question": "question", "evidence": "evidence",
    "hint": "evidence", "external knowledge": "evidence", "sql": None, "sql query": None, "answer": None,
}  # fmt: skip
_HEADING = re.compile(
    r"^[ \t]*(?:#+[ \t]*)?(" + "|".join(sorted(_HEADINGS, key=len, reverse=True)) + r")[ \t]*:[ \t]*",
    re.IGNORECASE | re.MULTILINE,
)
_FENCE = re.compile(r"\A\s*```(?:\w+)?[ \t]*\n(.*?)\n?[ \t]*```\s*\Z", re.DOTALL)


@dataclass(frozen=True)
class Question:
    """A question with its SQL, as a file has it."""

    id: str  # the same as `place`
    place: str  # the file's name and the line, or the entry of a JSON list: "file.jsonl:12"
    question: str
    sql: str
    database: str | None  # its id
    schema_text: str | None  # CREATE TABLE statements
    evidence: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)  # the row's other keys


def read(path: Path, text_column: str | None = None) -> tuple[list[Question], list[Quarantined]]:
    """The questions of a file, and the rows that hold none, with the reason.

    `text_column`: the column that is read where a row has it, as a text with a complete conversation; None: TEXT, in
    rows without messages and without a question and its SQL in columns.

    Raises DataError if the file cannot be read, is of no known kind, or holds no row.
    """
    reason = regular_file(path)
    if reason:
        raise DataError(f"{printable(path)}: {reason}")
    readers = {".jsonl": _jsonl, ".json": _json, ".csv": _csv}
    if path.suffix.lower() not in readers:
        raise DataError(f"{printable(path)}: questions are read from .jsonl, .json and .csv files.")
    questions: list[Question] = []
    refused: list[Quarantined] = []
    name = printable(path.name)
    for number, row in readers[path.suffix.lower()](path):
        place = f"{name}:{number}"
        try:
            if isinstance(row, ValueError):
                raise row
            questions.append(_question(row, place, text_column))
        except ValueError as error:
            refused.append(Quarantined(printable(path), KIND, str(error), place))
    if not questions and not refused:
        raise DataError(f"{printable(path)} holds no questions.")
    return questions, refused


# -- files -------------------------------------------------------------------------------------------------------------


def _jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number, row), or the ValueError of a line that holds none."""
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
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
    if not isinstance(rows, list):
        raise DataError(f"{printable(path)} is a {type(rows).__name__}; a .json file is a list of questions.")
    yield from enumerate(rows, 1)


def _csv(path: Path) -> Iterator[tuple[int, Any]]:
    """(number of the first line, row), by the names in the first line."""
    csv.field_size_limit(_CSV_FIELD)
    reader = csv.DictReader(_text(path).splitlines(keepends=True), strict=True)
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
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{printable(path)} is not UTF-8 text (byte {error.start + 1})") from None


# -- rows --------------------------------------------------------------------------------------------------------------


def _question(row: Any, place: str, text_column: str | None) -> Question:
    """The question of a row. Raises ValueError with the reason if it holds none."""
    if not isinstance(row, dict):
        raise ValueError(f"is a {type(row).__name__}, not an object with a question and its SQL")
    parts, used = _parts(row, text_column)
    for name in ("question", "sql"):
        if not parts.get(name):
            known = ", ".join(f"`{column}`" for column in _COLUMNS[name])
            has = ", ".join(f"`{printable(str(key))}`" for key in list(row)[:8]) or "none"
            text = f"a `{text_column or TEXT}` with both"
            raise ValueError(f"no {name}: the row needs {known}, chat messages or {text}; its keys are {has}")
    extra = {str(key): value for key, value in row.items() if key not in used}
    return Question(
        place, place, parts["question"], parts["sql"], parts.get("database") or None, parts.get("schema") or None,
        parts.get("evidence", ""), extra,
    )  # fmt: skip


def _parts(row: Mapping[str, Any], text_column: str | None) -> tuple[dict[str, str], set[str]]:
    """The parts of a row, and the keys that hold them. Raises ValueError."""
    if text_column is not None and isinstance(row.get(text_column), str):
        return _from_text(row, text_column)
    if "messages" in row:
        return _from_messages(row)
    parts, used = _from_columns(row)
    if isinstance(row.get(TEXT), str) and not (parts["question"] and parts["sql"]):
        return _from_text(row, TEXT)
    return parts, used


def _from_text(row: Mapping[str, Any], column: str) -> tuple[dict[str, str], set[str]]:
    """The parts of a row with a conversation in one text; further columns may name the database and its schema."""
    parts, used = _from_messages({**row, "messages": messages_of(row[column], column)})
    return parts, used | {column}


def _from_columns(row: Mapping[str, Any]) -> tuple[dict[str, str], set[str]]:
    """The parts of a row with columns, and the columns that hold them."""
    parts, used = {}, set()
    for part, names in _COLUMNS.items():
        used.update(name for name in names if name in row)
        found = next((row[name] for name in names if isinstance(row.get(name), str) and row[name].strip()), "")
        parts[part] = found.strip()
    parts["sql"] = unfenced(parts["sql"])
    return parts, used


def _from_messages(row: Mapping[str, Any]) -> tuple[dict[str, str], set[str]]:
    """The parts of a chat: its one question, and its answer, which is the SQL."""
    messages = row["messages"]
    form = "`messages` should be a list of {role, content} that ends with the assistant's SQL"
    if not isinstance(messages, list) or not messages:
        raise ValueError(form)
    for message in messages:
        if not isinstance(message, dict) or not all(isinstance(message.get(key), str) for key in ("role", "content")):
            raise ValueError(form)
    if messages[-1]["role"] != "assistant":
        raise ValueError(f"{form}; its last role is {printable(messages[-1]['role'])!r}")
    asked = [message["content"] for message in messages if message["role"] == "user"]
    if len(asked) != 1:
        raise ValueError(f"has {len(asked)} questions; a row is one question and its SQL")
    system = "\n".join(message["content"] for message in messages if message["role"] == "system")
    about = _split_text(system)
    about.pop("question", None)  # instructions
    columns, used = _from_columns(row)
    named = {key: value for key, value in columns.items() if value and key not in ("question", "sql")}
    parts = named | about | _split_text(asked[0]) | {"sql": unfenced(messages[-1]["content"])}
    return parts, used | {"messages"}


def _split_text(text: str) -> dict[str, str]:
    """The parts of a text "Database: ... Schema: ... Question: ..."; a text without headings is a question, or a schema
    if it holds CREATE TABLE."""
    parts: dict[str, str] = {}
    headings = list(_HEADING.finditer(text))
    ends = [*(heading.start() for heading in headings), len(text)]
    for heading, end in zip(headings, ends[1:], strict=True):
        part = _HEADINGS[" ".join(heading[1].lower().split())]
        content = text[heading.end() : end].strip()
        if part and content:
            parts.setdefault(part, content)
    before = text[: ends[0]].strip()
    statements = re.search(r"\bcreate\s+table\b", before, re.IGNORECASE)
    if statements and "schema" not in parts:
        parts["schema"] = before[statements.start() :]
    elif before and "question" not in parts:
        parts["question"] = before
    return parts


def unfenced(sql: str) -> str:
    """SQL without the ``` lines of Markdown around it."""
    found = _FENCE.match(sql)
    return (found[1] if found else sql).strip()


# -- databases ---------------------------------------------------------------------------------------------------------


def databases_in(folder: Path) -> dict[str, Path]:
    """Id -> file of every database in a folder: <id>.sqlite (or .sqlite3, .db), or <id>/<id>.sqlite, or the only such
    file in the folder <id>.

    Raises DataError if an id has two files.
    """
    found: dict[str, list[Path]] = {}
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            files = [path for path in sorted(entry.iterdir()) if _is_database(path)]
            named = [path for path in files if path.stem == entry.name]
            chosen = named or (files if len(files) == 1 else [])
            found.setdefault(entry.name, []).extend(chosen)
        elif _is_database(entry):
            found.setdefault(entry.stem, []).append(entry)
    for name, paths in found.items():
        if len(paths) > 1:
            raise DataError(f"The database {printable(name)} has two files: " + ", ".join(map(printable, paths)))
    return {name: paths[0] for name, paths in found.items() if paths}


def _is_database(path: Path) -> bool:
    return path.suffix.lower() in DATABASE_SUFFIXES and not path.name.startswith(".") and path.is_file()
