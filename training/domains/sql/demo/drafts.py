"""What the kinds of query of the demo are made of: SELECT statements in parts, drafts of questions, and their words."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from training.domains.sql.demo.phrases import Condition, Speaker
from training.domains.sql.demo.schemas import (
    Category,
    Column,
    Number,
    Reference,
    Subject,
    Table,
    article,
    noun,
    plural,
)

#: Function -> its words in training's questions, and in held-out ones.
AGGREGATES = {
    "AVG": (("average",), ("mean",)),
    "SUM": (("total",), ("summed", "combined")),
    "MIN": (("minimum", "lowest"), ("smallest",)),
    "MAX": (("maximum", "highest"), ("largest",)),
}
#: Comparison of a count -> its words in training's questions, and in held-out ones.
COUNTS = {
    ">": ("more than {n}", "over {n}"),
    ">=": ("at least {n}", "{n} or more"),
    "<": ("fewer than {n}", "under {n}"),
}


@dataclass(frozen=True)
class Select:
    """A SELECT statement in parts; an empty part is left out."""

    columns: str
    source: str
    where: str = ""
    group: str = ""
    having: str = ""
    order: str = ""
    limit: int = 0

    @property
    def sql(self) -> str:
        parts = (
            ("WHERE", self.where), ("GROUP BY", self.group), ("HAVING", self.having), ("ORDER BY", self.order),
            ("LIMIT", str(self.limit or "")),
        )  # fmt: skip
        return f"SELECT {self.columns} FROM {self.source}" + "".join(f" {word} {text}" for word, text in parts if text)


@dataclass(frozen=True)
class Draft:
    """A query with the words for its question.

    `other`: SQL whose rows must differ from those of the query; it is the query without the part that decides (a filter
    that filters nothing, a maximum that all rows have). `ranks`: SQL of one row more than a LIMIT keeps, with the key
    of the order: the last two must differ, or the rows that the query returns are not determined. `sqlite`: the query
    as SQLite has it, where `sql` is PostgreSQL's alone; `other` and `ranks` are SQLite's, too.
    """

    sql: str
    slots: Mapping[str, str]
    other: str = ""
    ranks: str = ""
    sqlite: str = ""


@dataclass(frozen=True)
class Relation:
    """A table whose rows refer to those of another."""

    child: Table
    parent: Table
    reference: Reference

    @property
    def joined(self) -> str:
        """FROM the child."""
        return f"{self.child.name} JOIN {self.parent.name} ON {self._on}"

    @property
    def gathered(self) -> str:
        """FROM the parent."""
        return f"{self.parent.name} JOIN {self.child.name} ON {self._on}"

    @property
    def _on(self) -> str:
        return f"{self.child.name}.{self.reference.name} = {self.parent.name}.{self.parent.key.name}"

    @property
    def label(self) -> str:
        """The parent's label, as a column of a join."""
        return f"{self.parent.name}.{self.parent.label.name}"

    @property
    def key(self) -> str:
        return f"{self.parent.name}.{self.parent.key.name}"

    def did(self, what: str, one: bool = False) -> str:
        """What the parents have to do with the children: "placed {what}"; `one`: of one parent."""
        text = self.reference.did.format(y=what)
        return f"has{text[4:]}" if one and text.startswith("have ") else text

    def of(self, whom: str) -> str:
        """The children of some parents: "orders placed by {whom}"."""
        return f"{self.child.plural} {self.reference.of.format(x=whom)}"

    @property
    def never(self) -> str:
        if self.reference.did.startswith("have "):
            return f"have no {self.child.plural}"
        return f"never {self.did(article(self.child.one))}"

    def did_things(self, condition: Condition) -> str:
        """What the parents have to do with some children; a verb is not repeated ("placed orders placed after")."""
        verb, text = self.reference.did.removesuffix("{y}"), condition.text
        if verb != "have " and text.startswith(verb):
            text = text[len(verb) :]
        return self.did(f"{self.child.plural} {text}")


@dataclass(frozen=True)
class World:
    """One database while questions about it are drawn."""

    subject: Subject
    speaker: Speaker
    draw: random.Random = field(repr=False)

    # draws; each returns None where the subject has nothing to draw from

    def table(self, *kinds: type, labelled: bool = True, several: int = 1) -> Table | None:
        """A table with columns of these kinds (`several` of the first one); `labelled`: one whose rows have names."""
        tables = [
            table for table in self.subject.tables
            if (table.label or not labelled) and all(table.of(kind) for kind in kinds)
            and (not kinds or len(table.of(kinds[0])) >= several)
        ]  # fmt: skip
        return self.draw.choice(tables) if tables else None

    def relation(self, *of_child: type, labelled: bool = False) -> Relation | None:
        """A relation whose child has columns of these kinds; `labelled`: and whose rows have names."""
        relations = [
            Relation(child, self.subject.table(reference.table), reference)
            for child in self.subject.tables
            for reference in child.of(Reference)
            if all(child.of(kind) for kind in of_child) and (child.label or not labelled)
        ]
        return self.draw.choice(relations) if relations else None

    def column(self, table: Table, kind: type) -> Column:
        return self.draw.choice(table.of(kind))

    def aggregate(self, column: Number, among: tuple[str, ...] = tuple(AGGREGATES)) -> tuple[str, str]:
        """A function of a column, and its word."""
        functions = [name for name in among if name != "SUM" or column.total]
        function = self.draw.choice(functions)
        return function, self.draw.choice(AGGREGATES[function][self.speaker.held])

    def compared(self, number: int, signs: tuple[str, ...] = tuple(COUNTS)) -> tuple[str, str]:
        """A test of a count, and its words."""
        sign = self.draw.choice(signs)
        return f"{sign} {number}", COUNTS[sign][self.speaker.held].format(n=self.speaker.count(number))

    # words

    def ranked(self, table: Table, column: Number, descending: bool, number: int) -> str:
        """The first rows in an order: "3 oldest employees"."""
        own = self.speaker.own(column.most if descending else column.least)
        count, many = self.speaker.count(number), table.plural
        if own:
            return f"{count} {own} {many}"
        return f"{count} {many} with the {self.superlative(descending)} {noun(column)}"

    def best(self, table: Table, column: Number, largest: bool) -> str:
        """The first row in an order: "oldest employee"."""
        own = self.speaker.own(column.most if largest else column.least)
        return f"{own} {table.one}" if own else f"{table.one} with the {self.superlative(largest)} {noun(column)}"

    def superlative(self, largest: bool) -> str:
        return (("lowest", "highest"), ("smallest", "largest"))[self.speaker.held][largest]


def words(table: Table, condition: Condition | None = None, **more: str) -> dict[str, str]:
    """The slots about a table and the rows that a condition keeps."""
    text = f" {condition.text}" if condition else ""
    slots = {
        "one": table.one, "many": table.plural, "thing": table.one + text, "things": table.plural + text,
        "who": table.who, "which": "Who" if table.person else "Which",
        "who_is": "Who is" if table.person else "What is",
    }  # fmt: skip
    if table.label:
        slots |= {"name": noun(table.label), "names": plural(noun(table.label))}
    return slots | more


def family(relation: Relation, condition: Condition | None = None, **more: str) -> dict[str, str]:
    """The slots about a relation; `things` are children that a condition keeps."""
    parent = relation.parent
    return words(relation.child, condition) | {
        "parent": parent.one, "parents": parent.plural, "parent_name": noun(parent.label),
        "parent_names": plural(noun(parent.label)), "who": parent.who, "never": relation.never,
        "many_of_each": relation.of(f"each {parent.one}"),
    } | more  # fmt: skip


def about(column: Number) -> dict[str, str]:
    return {"noun": noun(column), "a_noun": article(noun(column))}


def grouped(column: Category) -> dict[str, str]:
    return {"cat": noun(column), "cats": plural(noun(column))}


def side(above: bool) -> dict[str, str]:
    """Words for one side of an average."""
    pairs = {
        "above": ("below", "above"), "higher": ("lower", "higher"), "a_higher": ("a lower", "a higher"),
        "greater": ("less", "greater"), "exceed": ("fall below", "exceed"), "upper": ("lower", "upper"),
    }  # fmt: skip
    return {name: pair[above] for name, pair in pairs.items()}


def ranks(select: Select, key: str) -> str:
    """SQL of the keys of a query's order, one more than its LIMIT keeps."""
    return replace(select, columns=key, limit=select.limit + 1).sql
