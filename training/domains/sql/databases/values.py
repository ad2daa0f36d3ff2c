"""Values for the columns of re-populated copies: the column's own, near misses, and what golds compare it with."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

from training.domains.sql.queries.conditions import Condition

_DATE = re.compile(r"(\d{4})-(\d{2})-(\d{2})(.*)", re.DOTALL)
_PERIOD = re.compile(r"\d{4}(-\d{2})?")
_WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "haven", "inlet", "juniper")
_WIDE = 0.9  # a column with this share of distinct values is nearly a key: its values are not made to repeat


@dataclass
class ColumnValues:
    """A column of the original, and the values that its copies draw from."""

    name: str
    numeric: bool  # by SQLite's affinity
    integer: bool
    nullable: bool
    null_share: float  # of the original's rows
    pool: list[Any]  # distinct values of the original, sorted
    distinct_share: float
    drawn: list[Any] = field(default_factory=list)  # the part of the pool that one copy draws from

    def start_copy(self, rng: random.Random, rows: int) -> None:
        """Choose the part of the pool for a copy of `rows` rows. A small part has values repeat, which shows a missing
        or superfluous DISTINCT. Numbers that are nearly unique stay so: ties make ORDER BY with LIMIT ambiguous."""
        self.drawn = list(self.pool) or [self.invented(rng) for _ in range(max(2, rows // 2))]
        rng.shuffle(self.drawn)
        if not (self.numeric and self.distinct_share >= _WIDE):
            self.drawn = self.drawn[: rng.randint(2, max(3, rows // 3))]

    def value(self, rng: random.Random) -> Any:
        """A value for a row that no gold asks anything of."""
        if self.nullable and rng.random() < self.null_share:
            return None
        value = rng.choice(self.drawn)
        wide = self.numeric and self.distinct_share >= _WIDE
        return self.near(value, rng) if rng.random() < (0.5 if wide else 0.1) else value

    def invented(self, rng: random.Random) -> Any:
        """A value where the original has none."""
        if self.integer:
            return rng.randint(1, 100)
        return round(rng.uniform(0, 100), 2) if self.numeric else rng.choice(_WORDS)

    def fits(self, value: Any) -> bool:
        """Whether a gold's literal can be a value of the column."""
        if not self.numeric:
            return True
        try:
            float(value)
        except (TypeError, ValueError):
            return False
        return True

    def near(self, value: Any, rng: random.Random) -> Any:
        """A value close to `value`, or `value`: another number or day, or a text that differs in one letter or case."""
        if isinstance(value, (bool, bytes)) or value is None:
            return value
        if isinstance(value, int):
            return value + rng.choice((-2, -1, 1, 2))
        if isinstance(value, float):
            return round(value + rng.choice((-1, 1)) * max(abs(value) * 0.01, 0.01), 4)
        if found := _DATE.fullmatch(value):
            try:
                day = date(int(found[1]), int(found[2]), int(found[3])) + timedelta(rng.choice((-31, -1, 1, 31)))
            except (ValueError, OverflowError):
                return value
            return f"{day.isoformat()}{found[4]}"
        if not re.search(r"[A-Za-z]", value) or len(value) < 3:
            return value  # a code or a number: its form may matter
        return rng.choice((value.swapcase(), value[:-1], value + "s", value[:-1] + rng.choice("aeiknrst")))

    def satisfying(self, condition: Condition, rng: random.Random) -> Any:
        """A value for which the condition is likely to hold; for about one in five, a near miss instead."""
        value = self._satisfying(condition, rng)
        return self.near(value, rng) if rng.random() < 0.2 else value

    def _satisfying(self, condition: Condition, rng: random.Random) -> Any:
        values = [value for value in condition.values if self.fits(value)]
        if not values:
            return self.value(rng)
        literal = rng.choice(values)
        if condition.kind == "<>":
            return self.value(rng)
        if condition.kind == "like":
            return _matching(str(literal), rng)
        if isinstance(literal, str) and self.numeric:
            literal = float(literal) if "." in literal or "e" in literal.lower() else int(literal)
        if isinstance(literal, str) or _looks_like_days(self.pool):
            return self._text(condition, str(literal), rng)
        numbers = [float(value) for value in values]
        if condition.kind == "between" and len(numbers) > 1:
            low, high = min(numbers), max(numbers)
            middle = rng.choice((low, high, rng.uniform(low, high)))
            return round(middle) if self.integer or all(n.is_integer() for n in numbers) else round(middle, 2)
        step = rng.choice((0, 1, 1, rng.randint(1, 10)))
        return literal + step * {">": 1, "<": -1}.get(condition.kind, 0)

    def _text(self, condition: Condition, literal: str, rng: random.Random) -> Any:
        if _PERIOD.fullmatch(literal) and _looks_like_days(self.pool):
            # strftime('%Y', day) = '2020': a day of the pool, moved into that year
            day = rng.choice(self.pool)
            return literal + day[len(literal) :]
        if condition.kind in (">", "<"):
            sign = 1 if condition.kind == ">" else -1
            beyond = [value for value in self.pool if isinstance(value, str) and (value > literal) == (sign > 0)]
            return rng.choice([literal, *beyond[:50]])
        return literal

    def distinct(self, count: int, wanted: Sequence[Any], rng: random.Random) -> list[Any]:
        """`count` different values for a key: those that golds ask for, then others of the pool, then new ones."""
        wanted = [value for value in dict.fromkeys(wanted) if self.fits(value)]
        others = [value for value in self.pool if value not in set(wanted)]
        rng.shuffle(others)
        values = list(dict.fromkeys([*wanted[: count // 2 + 1], *others]))[:count]
        taken, number = set(values), 0
        while len(values) < count:
            number += 1
            if self.numeric:
                new = int(max((v for v in taken if isinstance(v, (int, float))), default=0)) + rng.randint(1, 3)
            else:
                new = f"{rng.choice(self.pool or list(_WORDS))}{number}"
            if new not in taken:
                taken.add(new)
                values.append(new)
        rng.shuffle(values)
        return values


def _looks_like_days(pool: Sequence[Any]) -> bool:
    return bool(pool) and all(isinstance(value, str) and _DATE.fullmatch(value) for value in pool[:5])


def _matching(pattern: str, rng: random.Random) -> str:
    """A text that the LIKE pattern matches."""
    text = []
    for character in pattern:
        if character in "%*":
            text.append(rng.choice(("", "", rng.choice(_WORDS))))
        else:
            text.append(rng.choice("aeiknrst") if character in "_?" else character)
    return "".join(text)
