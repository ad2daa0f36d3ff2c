"""A schema that is too long for the model is pruned: tables that the question does not name go first.

The query that is the right answer is never looked at: at use, there is none.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from training.domains.sql.databases.schema import Schema, Table

_WORD = re.compile(r"[A-Za-z]+|[0-9]+(?:\.[0-9]+)?")
# what nearly every question has
_STOP = frozenset(_WORD.findall(
    "a an and are as at by for from give how in is it list many me much of on or show that the their them to was were "
    "what when where which who with"
))  # fmt: skip


def prune(schema: Schema, question: str, fits: Callable[[Schema], bool]) -> Schema | None:
    """`schema` if it fits; else without as many tables as necessary, the least relevant first; None if not even the
    most relevant table fits. A table to which a kept table refers by foreign key is as relevant as that one."""
    if fits(schema):
        return schema
    ranked = by_relevance(schema, question)
    low, high = 0, len(ranked) - 1  # the most tables that fit, by bisection: fewer tables are never longer
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(schema.only(ranked[:middle])) else (low, middle - 1)
    best = schema.only(ranked[:low]) if low else None
    return best if best is not None and fits(best) else None


def by_relevance(schema: Schema, question: str) -> list[str]:
    """The names of the tables, the most relevant to the question first; equally relevant ones in the schema's order."""
    asked = words(question)
    scores = {table.name.lower(): _score(table, asked) for table in schema.tables}
    passed_on = dict(scores)
    for table in schema.tables:
        for key in table.foreign_keys:
            other = key.table.lower()
            if other in passed_on:
                passed_on[other] = max(passed_on[other], scores[table.name.lower()] / 2)
    order = sorted(range(len(schema.tables)), key=lambda i: (-passed_on[schema.tables[i].name.lower()], i))
    return [schema.tables[index].name for index in order]


def _score(table: Table, asked: set[str]) -> float:
    names = words(table.name)
    score = 3.0 * len(names & asked) / max(1, len(names))
    for column in table.columns:
        of_column = words(column.name)
        score += len(of_column & asked) / max(1, len(of_column))
        values = {word for sample in column.samples for word in words(sample)}
        score += min(1.0, len(values & asked))
    return score


def words(text: str) -> set[str]:
    """The words of a text or of a name (customerName, customer_name), in lower case and without a plural's ending."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text)
    return {_singular(word.lower()) for word in _WORD.findall(spaced.replace("_", " "))} - _STOP


def _singular(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith("s") and not word.endswith("ss") and len(word) > 3:
        return word[:-1]
    return word
