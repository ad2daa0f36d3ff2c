"""Conditions of the demo's questions: their SQL, and how a question states them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from training.domains.sql.demo.filling import Content, Row
from training.domains.sql.demo.schemas import Category, Date, Label, Number, Table, article, head, noun

NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
#: Share of the phrases that use a column's own words ("older than 40"), where it has some.
OWN_WORDS = 0.6
#: Above this, a threshold is rounded to two digits: years and prices below it are not.
ROUNDED_ABOVE = 3_000

MORE = (("with {a_noun} above {v}", "whose {noun} is greater than {v}", "with {a_noun} of more than {v}"),
        ("whose {noun} exceeds {v}", "with {a_noun} over {v}"))  # fmt: skip
LESS = (("with {a_noun} below {v}", "whose {noun} is less than {v}", "with {a_noun} of less than {v}"),
        ("whose {noun} is lower than {v}", "with {a_noun} under {v}"))  # fmt: skip
WITHIN = (("with {a_noun} between {v} and {w}", "whose {noun} is between {v} and {w}"),
          ("with {a_noun} from {v} to {w}", "whose {noun} lies in the range {v} to {w}"))  # fmt: skip
AFTER, BEFORE = ("{did} after {v}", "{did} later than {v}"), ("{did} before {v}", "{did} earlier than {v}")
DURING, DATES = ("{did} in {v}", "{did} during {v}"), ("{did} between {v} and {w}", "{did} from {v} to {w}")
STARTS = ("whose {name} starts with {v}", "with a {name} beginning with {v}")
ENDS = ("whose {name} ends with {v}", "with {v} at the end of the {name}")
ANY_CASE = (
    "whose {name} contains {v}, in upper or lower case", "with {v} somewhere in the {name}, however it is capitalised",
)  # fmt: skip
WITHIN_DAYS = ("{did} in the {days} days before {v}", "{did} within {days} days before {v}")
CONTAINS = ("whose {name} contains {v}", "with {v} somewhere in the {name}")


@dataclass(frozen=True)
class Condition:
    """`test` follows the column in SQL: "> 40". `text` follows the noun in a question: "older than 40"."""

    column: str
    test: str
    text: str

    @property
    def clause(self) -> bool:
        return self.text.startswith(("who ", "that ", "whose "))

    def sql(self, table: str = "") -> str:
        """The condition, with the column's table in front where the query joins tables."""
        return f"{table}.{self.column} {self.test}" if table else f"{self.column} {self.test}"


def literal(value: str | int | float | None) -> str:
    """A value in SQL."""
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return shown(value)


def shown(value: str | int | float | None) -> str:
    """A value in a question: 12, 7.5, Leeds."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


@dataclass(frozen=True)
class Speaker:
    """Draws conditions and phrases about the rows of one database.

    `held`: for held-out questions, which have phrases of their own. `reserved`: words of columns that held-out
    databases have; training questions avoid them.
    """

    draw: random.Random
    held: bool
    reserved: frozenset[str]
    content: Content

    def form(self, forms: Sequence[str | Sequence[str]]) -> str:
        """One of (training's form or forms, those of held-out questions)."""
        chosen = forms[self.held]
        return chosen if isinstance(chosen, str) else self.draw.choice(chosen)

    def own(self, text: str) -> str:
        """A column's own words, or an empty text where they are not used."""
        if not text or (not self.held and head(text) in self.reserved):
            return ""
        return text if self.draw.random() < OWN_WORDS else ""

    def count(self, number: int) -> str:
        """A small number; held-out questions have it in words in half of the cases."""
        spelt = self.held and number < len(NUMBER_WORDS) and self.draw.random() < 0.5
        return NUMBER_WORDS[number] if spelt else str(number)

    def rows(self, table: Table) -> list[Row]:
        return self.content[table.name]

    # conditions

    def condition(self, table: Table, without: Sequence[str] = (), extreme: bool = False) -> Condition | None:
        """A condition on one column that is not in `without`; `extreme`: that few rows meet."""
        kinds = (Category, Number, Date)
        columns = [column for column in table.columns if isinstance(column, kinds) and column.name not in without]
        if not columns:
            return None
        column = self.draw.choice(columns)
        match column:
            case Category():
                return self.equals(table, column)
            case Number():
                return self.compares(table, column, extreme)
            case _:
                return self.dated(table, column, extreme)

    def equals(self, table: Table, column: Category, unequal: float = 0.15) -> Condition:
        value = self.draw.choice(self.rows(table))[column.name]
        text = column.where.format(v=value)
        if self.draw.random() < unequal:
            return Condition(column.name, f"!= {literal(value)}", f"not {text}")
        if self.held and self.draw.random() < 0.3:
            text = f"whose {noun(column)} is {value}"
        return Condition(column.name, f"= {literal(value)}", text)

    def within_values(self, table: Table, column: Category) -> Condition:
        """One of two values."""
        first, second = self.draw.sample(sorted({str(row[column.name]) for row in self.rows(table)}), 2)
        text = column.where.format(v=f"{first} or {second}")
        if self.held and self.draw.random() < 0.5:
            text = f"whose {noun(column)} is either {first} or {second}"
        return Condition(column.name, f"IN ({literal(first)}, {literal(second)})", text)

    def compares(self, table: Table, column: Number, extreme: bool = False) -> Condition:
        more = self.draw.random() < 0.6
        share = self.draw.uniform(0.8, 0.97) if extreme else self.draw.uniform(0.25, 0.85)
        value = self._threshold(table, column, share if more else 1 - share)
        own = self.own(column.more if more else column.less)
        if own:
            text = own.format(v=shown(value))
        else:
            text = self._about(self.form(MORE if more else LESS), column, shown(value))
        return Condition(column.name, f"{'>' if more else '<'} {literal(value)}", text)

    def dated(self, table: Table, column: Date, extreme: bool = False) -> Condition:
        if self.draw.random() < 0.3 and not extreme:
            year = self.draw.choice(self._days(table, column))[:4]
            text = self.form(DURING).format(did=column.did, v=year)
            return Condition(column.name, f"BETWEEN '{year}-01-01' AND '{year}-12-31'", text)
        after = self.draw.random() < 0.5
        days = self._days(table, column)
        share = self.draw.uniform(0.8, 0.95) if extreme else self.draw.uniform(0.2, 0.8)
        day = days[int(len(days) * (share if after else 1 - share))][:7] + "-01"
        text = self.form(AFTER if after else BEFORE).format(did=column.did, v=day)
        return Condition(column.name, f"{'>' if after else '<'} '{day}'", text)

    def between(self, table: Table, column: Number | Date) -> Condition:
        low, high = self.draw.uniform(0.1, 0.5), self.draw.uniform(0.6, 0.9)
        if isinstance(column, Date):
            days = self._days(table, column)
            first, last = (days[int(len(days) * share)][:7] + "-01" for share in (low, high))
            text = self.form(DATES).format(did=column.did, v=first, w=last)
            return Condition(column.name, f"BETWEEN '{first}' AND '{last}'", text)
        first, last = (self._threshold(table, column, share) for share in (low, high))
        text = self._about(self.form(WITHIN), column, shown(first), shown(last))
        return Condition(column.name, f"BETWEEN {literal(first)} AND {literal(last)}", text)

    def like(self, table: Table, column: Label) -> Condition:
        """The beginning, the end, or a word of an actual name."""
        name = str(self.draw.choice(self.rows(table))[column.name])
        forms, pattern, part = self.draw.choice((
            (STARTS, "{}%", name[0]), (STARTS, "{}%", name[:2].strip()), (ENDS, "%{}", name[-2:]),
            (CONTAINS, "%{}%", self.draw.choice(name.split())),
        ))  # fmt: skip
        text = self.form(forms).format(name=noun(column), v=part)
        return Condition(column.name, f"LIKE {literal(pattern.format(part))}", text)

    def missing(self, column: Date) -> Condition:
        return Condition(column.name, "IS NULL", column.pending)

    def pair(self, table: Table) -> tuple[Condition, Condition] | None:
        """Two conditions on different columns; one that is a clause ("whose ...") is the second."""
        first = self.condition(table)
        second = first and self.condition(table, [first.column])
        if first is None or second is None:
            return None
        return (second, first) if first.clause and not second.clause else (first, second)

    # values

    def _about(self, form: str, column: Number, low: str, high: str = "") -> str:
        unit = column.unit
        return form.format(
            noun=noun(column), a_noun=article(noun(column)), v=low if high else low + unit, w=high + unit
        )

    def _days(self, table: Table, column: Date) -> list[str]:
        return sorted(str(row[column.name]) for row in self.rows(table) if row[column.name] is not None)

    def _threshold(self, table: Table, column: Number, share: float) -> int | float:
        """A value below which about `share` of the rows are."""
        values = sorted(row[column.name] for row in self.rows(table))
        value = values[min(int(len(values) * share), len(values) - 1)]
        if value > ROUNDED_ABOVE:
            scale = 10 ** (len(str(int(value))) - 2)
            return round(value / scale) * scale
        return value
