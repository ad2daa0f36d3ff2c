"""How much the demo's questions vary: as much as a small model learns in minutes, or all that the rules can write."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from training.domains.sql.databases.schema import Dialect
from training.domains.sql.demo.composed_wordings import COMPOSITIONS
from training.domains.sql.demo.idioms import IDIOMS
from training.domains.sql.demo.schemas import Category, Number, Reference, Subject, Table
from training.domains.sql.demo.wordings import KINDS

Name = Literal["short", "full"]
NAMES: tuple[Name, ...] = ("short", "full")


@dataclass(frozen=True)
class Scope:
    """What the questions of a demo are made of."""

    kinds: tuple[str, ...]  # of query in training, and in held-out questions
    compositions: tuple[str, ...]  # of clauses, in held-out questions only
    pairs: bool  # two tables a database, of which one refers to the other; else all tables of the subject
    #: Whether training uses a column's own words ("older than") where columns of held-out databases have them, too.
    own_words: bool

    def databases(self, subjects: tuple[Subject, ...]) -> tuple[Subject, ...]:
        return tuple(paired(subject) for subject in subjects) if self.pairs else subjects


SCOPES: dict[Name, Scope] = {
    "short": Scope(
        kinds=("list", "two_conditions", "columns", "count", "aggregate", "aggregate_filter", "top", "group_count",
               "group_aggregate", "join_filter", "not_in", "above_average"),
        compositions=("count_two", "count_join", "aggregate_join", "top_filter", "group_filter"),
        pairs=True, own_words=True,
    ),
    "full": Scope(tuple(KINDS), tuple(COMPOSITIONS), pairs=False, own_words=False),
}  # fmt: skip


def of(name: Name, dialect: Dialect) -> Scope:
    """The scope of this name; in PostgreSQL's dialect with its idioms."""
    scope = SCOPES[name]
    return replace(scope, kinds=(*scope.kinds, *IDIOMS)) if dialect == "postgres" else scope


def paired(subject: Subject) -> Subject:
    """The subject with a table and one to which it refers: of such pairs, the one about which most can be asked."""
    pairs = [
        (subject.table(reference.table), child, reference)
        for child in subject.tables
        for reference in child.of(Reference)
    ]

    def asked(pair: tuple[Table, Table, Reference]) -> int:
        tables = pair[:2]
        named = sum(2 * len(table.of(Number)) + 1 for table in tables if table.label)
        return named + 3 * sum(len(table.of(Category)) for table in tables)

    parent, child, reference = max(pairs, key=asked)
    dropped = [other for other in child.of(Reference) if other != reference]
    kept = tuple(column for column in child.columns if column not in dropped)
    free = tuple(column for column in parent.columns if not isinstance(column, Reference))
    return Subject(subject.name, (replace(parent, columns=free), replace(child, columns=kept)))
