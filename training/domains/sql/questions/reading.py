"""Reads questions with their SQL from JSONL, JSON and CSV files, and finds the files of their databases.

Known rows: a conversation whose last answer is the SQL (conversations.py), or one text with it (texts.py); an
instruction with its output; columns (_COLUMNS), as in the train.json and dev.json of Spider and BIRD.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.data.encode import Quarantined
from training.data.files import printable
from training.domains.sql.questions.conversations import asked_and_answer, list_in, pair_in
from training.domains.sql.questions.files import rows_of
from training.domains.sql.questions.texts import messages_of
from training.errors import DataError

#: What a quarantined question is called in quarantine.jsonl.
KIND = "question"
DATABASE_SUFFIXES = (".sqlite", ".sqlite3", ".db")
TEXT = "text"  # the usual name of the column of a text with a complete conversation

#: Names that a column may have, in any case, the first that holds a text being used. (Spider's `sql` is no text.)
_COLUMNS = {
    "question": ("question", "sql_prompt", "nl", "utterance"),
    "sql": ("sql", "query", "gold_sql", "answer"),  # sql-create-context has it in `answer`
    "database": ("db_id", "database", "db"),
    "schema": ("schema", "context", "sql_context", "ddl"),
    "evidence": ("evidence", "hint"),
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
    questions: list[Question] = []
    refused: list[Quarantined] = []
    name = printable(path.name)
    for number, row in rows_of(path):
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


# -- rows --------------------------------------------------------------------------------------------------------------


def _question(row: Any, place: str, text_column: str | None) -> Question:
    """The question of a row. Raises ValueError with the reason if it holds none."""
    if not isinstance(row, dict):
        raise ValueError(f"is a {type(row).__name__}, not an object with a question and its SQL")
    parts, used = _parts(row, text_column)
    for name in ("question", "sql"):
        if not parts.get(name):
            present = [key for key in row if str(key).lower() in _COLUMNS[name]]
            if present:
                raise ValueError(f"no {name}: `{printable(str(present[0]))}` is empty, or no text")
            known = ", ".join(f"`{column}`" for column in _COLUMNS[name])
            has = ", ".join(f"`{printable(str(key))}`" for key in list(row)[:8]) or "none"
            text = f"a `{text_column or TEXT}` with both"
            other = "chat messages, a prompt and its completion, an instruction and its output,"
            raise ValueError(f"no {name}: the row needs {known}, {other} or {text}; its keys are {has}")
    extra = {str(key): value for key, value in row.items() if key not in used}
    return Question(
        place, place, parts["question"], parts["sql"], parts.get("database") or None, parts.get("schema") or None,
        parts.get("evidence", ""), extra,
    )  # fmt: skip


def _parts(row: Mapping[str, Any], text_column: str | None) -> tuple[dict[str, str], set[str]]:
    """The parts of a row, and the keys that hold them. Raises ValueError."""
    if text_column is not None and isinstance(row.get(text_column), str):
        return _from_text(row, text_column)
    messages = list_in(row)
    if messages is not None:
        return _from_messages(row, *messages)
    parts, used = _from_columns(row)
    if parts["question"] and parts["sql"]:
        return parts, used
    pair = pair_in(row)
    if pair is not None:
        return _from_messages(row, *pair)
    if all(isinstance(row.get(name), str) and row[name].strip() for name in ("instruction", "output")):
        return _from_instruction(row)
    if isinstance(row.get(TEXT), str):
        return _from_text(row, TEXT)
    return parts, used


def _from_text(row: Mapping[str, Any], column: str) -> tuple[dict[str, str], set[str]]:
    """The parts of a row with a conversation in one text; further columns may name the database and its schema."""
    return _from_messages(row, messages_of(row[column], column), {column})


def _from_columns(row: Mapping[str, Any]) -> tuple[dict[str, str], set[str]]:
    """The parts of a row with columns, and the columns that hold them."""
    parts, used = {}, set()
    for part, names in _COLUMNS.items():
        keys = sorted((key for key in row if str(key).lower() in names), key=lambda key: names.index(str(key).lower()))
        used.update(keys)
        found = next((row[key] for key in keys if isinstance(row[key], str) and row[key].strip()), "")
        parts[part] = found.strip()
    parts["sql"] = unfenced(parts["sql"])
    return parts, used


def _from_messages(
    row: Mapping[str, Any], messages: list[dict[str, str]], keys: set[str]
) -> tuple[dict[str, str], set[str]]:
    """The parts of a chat: its one question, and its answer, which is the SQL. `keys` of the row hold it."""
    system, asked, answer = asked_and_answer(messages)
    about = _split_text(system)
    about.pop("question", None)  # instructions
    named, used = _named(row)
    return named | about | _split_text(asked) | {"sql": unfenced(answer)}, used | keys


def _named(row: Mapping[str, Any]) -> tuple[dict[str, str], set[str]]:
    """What columns beside a conversation state: the database, its schema, evidence."""
    columns, used = _from_columns(row)
    return {key: value for key, value in columns.items() if value and key not in ("question", "sql")}, used


def _from_instruction(row: Mapping[str, Any]) -> tuple[dict[str, str], set[str]]:
    """The parts of Alpaca's row. The question is the part of the input that says so, else the instruction with what the
    input holds besides a schema: one of the two may be the same in all rows, and which one a row does not show."""
    first, more = row["instruction"], row["input"] if isinstance(row.get("input"), str) else ""
    about, second = _split_text(first), _split_text(more)
    headed = any(_part(heading) == "question" for heading in _HEADING.finditer(more))
    if "question" in about and "question" in second and not headed:
        second["question"] = f"{about['question']}\n{second['question']}"
    if row.get("history"):
        raise ValueError("has a `history`; a row is one question and its SQL")
    named, used = _named(row)
    parts = named | about | second | {"sql": unfenced(row["output"])}
    return parts, used | {"instruction", "input", "output", "history"}


def _split_text(text: str) -> dict[str, str]:
    """The parts of a text "Database: ... Schema: ... Question: ..."; a text without headings is a question, and
    what it holds from CREATE TABLE on is a schema."""
    parts: dict[str, str] = {}
    headings = list(_HEADING.finditer(text))
    ends = [*(heading.start() for heading in headings), len(text)]
    for heading, end in zip(headings, ends[1:], strict=True):
        part = _part(heading)
        content = text[heading.end() : end].strip()
        if part and content:
            parts.setdefault(part, content)
    before = text[: ends[0]].strip()
    statements = re.search(r"\bcreate\s+table\b", before, re.IGNORECASE)
    if statements and "schema" not in parts:
        schema, after = _statements(before[statements.start() :])
        parts["schema"] = schema
        before = "\n".join(filter(None, (before[: statements.start()].strip(), after)))
    if before:
        parts.setdefault("question", before)
    return parts


#: What may end the last statement where a text continues.
_END = re.compile(r"\)\s*;[ \t]*\n|;[ \t]*\n\s*\n|\)[ \t]*\n\s*\n")


def _statements(text: str) -> tuple[str, str]:
    """A text that begins with CREATE TABLE: the statements, and what follows them."""
    ends = [0, *(found.end() for found in _END.finditer(text))]
    after = text[ends[-1] :].strip() if ends[-1] else ""
    if re.match(r"(create|insert|alter|comment|/\*|--|\))", after, re.IGNORECASE):
        return text, ""
    return (text[: ends[-1]].strip() if after else text), after


def _part(heading: re.Match[str]) -> str | None:
    return _HEADINGS[" ".join(heading[1].lower().split())]


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


def further_down(folder: Path) -> str:
    """A hint for a folder without databases whose own folders have some, as downloads do when they are unpacked."""
    files = (path for pattern in ("*/*/*.sqlite", "*/*/*/*.sqlite") for path in folder.glob(pattern))
    path = next((path for path in files if _is_database(path)), None)
    return f" There are some in {printable(path.parents[1])}: name that folder." if path else ""


def _is_database(path: Path) -> bool:
    return path.suffix.lower() in DATABASE_SUFFIXES and not path.name.startswith(".") and path.is_file()
