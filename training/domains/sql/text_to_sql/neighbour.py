"""The baseline "nearest neighbour": the query of the training question that is worded most alike, with its tables,
columns and values replaced by those that the schema and the question suggest. What copying alone can do.

Questions are compared by their wording: words that are names or values of their databases do not count. It uses what a
user has: schemas, sample values and questions, and nothing of how the questions were made.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from training.domains.sql.databases.schema import Column, Schema, Table
from training.domains.sql.prompting.pruning import by_relevance, words

_TOKEN = re.compile(r"[A-Za-z]+|\d+")
_TEXT = re.compile(r"\"([^\"]+)\"|'([^']+)'|(?<![.?!]\s)(?<!^)\b([A-Z][\w&'-]*(?: (?:[A-Z][\w&'-]*|of|the|de))*)\b")
_DATE = re.compile(r"\b\d{4}-\d{2}-\d{2}\b")
_NUMBER = re.compile(r"(?<![\d-])\d+(?:\.\d+)?(?![\d-])")
_SMALL = {"two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "ten": "10"}
_TEXTUAL = ("CHAR", "TEXT", "CLOB", "DATE", "TIME")


@dataclass(frozen=True)
class Neighbours:
    """The training questions, to be copied from."""

    questions: Sequence[str]
    queries: Sequence[str]
    databases: Sequence[str]
    schemas: Sequence[Schema]
    dialect: str
    frames: list[set[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        known: dict[str, set[str]] = {}
        for question, database, schema in zip(self.questions, self.databases, self.schemas, strict=True):
            if database not in known:
                known[database] = _vocabulary(schema)
            self.frames.append(_frame(question, known[database]))

    def answer(self, question: str, database: str, schema: Schema) -> str:
        """A query for `question`."""
        frame = _frame(question, _vocabulary(schema))
        best = max(range(len(self.frames)), key=lambda i: (_overlap(frame, self.frames[i]), -i))
        query = self.queries[best]
        try:
            tree = sqlglot.parse_one(query, read=self.dialect)
        except SqlglotError:
            return query
        if self.databases[best] != database:
            tree = _Renaming(self.schemas[best], schema, question).renamed(tree)
        return _with_values(tree, self.questions[best], question).sql(dialect=self.dialect)


def _vocabulary(schema: Schema) -> set[str]:
    """Words of a database's names and sample values."""
    found: set[str] = set()
    for table in schema.tables:
        found |= words(table.name)
        for column in table.columns:
            found |= words(column.name).union(*(words(sample) for sample in column.samples))
    return found


def _frame(question: str, vocabulary: set[str]) -> set[str]:
    """The wording of a question: its words and pairs of neighbouring words, without names and values."""
    text = _DATE.sub(" 0 ", question)
    masked = [
        "#" if token.isdigit() else "_" if words(token) & vocabulary else token.lower()
        for token in _TOKEN.findall(text)
    ]
    return {*masked, *(f"{first} {second}" for first, second in pairwise(masked))}


def _overlap(first: set[str], second: set[str]) -> float:
    """Jaccard similarity."""
    return len(first & second) / max(1, len(first | second))


class _Renaming:
    """Replaces the tables and columns of one database by those of another which a question suggests."""

    def __init__(self, theirs: Schema, ours: Schema, question: str):
        self.theirs, self.ours, self.asked = theirs, ours, words(question)
        self.ranked = by_relevance(ours, question)
        self.tables: dict[str, Table] = {}  # name of theirs -> ours
        self.columns: dict[tuple[str, str], str] = {}

    def renamed(self, tree: exp.Expression) -> exp.Expression:
        aliases: dict[str, str] = {}
        for node in tree.find_all(exp.Table):
            aliases[node.alias_or_name.lower()] = node.name.lower()
            self._take_table(node.name.lower())
        for node in tree.find_all(exp.Column):
            if isinstance(node.this, exp.Star):
                continue
            owner = self._owner(node, aliases)
            if owner is None:
                continue
            prefix = node.table.lower()
            node.set("this", exp.to_identifier(self._column(owner, node.name.lower())))
            if prefix and prefix in self.tables:
                node.set("table", exp.to_identifier(self.tables[prefix].name))
        for node in tree.find_all(exp.Table):
            node.set("this", exp.to_identifier(self.tables[node.name.lower()].name))
        return tree

    def _take_table(self, name: str) -> None:
        """The most relevant table that is not taken; of tables that a foreign key connects to a taken one, if any."""
        if name in self.tables:
            return
        taken = {table.name for table in self.tables.values()}
        free = [self.ours.table(other) for other in self.ranked if other not in taken]
        joined = [table for table in free if any(_connected(table, other) for other in self.tables.values())]
        self.tables[name] = next(iter(joined or free), self.ours.table(self.ranked[0]))

    def _owner(self, node: exp.Column, aliases: dict[str, str]) -> str | None:
        if node.table:
            return aliases.get(node.table.lower())
        select = node.find_ancestor(exp.Select)
        inside = (
            [table.name.lower() for table in select.find_all(exp.Table)] if select is not None else list(self.tables)
        )
        having = [name for name in dict.fromkeys(inside) if self._their_column(name, node.name.lower()) is not None]
        return having[0] if having else None

    def _their_column(self, table: str, name: str) -> Column | None:
        try:
            return next((column for column in self.theirs.table(table).columns if column.name.lower() == name), None)
        except KeyError:
            return None

    def _column(self, owner: str, name: str) -> str:
        if (owner, name) not in self.columns:
            self.columns[owner, name] = self._choose(owner, name)
        return self.columns[owner, name]

    def _choose(self, owner: str, name: str) -> str:
        ours, column = self.tables[owner], self._their_column(owner, name)
        if column is not None and column.primary_key:
            keys = [other.name for other in ours.columns if other.primary_key]
            if keys:
                return keys[0]
        for key in self.theirs.table(owner).foreign_keys:
            if name in [part.lower() for part in key.columns]:
                target = self.tables.get(key.table.lower())
                found = [k.columns[0] for k in ours.foreign_keys if target is None or k.table == target.name]
                if found:
                    return found[0]
        keys = {part for key in ours.foreign_keys for part in key.columns}
        plain = [other for other in ours.columns if not other.primary_key and other.name not in keys]
        alike = [other for other in plain if column is None or _textual(other) == _textual(column)] or plain
        used = set(self.columns.values())
        return max(
            alike or list(ours.columns),
            key=lambda other: (
                len(words(other.name) & self.asked) / max(1, len(words(other.name))),
                other.name not in used,
                _overlap(words(name), words(other.name)),
            ),
        ).name


def _connected(first: Table, second: Table) -> bool:
    return any(key.table == second.name for key in first.foreign_keys) or any(
        key.table == first.name for key in second.foreign_keys
    )


def _textual(column: Column) -> bool:
    return any(kind in column.type.upper() for kind in _TEXTUAL)


def _with_values(tree: exp.Expression, before: str, now: str) -> exp.Expression:
    """Literals replaced by the values that the question names, in order: dates, other texts, and numbers."""
    dates, plain = _DATE.findall(now), _DATE.sub(" ", now)
    texts = [next(filter(None, found)) for found in _TEXT.findall(plain)]
    spelt = re.sub(
        r"\b(" + "|".join(_SMALL) + r")\b", lambda match: _SMALL[match[1].lower()], plain, flags=re.IGNORECASE
    )
    numbers = _NUMBER.findall(spelt)
    for literal in tree.find_all(exp.Literal, bfs=False):
        value = str(literal.this)
        bare = value.strip("%")
        pool = dates if _DATE.fullmatch(value) else texts if literal.is_string else numbers
        if pool and (bare.lower() in before.lower() or not literal.is_string):
            literal.set("this", value.replace(bare, pool.pop(0)) if bare else pool.pop(0))
    return tree
