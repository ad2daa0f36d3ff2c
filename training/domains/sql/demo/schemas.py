"""The databases of the demo as data: subjects with tables, columns, rules for their values, and English words for them.

A phrase that follows a noun describes its rows ("living in {v}", "hired"): it fits the singular and the plural. In a
reference, "{x}" stands for the row that is referred to, "{y}" for the rows that refer to it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Literal

#: How the texts of a label are made: names of people, a list, words of two lists, or codes with a prefix.
Kind = Literal["person", "list", "pair", "code"]


@dataclass(frozen=True)
class Names:
    """The texts of a label column, each used once in a table."""

    kind: Kind
    first: tuple[str, ...] = ()
    second: tuple[str, ...] = ()
    between: str = " "


@dataclass(frozen=True)
class Key:
    """The primary key: 1, 2, 3 ..."""

    name: str
    type = "INTEGER"


@dataclass(frozen=True)
class Label:
    """The column by which people name a row."""

    name: str
    names: Names
    noun: str = ""  # default: the name of the column
    type = "TEXT"


@dataclass(frozen=True)
class Category:
    """A text with few distinct values."""

    name: str
    values: tuple[str, ...]
    where: str  # "living in {v}"
    noun: str = ""
    type = "TEXT"


@dataclass(frozen=True)
class Number:
    """A quantity. Its own words (`more`, `less`, `most`, `least`, `ask`) do without the name of the column."""

    name: str
    low: float
    high: float
    noun: str = ""
    more: str = ""  # "older than {v}"
    less: str = ""  # "younger than {v}"
    most: str = ""  # "oldest"
    least: str = ""  # "youngest"
    ask: str = ""  # "How old is {x}?"
    unit: str = ""  # " kg": follows the value where the column is named
    step: float = 1  # of the values; below 1: REAL
    total: bool = False  # whether a sum of it means something

    @property
    def type(self) -> str:
        return "REAL" if self.step < 1 else "INTEGER"

    @property
    def own_words(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.more, self.less, self.most, self.least, self.ask)))


@dataclass(frozen=True)
class Date:
    """A day as YYYY-MM-DD; empty for a quarter of the rows where `pending` names those."""

    name: str
    years: tuple[int, int]  # the first and the last
    did: str  # "hired"
    noun: str
    pending: str = ""  # "not yet returned"
    type = "DATE"


@dataclass(frozen=True)
class Reference:
    """A foreign key to the primary key of another table."""

    name: str
    table: str
    of: str  # follows the rows that refer: "placed by {x}"
    did: str  # follows the row that is referred to: "placed {y}", or "have {y}"
    type = "INTEGER"


Column = Key | Label | Category | Number | Date | Reference


@dataclass(frozen=True)
class Table:
    name: str
    one: str  # "customer"
    rows: int
    columns: tuple[Column, ...]
    person: bool = False
    many: str = ""  # default: the name of the table

    @property
    def plural(self) -> str:
        return self.many or self.name.replace("_", " ")

    @property
    def who(self) -> str:
        """The pronoun of a relative clause about it."""
        return "who" if self.person else "that"

    @property
    def key(self) -> Key:
        return next(column for column in self.columns if isinstance(column, Key))

    @property
    def label(self) -> Label | None:
        return next((column for column in self.columns if isinstance(column, Label)), None)

    def of(self, kind: type) -> list:
        """Its columns of one kind, in order."""
        return [column for column in self.columns if isinstance(column, kind)]


@dataclass(frozen=True)
class Subject:
    """One database."""

    name: str
    tables: tuple[Table, ...]
    own_words: frozenset[str] = field(init=False)  # of all its numbers, up to the value: "older than "

    def __post_init__(self) -> None:
        words = {head(text) for table in self.tables for column in table.of(Number) for text in column.own_words}
        object.__setattr__(self, "own_words", frozenset(words))

    def table(self, name: str) -> Table:
        return next(table for table in self.tables if table.name == name)


# -- English -----------------------------------------------------------------------------------------------------------


def noun(column: Column) -> str:
    """How a question names a column: "hire date", "price"."""
    return getattr(column, "noun", "") or column.name.replace("_", " ")


def head(phrase: str) -> str:
    """A phrase up to its value: "costing more than {v} a day" begins as "costing more than {v}" does."""
    return phrase.partition("{v}")[0]


def plural(word: str) -> str:
    """The plural, which is regular but for "species"."""
    if word == "species":
        return word
    if word.endswith("y") and word[-2] not in "aeiou":
        return f"{word[:-1]}ies"
    return f"{word}es" if word.endswith(("s", "x", "ch", "sh")) else f"{word}s"


def article(word: str) -> str:
    """The word after "a" or "an"."""
    vowel = word[0].lower() in "aeiou" and not word.startswith(("uni", "use", "one"))
    return f"{'an' if vowel or word.startswith(('hour', 'hono')) else 'a'} {word}"


# -- which databases are held out --------------------------------------------------------------------------------------

VAL_SUBJECTS, TEST_SUBJECTS = 5, 4


def parts(seed: int) -> dict[str, tuple[Subject, ...]]:
    """The subjects of each split, in an order that depends on the seed."""
    from training.domains.sql.demo.subjects_leisure import LEISURE
    from training.domains.sql.demo.subjects_work import WORK

    every = [*WORK, *LEISURE]
    random.Random(f"subjects {seed}").shuffle(every)
    held = VAL_SUBJECTS + TEST_SUBJECTS
    return {
        "val": tuple(every[:VAL_SUBJECTS]),
        "test": tuple(every[VAL_SUBJECTS:held]),
        "train": tuple(every[held:]),
    }
