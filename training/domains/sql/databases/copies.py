"""Re-populated copies of a database, on which a query that is right by chance on the original is likely to be wrong.

The idea is that of Zhong, Yu and Klein 2020, "Semantic Evaluation for Text-to-SQL with Distilled Test Suites". A copy
has the original's tables and keys. Some rows are made for each gold, so that its conditions hold or nearly hold in rows
that belong together; the others are drawn from the columns' own values.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.data.files import sha256, sync
from training.domains.sql.databases.schema import ForeignKey, Table
from training.domains.sql.databases.sqlite import SAMPLED_ROWS, introspect, uri
from training.domains.sql.databases.values import ColumnValues
from training.domains.sql.queries.conditions import Condition, conditions
from training.domains.sql.queries.parsing import parse

VERSION = 1  # part of the cache's key: a change of the rows that are made must change it
_FEWEST, _MOST = 8, 400  # rows of a table
_ORIGINAL_ROWS = 200  # more rows of the original do not make a copy larger
_POOL = 2_000  # distinct values of a column
_ATTEMPTS = 20  # to find a key that is not taken
_MOST_NULLS = 0.8  # share of a column's values
_SAME_GOLD = 0.75  # share of a gold's rows that refer to rows of the same gold


def make_copies(database: Path, golds: Sequence[str], folder: Path, count: int = 5, seed: int = 0) -> list[Path]:
    """`count` copies of the SQLite file `database` with other rows, in `folder`.

    They have the original's tables, views, indexes and keys, foreign keys hold, and the literals of `golds` occur in
    the columns that the golds compare with them. A function of the arguments and of the file's content; copies that
    are there already are used again. Virtual tables are left out, triggers too.

    Raises ValueError if the database cannot be read or a gold does not parse.
    """
    golds = sorted(set(golds))
    inputs = json.dumps([VERSION, sha256(database), golds, count, seed])
    target = folder / hashlib.sha256(inputs.encode()).hexdigest()[:32]
    paths = [target / f"copy-{number}.sqlite" for number in range(count)]
    if all(path.is_file() for path in paths):
        return paths
    original = _Original(database, golds)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix="making-", dir=folder))
    try:
        for path in paths:
            _Copy(original, random.Random(f"{target.name} {path.name}")).write(temporary / path.name)
            sync(
                temporary / path.name
            )  # before the rename: a power cut must not leave half a copy, which is used again
        sync(temporary)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary, target)  # noqa: PTH105 - a folder
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        if not all(path.is_file() for path in paths):  # another process may have made them meanwhile
            raise
    return paths


class _Original:
    """What the copies are made from: statements, tables, values of the columns, and conditions of the golds."""

    def __init__(self, database: Path, golds: Sequence[str]):
        found = introspect(database)
        with closing(sqlite3.connect(uri(database), uri=True)) as connection:
            connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
            try:
                self.statements = [
                    (kind, name, sql)
                    for kind, name, sql in connection.execute(
                        "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL AND type <> 'trigger' "
                        "AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid"
                    )
                ]
                real = {
                    name
                    for kind, name, sql in self.statements
                    if kind == "table" and not sql.upper().startswith("CREATE VIRTUAL")
                }
                self.tables = [table for table in found.tables if table.name in real]
                self.generated = {table.name: _generated(connection, table.name) for table in self.tables}
                self.columns = {table.name: _column_values(connection, table) for table in self.tables}
                self.unique = {table.name: _unique(connection, table) for table in self.tables}
            except sqlite3.DatabaseError as error:
                raise ValueError(f"SQLite cannot read {database.name}: {error}") from None
        self.conditions = [conditions(parse(gold, "sqlite")) for gold in golds]
        self.order = _parents_first(self.tables)

    def conditions_of(self, table: str) -> dict[int, list[Condition]]:
        """gold -> its conditions on columns of the table."""
        known = self.columns[table]
        found = {}
        for gold, all_of_it in enumerate(self.conditions):
            mine = [c for c in all_of_it if table.lower() in c.tables and c.column in known]
            if mine:
                found[gold] = mine
        return found


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _generated(connection: sqlite3.Connection, table: str) -> set[str]:
    """Names in lower case of the columns that cannot be inserted into."""
    return {row[1].lower() for row in connection.execute(f"PRAGMA table_xinfo({_quoted(table)})") if row[6]}


def _column_values(connection: sqlite3.Connection, table: Table) -> dict[str, ColumnValues]:
    columns = {}
    for column in table.columns:
        part = f"(SELECT {_quoted(column.name)} AS v FROM {_quoted(table.name)} LIMIT {SAMPLED_ROWS})"
        rows, known, distinct = connection.execute(
            f"SELECT count(*), count(v), count(DISTINCT v) FROM {part}"
        ).fetchone()
        pool = connection.execute(f"SELECT DISTINCT v FROM {part} WHERE v IS NOT NULL ORDER BY v LIMIT {_POOL}")
        kind = column.type.upper()
        # https://www.sqlite.org/datatype3.html#determination_of_column_affinity; the other types are NUMERIC
        integer = "INT" in kind
        text = not integer and (any(part in kind for part in ("CHAR", "CLOB", "TEXT", "BLOB")) or not kind)
        values = [value for (value,) in pool]
        numeric = not text and all(isinstance(value, (int, float)) for value in values)
        columns[column.name.lower()] = ColumnValues(
            column.name,
            numeric,
            numeric and (integer or (bool(values) and all(isinstance(value, int) for value in values))),
            nullable=not column.not_null and not column.primary_key,
            # a column without values gets some: queries about it would have no rows on any copy
            null_share=min(1 - known / rows, _MOST_NULLS) if rows else 0.0,
            pool=values,
            distinct_share=distinct / known if known else 0.0,
        )
    return columns


def _unique(connection: sqlite3.Connection, table: Table) -> set[str]:
    """Names in lower case of the columns that are unique alone."""
    found = {column.name.lower() for column in table.columns if column.primary_key}
    if len(found) > 1:
        found = set()
    for _, index, unique, *_ in connection.execute(f"PRAGMA index_list({_quoted(table.name)})").fetchall():
        columns = [row[2] for row in connection.execute(f"PRAGMA index_info({_quoted(index)})")]
        if unique and len(columns) == 1 and columns[0] is not None:
            found.add(columns[0].lower())
    return found


def _parents_first(tables: Sequence[Table]) -> list[Table]:
    """The tables, each after those that it refers to. A cycle is broken where a key may be NULL, if it can be."""
    waiting = {table.name: table for table in tables}
    order: list[Table] = []

    def is_next(table: Table, breaking: bool) -> bool:
        optional = {c.name for c in table.columns if not c.not_null and not c.primary_key}
        return all(
            key.table not in waiting or key.table == table.name or (breaking and optional >= set(key.columns))
            for key in table.foreign_keys
        )

    while waiting:
        left = list(waiting.values())
        ready = [t for t in left if is_next(t, False)] or [t for t in left if is_next(t, True)][:1] or left[:1]
        for table in ready:
            order.append(waiting.pop(table.name))
    return order


@dataclass
class _Rows:
    """The rows of one table: column in lower case -> value; and for each the gold that it is made for."""

    values: list[dict[str, Any]] = field(default_factory=list)
    golds: list[int | None] = field(default_factory=list)


class _Copy:
    """One copy."""

    def __init__(self, original: _Original, rng: random.Random):
        self._original = original
        self._rng = rng
        self._tables: dict[str, _Rows] = {}
        self._referred: dict[tuple, list[tuple[tuple, int | None]]] = {}

    def write(self, path: Path) -> None:
        """Make the rows and write the file."""
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as scratch:
            self._create_tables(scratch)
            for table in self._original.order:
                # rows that a constraint forbids are found before other rows refer to them
                self._tables[table.name] = self._accepted(scratch, table, self._fill(table))
        for table in self._original.order:
            self._fill_cycles(table)
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            for pragma in ("journal_mode=OFF", "synchronous=OFF", "foreign_keys=OFF"):
                connection.execute(f"PRAGMA {pragma}")
            connection.execute("BEGIN")
            self._create_tables(connection)
            for table in self._original.order:
                self._accepted(connection, table, self._tables[table.name])
            _remove_orphans(connection, self._original.order)
            for kind, _, sql in self._original.statements:
                if kind in ("index", "view"):
                    _create(connection, sql)
            connection.execute("COMMIT")

    def _create_tables(self, connection: sqlite3.Connection) -> None:
        created = {table.name for table in self._original.tables}
        for kind, name, sql in self._original.statements:
            if kind == "table" and name in created:
                connection.execute(sql)

    def _fill(self, table: Table) -> _Rows:
        rng, columns = self._rng, self._original.columns[table.name]
        wanted = self._original.conditions_of(table.name)
        patterns = [gold for gold in wanted for _ in range(3)]
        largest = min(max(table.rows, _FEWEST), _ORIGINAL_ROWS)
        count = min(max(_FEWEST, rng.randint(largest // 2, largest), 2 * len(patterns)), _MOST)
        rng.shuffle(patterns)
        plan: list[int | None] = [*patterns, *[None] * count][:count]
        keys = {
            name: columns[name].distinct(count, _equal_to(wanted, name), rng)
            for name in sorted(self._original.unique[table.name])
        }
        for column in columns.values():
            column.start_copy(rng, count)
        rows, taken = _Rows(), set()
        primary = [column.name.lower() for column in table.columns if column.primary_key]
        for number, gold in enumerate(plan):
            for _ in range(_ATTEMPTS):
                row = {name: column.value(rng) for name, column in columns.items()}
                for condition in wanted[gold] if gold is not None else ():
                    row[condition.column] = columns[condition.column].satisfying(condition, rng)
                row.update({name: values[number] for name, values in keys.items()})
                fits = self._refer(table, row, gold)
                key = tuple(row[name] for name in primary) or (number,)
                if fits and key not in taken:
                    taken.add(key)
                    rows.values.append(row)
                    rows.golds.append(gold)
                    break
        return rows

    def _refer(self, table: Table, row: dict[str, Any], gold: int | None) -> bool:
        """Set the columns of foreign keys to values that the tables they refer to have. False if there are none."""
        done: set[str] = set()
        for key in table.foreign_keys:
            names = [name.lower() for name in key.columns]
            if key.table == table.name or key.table not in self._tables:
                # see _fill_cycles; until then a row refers to itself where it must refer to one of its table
                for name, reference in zip(names, key.references, strict=True):
                    if name not in done and name not in self._key_columns(table):
                        must = key.table == table.name and not self._original.columns[table.name][name].nullable
                        row[name] = row[reference.lower()] if must else None
                continue
            first = self._original.columns[table.name][names[0]]
            if first.nullable and self._rng.random() < first.null_share:
                row.update(dict.fromkeys(names))
                continue
            fixed = [(place, row[name]) for place, name in enumerate(names) if name in done]
            target = self._target(key, gold, fixed)
            if target is None:
                if not first.nullable:
                    return False
                target = (None,) * len(names)
            row.update(zip(names, target, strict=True))
            done.update(names)
        return True

    def _key_columns(self, table: Table) -> set[str]:
        return {column.name.lower() for column in table.columns if column.primary_key}

    def _target(self, key: ForeignKey, gold: int | None, fixed: Sequence[tuple[int, Any]]) -> tuple | None:
        """Values of a row that the key refers to; a row of the same gold where one is preferred and there is one."""
        cached = (key.table, key.references)
        if cached not in self._referred:
            rows = self._tables[key.table]
            targets = [
                (tuple(row[name.lower()] for name in key.references), of)
                for row, of in zip(rows.values, rows.golds, strict=True)
            ]
            targets = [target for target in targets if None not in target[0]]
            plain = [target for target in targets if target[1] is None]
            self._rng.shuffle(plain)
            # some rows without a reference to them: they tell an outer join from an inner one
            self._referred[cached] = [t for t in targets if t[1] is not None] + plain[: max(1, len(plain) * 3 // 4)]
        targets = self._referred[cached]
        if fixed:
            targets = [t for t in targets if all(t[0][place] == value for place, value in fixed)]
        if gold is not None and self._rng.random() < _SAME_GOLD:
            targets = [target for target in targets if target[1] == gold] or targets
        return self._rng.choice(targets)[0] if targets else None

    def _fill_cycles(self, table: Table) -> None:
        """The foreign keys to the table itself, and those that close a cycle of tables."""
        order = [other.name for other in self._original.order]
        for key in table.foreign_keys:
            if key.table not in order or order.index(key.table) < order.index(table.name):
                continue
            names = [name.lower() for name in key.columns]
            if set(names) & self._key_columns(table):
                continue
            share = self._original.columns[table.name][names[0]].null_share
            rows = self._tables[table.name]
            for row, gold in zip(rows.values, rows.golds, strict=True):
                target = self._target(key, gold, ())
                if target is not None and self._rng.random() >= share:
                    row.update(zip(names, target, strict=True))

    def _accepted(self, connection: sqlite3.Connection, table: Table, rows: _Rows) -> _Rows:
        """Insert the rows; returns those that no constraint of the table (UNIQUE, CHECK, STRICT) forbids."""
        skipped = self._original.generated[table.name]
        names = [column.name for column in table.columns if column.name.lower() not in skipped]
        accepted = _Rows()
        if not names:
            return accepted
        sql = (
            f"INSERT OR IGNORE INTO {_quoted(table.name)} ({', '.join(map(_quoted, names))}) "
            f"VALUES ({', '.join('?' * len(names))})"
        )
        for row, gold in zip(rows.values, rows.golds, strict=True):
            try:
                inserted = connection.execute(sql, [row[name.lower()] for name in names]).rowcount == 1
            except (sqlite3.IntegrityError, OverflowError):
                inserted = False
            if inserted:
                accepted.values.append(row)
                accepted.golds.append(gold)
        return accepted


def _equal_to(wanted: Mapping[int, Sequence[Condition]], column: str) -> list[Any]:
    found = [c for all_of_it in wanted.values() for c in all_of_it if c.column == column and c.kind == "="]
    return [value for condition in found for value in condition.values]


def _create(connection: sqlite3.Connection, sql: str) -> None:
    """Create an index or view. One that needs a table which the copy has not is left out."""
    try:
        connection.execute(sql)
    except sqlite3.OperationalError as error:
        if "no such" not in str(error):
            raise


def _remove_orphans(connection: sqlite3.Connection, tables: Sequence[Table]) -> None:
    """Delete the rows whose foreign keys do not hold, until all hold: deleting a row can make others orphans."""
    statements = []
    for table in tables:
        for key in table.foreign_keys:
            own = " AND ".join(f"{_quoted(table.name)}.{_quoted(name)} IS NOT NULL" for name in key.columns)
            same = " AND ".join(
                f"parent.{_quoted(there)} = {_quoted(table.name)}.{_quoted(here)}"
                for here, there in zip(key.columns, key.references, strict=True)
            )
            statements.append(
                f"DELETE FROM {_quoted(table.name)} WHERE {own} AND NOT EXISTS "
                f"(SELECT 1 FROM {_quoted(key.table)} AS parent WHERE {same})"
            )
    while sum(connection.execute(statement).rowcount for statement in statements):
        pass
