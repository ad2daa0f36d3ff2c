"""Which database each question is about: a SQLite file, a PostgreSQL database, or a schema that the question brings."""

from __future__ import annotations

import difflib
import hashlib
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from training.data.files import printable, write_atomic
from training.domains.sql.databases.schema import Dialect, Schema
from training.domains.sql.databases.sqlite import SCHEMA_SUFFIX, write_schema
from training.domains.sql.questions.reading import Question


@dataclass(frozen=True)
class Target:
    """The database of a question. `path`: its SQLite file, or a stored schema; `url`: of a PostgreSQL database."""

    id: str
    path: Path
    url: str = ""
    judged: str = "execution"  # "text": only the schema is known, so no answer can be compared by its rows

    @property
    def place(self) -> str:
        """Where the Executor finds it."""
        return self.url or str(self.path)


@dataclass
class Targets:
    """Finds the databases of questions.

    `files`: id -> file, of the folder that the user names. `url`: of a PostgreSQL database, or of a server (no name
    after the host), on which a question's database is the one of that name. `made`: folder for what is written here:
    schemas of PostgreSQL databases, and SQLite files with empty tables for questions that bring a schema only.
    """

    dialect: Dialect
    files: Mapping[str, Path]
    url: str
    made: Path
    _schemas: dict[str, Target | str] = field(default_factory=dict)  # key -> the target, or why there is none

    def of(self, question: Question) -> Target:
        """Raises ValueError with the reason if the question's database is not known."""
        if self.url:
            return self._on_server(question)
        name = question.database
        if name is None and question.schema_text is None and len(self.files) == 1:
            name = next(iter(self.files))
        if name in self.files:
            return Target(name, self.files[name].absolute())
        if question.schema_text is not None:
            return self._from_schema(question.database, question.schema_text)
        if name is None:
            raise ValueError("names no database, and has no schema")
        near = [other for other in self.files if other.lower() == name.lower()]
        near = near or difflib.get_close_matches(name, self.files, 1)
        hint = f"; nearest: {near[0]}" if near else ""
        raise ValueError(
            f"there is no database {printable(name)} in the folder of --databases{hint}"
            if self.files
            else f"has no schema, and --databases is not given (its database is {printable(name)})"
        )

    def _once(self, key: str, make: partial[Target]) -> Target:
        """What `make` returns; a failure is remembered as well, and raised for each of its questions."""
        if key not in self._schemas:
            try:
                self._schemas[key] = make()
            except ValueError as error:
                self._schemas[key] = str(error)
        found = self._schemas[key]
        if isinstance(found, str):
            raise ValueError(found)
        return found

    # PostgreSQL

    def _on_server(self, question: Question) -> Target:
        parts = urlsplit(self.url)
        named = unquote(parts.path.strip("/"))
        name = question.database or named
        if not name:
            raise ValueError("names no database, and neither does --database-url")
        if named and question.database not in (None, named):
            raise ValueError(f"its database is {printable(name)}, and that of --database-url is {printable(named)}")
        if "/" in name or name.startswith("."):
            raise ValueError(f"{printable(name)!r} is no name of a database")
        url = self.url if named else urlunsplit(parts._replace(path=f"/{name}"))
        return self._once(name, partial(self._introspected, name, url))

    def _introspected(self, name: str, url: str) -> Target:
        # imported here, since only PostgreSQL needs the package psycopg
        from training.domains.sql.databases.postgres import introspect_url

        return Target(name, self._stored(name, introspect_url(url)), url)

    # a schema alone

    def _from_schema(self, name: str | None, text: str) -> Target:
        key = hashlib.sha256(f"{self.dialect}\n{text}".encode()).hexdigest()[:16]
        return self._once(key, partial(self._written, name or f"schema-{key}", key, text))

    def _written(self, name: str, key: str, text: str) -> Target:
        schema = Schema.from_ddl(text, self.dialect)
        if self.dialect == "postgres":
            return Target(name, self._stored(key, schema), judged="text")
        path = self.made / f"{key}.sqlite"
        write_atomic(path, partial(_write_empty, schema))
        return Target(name, path.absolute(), judged="text")

    def _stored(self, name: str, schema: Schema) -> Path:
        path = self.made / f"{name}{SCHEMA_SUFFIX}"
        write_atomic(path, partial(_write_schema, schema))
        return path.absolute()


def _write_schema(schema: Schema, path: Path) -> None:
    write_schema(path, schema)


def _write_empty(schema: Schema, path: Path) -> None:
    """A SQLite file with the tables of a schema, without rows. Raises ValueError if SQLite refuses one."""
    try:
        with closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA journal_mode = MEMORY")  # a journal file would stay beside the temporary file
            database.executescript(schema.ddl(samples=0))
    except sqlite3.Error as error:
        raise ValueError(f"SQLite refuses the schema: {error}") from None
