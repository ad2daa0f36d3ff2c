"""Fills the demo's databases: rows by rules and a random generator, written as SQLite files."""

from __future__ import annotations

import datetime
import random
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

from training.data.files import write_atomic
from training.domains.sql.demo.schemas import (
    Category,
    Column,
    Date,
    Key,
    Label,
    Names,
    Number,
    Reference,
    Subject,
    Table,
)

Value = str | int | float | None
Row = dict[str, Value]
#: Table name -> its rows.
Content = dict[str, list[Row]]

FIRST_NAMES = (
    "Anna", "Ben", "Carla", "David", "Elena", "Frank", "Grace", "Hugo", "Irene", "Jonas", "Karin", "Liam", "Maria",
    "Nils", "Olga", "Paul", "Rosa", "Simon", "Tanya", "Victor", "Wendy", "Yusuf", "Amir", "Bella", "Chloe", "Dora",
    "Emil", "Fiona", "Gavin", "Helen", "Ivan", "Julia",
)  # fmt: skip
LAST_NAMES = (
    "Adler", "Brooks", "Cohen", "Diaz", "Evans", "Fischer", "Garcia", "Hughes", "Ito", "Jensen", "Khan", "Lopez",
    "Moore", "Novak", "Olsen", "Patel", "Quinn", "Rossi", "Silva", "Turner", "Ueda", "Vogel", "Walsh", "Young",
    "Zimmer", "Baker", "Carter", "Dubois", "Ferrari", "Hansen",
)  # fmt: skip
#: Share of the rows that no other row refers to, and of the rows without a date where a date may be missing.
UNREFERRED, PENDING = 0.15, 0.25


def fill(subject: Subject, seed: int) -> Content:
    """The rows of every table; the same for the same seed. Tables are filled in order, those referred to first."""
    content: Content = {}
    for table in subject.tables:
        draw = random.Random(f"rows {seed} {subject.name} {table.name}")
        columns = {column.name: _values(column, table.rows, draw, content) for column in table.columns}
        content[table.name] = [{name: of[index] for name, of in columns.items()} for index in range(table.rows)]
    return content


def _values(column: Column, count: int, draw: random.Random, content: Content) -> list[Value]:
    match column:
        case Key():
            return list(range(1, count + 1))
        case Label():
            return _texts(column.names, count, draw)
        case Category():
            weights = [1 + 2 * draw.random() for _ in column.values]
            return [*draw.choices(column.values, weights, k=count)]
        case Number():
            return _numbers(column, count, draw)
        case Date():
            return [_day(column, draw) for _ in range(count)]
        case Reference():
            keys = range(1, len(content[column.table]) + 1)
            used = draw.sample(keys, round(len(keys) * (1 - UNREFERRED)))
            weights = [0.3 + draw.random() ** 2 for _ in used]
            return [*draw.choices(used, weights, k=count)]


def _texts(names: Names, count: int, draw: random.Random) -> list[Value]:
    """`count` distinct texts. Raises ValueError if there are fewer."""
    if names.kind == "code":
        return [f"{draw.choice(names.first)}{number}" for number in draw.sample(range(100, 1000), count)]
    if names.kind == "list":
        every = list(names.first)
    else:
        first, second = (FIRST_NAMES, LAST_NAMES) if names.kind == "person" else (names.first, names.second)
        every = [f"{a}{names.between}{b}" for a in first for b in second]
    return [*draw.sample(every, count)]


def _numbers(column: Number, count: int, draw: random.Random) -> list[Value]:
    """Distinct numbers where the range has enough of them, so that there is one largest."""
    steps = round((column.high - column.low) / column.step)
    drawn = (
        draw.sample(range(steps + 1), count)
        if steps + 1 >= 2 * count
        else [draw.randint(0, steps) for _ in range(count)]
    )
    values = [column.low + step * column.step for step in drawn]
    return [round(value, 2) for value in values] if column.step < 1 else [int(value) for value in values]


def _day(column: Date, draw: random.Random) -> str | None:
    if column.pending and draw.random() < PENDING:
        return None
    first, last = datetime.date(column.years[0], 1, 1), datetime.date(column.years[1], 12, 31)
    return (first + datetime.timedelta(days=draw.randint(0, (last - first).days))).isoformat()


# -- files -------------------------------------------------------------------------------------------------------------


def write_database(path: Path, subject: Subject, content: Content) -> bool:
    """Write a SQLite file, atomically; returns False where it had this content already."""
    return write_atomic(path, partial(_write, subject, content))


def _write(subject: Subject, content: Content, path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = MEMORY")  # a journal file would stay beside the temporary file
        for table in subject.tables:
            database.execute(create(subject, table))
            places = ", ".join("?" * len(table.columns))
            rows = [tuple(row.values()) for row in content[table.name]]
            database.executemany(f"INSERT INTO {table.name} VALUES ({places})", rows)
        database.commit()


def script(subject: Subject, content: Content) -> str:
    """Statements that make the database on a PostgreSQL server: `psql --file`."""
    lines = ["BEGIN;"]
    for table in subject.tables:
        lines.append(f"{create(subject, table)};")
        rows = (", ".join(_in_sql(value) for value in row.values()) for row in content[table.name])
        lines.append(f"INSERT INTO {table.name} VALUES\n  (" + "),\n  (".join(rows) + ");")
    return "\n".join([*lines, "COMMIT;", ""])


def _in_sql(value: Value) -> str:
    if value is None:
        return "NULL"
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value)


def create(subject: Subject, table: Table) -> str:
    """The CREATE TABLE statement of a table."""
    lines = []
    for column in table.columns:
        optional = isinstance(column, Date) and column.pending
        constraint = " PRIMARY KEY" if isinstance(column, Key) else "" if optional else " NOT NULL"
        lines.append(f"{column.name} {column.type}{constraint}")
    for column in table.of(Reference):
        key = subject.table(column.table).key.name
        lines.append(f"FOREIGN KEY ({column.name}) REFERENCES {column.table} ({key})")
    return f"CREATE TABLE {table.name} (\n  " + ",\n  ".join(lines) + "\n)"
