"""The schema and sample values of a SQLite file, read without changing the file; the encoder that stores them."""

from __future__ import annotations

import json
import re
import shlex
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import numpy as np

from training.data.encode import Encoder
from training.domains.sql.databases.schema import SAMPLE_CHARACTERS, Column, ForeignKey, Schema, Table

#: Samples are the most frequent values among this many rows of a table.
SAMPLED_ROWS = 20_000
SAMPLES = 3
#: The name of a stored schema: prepare writes one for a PostgreSQL database, which has no file.
SCHEMA_SUFFIX = ".schema.json"
_MAGIC = b"SQLite format 3\0"


def uri(path: Path) -> str:
    """The URI that opens the file read-only, without locks and without writing a journal beside it."""
    return f"file:{quote(str(path.resolve()))}?mode=ro&immutable=1"


def introspect(path: Path) -> Schema:
    """The schema of the SQLite file at `path`, with sample values and the number of rows of each table.

    Raises ValueError with the reason if it cannot be used: no SQLite file, encrypted, damaged, without tables, or with
    changes that are not merged into the file yet.
    """
    path = Path(path)
    _check_file(path)
    try:
        with closing(sqlite3.connect(uri(path), uri=True)) as connection:
            connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
            connection.execute("PRAGMA trusted_schema=OFF")
            tables = _tables(connection)
    except sqlite3.DatabaseError as error:
        raise ValueError(f"SQLite cannot read the file: {error}") from None
    if not tables:
        raise ValueError("the database has no tables")
    return Schema("sqlite", tables)


def _check_file(path: Path) -> None:
    try:
        with path.open("rb") as stream:
            head = stream.read(len(_MAGIC))
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    if not head:
        raise ValueError("the file is empty")
    if head != _MAGIC:
        raise ValueError("not a SQLite database, or an encrypted one: its first 16 bytes are not SQLite's")
    for suffix, remedy in (("-wal", "PRAGMA wal_checkpoint(TRUNCATE)"), ("-journal", "PRAGMA integrity_check")):
        beside = path.with_name(path.name + suffix)
        # A journal of zero bytes, or with its header zeroed, is what a finished transaction leaves.
        if _first_byte(beside) not in (b"", b"\0"):
            raise ValueError(
                f"changes that are not in the file yet are in {beside.name}; merge them with: "
                f"sqlite3 {shlex.quote(str(path))} '{remedy}'"
            )


def _first_byte(path: Path) -> bytes:
    if not path.is_file():
        return b""
    with path.open("rb") as stream:
        return stream.read(1)


def _tables(connection: sqlite3.Connection) -> tuple[Table, ...]:
    # table_list (SQLite 3.37) shows which tables are the storage of a virtual table; older versions return no rows
    shadow = {row[1] for row in connection.execute("PRAGMA table_list") if row[2] == "shadow"}
    listed = connection.execute(
        "SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view') "
        "AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid"
    ).fetchall()
    names = [(name, kind) for name, kind in listed if name not in shadow]
    columns = {name: _columns(connection, name, kind == "table") for name, kind in names}
    by_lower = {name.lower(): name for name in columns}
    tables = []
    for name, kind in names:
        if not columns[name]:
            continue  # a view of a table that no longer exists
        rows = connection.execute(f"SELECT count(*) FROM {_name(name)}").fetchone()[0] if kind == "table" else 0
        tables.append(Table(name, columns[name], _foreign_keys(connection, name, columns, by_lower), rows))
    return tuple(tables)


def _columns(connection: sqlite3.Connection, table: str, sampled: bool) -> tuple[Column, ...]:
    try:
        found = connection.execute(f"PRAGMA table_xinfo({_name(table)})").fetchall()
    except sqlite3.OperationalError:
        if sampled:
            raise
        return ()  # a view that no longer fits its tables: it cannot be queried either
    return tuple(
        Column(
            name,
            " ".join((kind or "").split()),
            key > 0,
            bool(not_null),
            _samples(connection, table, name) if sampled else (),
        )
        for _, name, kind, not_null, _, key, hidden in found
        if hidden != 1  # 1: the hidden column of a virtual table; 2 and 3: generated columns
    )


def _samples(connection: sqlite3.Connection, table: str, column: str) -> tuple[str, ...]:
    values = connection.execute(
        f"SELECT value FROM (SELECT {_name(column)} AS value FROM {_name(table)} LIMIT {SAMPLED_ROWS}) "
        f"WHERE value IS NOT NULL AND typeof(value) <> 'blob' AND value <> '' "
        f"GROUP BY value ORDER BY count(*) DESC, value LIMIT {SAMPLES}"
    )
    return tuple(dict.fromkeys(literal(value) for (value,) in values))


def literal(value: str | int | float) -> str:
    """`value` as a SQL literal in one line; a text is cut at SAMPLE_CHARACTERS."""
    if not isinstance(value, str):
        return repr(value)
    text = re.sub(r"[\x00-\x1f\x7f\u0085\u2028\u2029]+", " ", value)
    if len(text) > SAMPLE_CHARACTERS:
        text = text[: SAMPLE_CHARACTERS - 1] + "…"
    return "'" + text.replace("'", "''") + "'"


def _foreign_keys(
    connection: sqlite3.Connection,
    table: str,
    columns: Mapping[str, Sequence[Column]],
    by_lower: Mapping[str, str],
) -> tuple[ForeignKey, ...]:
    """The foreign keys of a table whose targets exist, in the order of their declaration."""
    parts: dict[int, list[tuple]] = {}
    for key, _, target, source, reference, *_ in connection.execute(f"PRAGMA foreign_key_list({_name(table)})"):
        parts.setdefault(key, []).append((target, source, reference))
    keys = []
    for key in sorted(parts, reverse=True):  # SQLite numbers them from the last declared
        target = by_lower.get(parts[key][0][0].lower())
        if target is None:
            continue
        declared = [reference for _, _, reference in parts[key]]
        if None in declared:  # REFERENCES without columns: the primary key
            declared = [column.name for column in columns[target] if column.primary_key]
        known = {column.name.lower(): column.name for column in columns[target]}
        own = {column.name.lower(): column.name for column in columns[table]}
        references = [known.get(name.lower()) for name in declared]
        sources = [own.get(source.lower(), source) for _, source, _ in parts[key]]
        if len(references) == len(sources) and None not in references:
            keys.append(ForeignKey(tuple(sources), target, tuple(name for name in references if name)))
    return tuple(keys)


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def decode(path: Path) -> dict[str, np.ndarray]:
    """{"schema": uint8 [n]}: the UTF-8 JSON of `Schema.plain()`, of a SQLite file or of a file `*.schema.json`.

    Raises ValueError with the reason if the file holds no usable database.
    """
    path = Path(path)
    schema = read_schema(path) if path.name.endswith(SCHEMA_SUFFIX) else introspect(path)
    return {"schema": np.frombuffer(_json(schema), np.uint8)}


def _json(schema: Schema) -> bytes:
    return json.dumps(schema.plain(), ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def read_schema(path: Path) -> Schema:
    """The schema that `write_schema` wrote to `path`. Raises ValueError if it holds none."""
    try:
        return Schema.from_plain(json.loads(path.read_bytes()))
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None


def write_schema(path: Path, schema: Schema) -> None:
    """Write the schema to `path`, whose name ends with SCHEMA_SUFFIX."""
    path.write_bytes(_json(schema))


def schema_of(record: Mapping[str, np.ndarray]) -> Schema:
    """The schema in a record of DATABASE."""
    return Schema.from_plain(json.loads(record["schema"].tobytes()))


DATABASE = Encoder("database", "1", decode)
