"""What a query compares its columns with: the values that rows must have for the query to return any."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from sqlglot import exp

from training.domains.sql.queries.parsing import Query
from training.domains.sql.queries.template import value_of

Kind = Literal["=", "<>", ">", "<", "between", "like"]
Value = str | int | float

_KINDS: dict[type, Kind] = {
    exp.EQ: "=", exp.Is: "=", exp.NEQ: "<>", exp.GT: ">", exp.GTE: ">", exp.LT: "<", exp.LTE: "<", exp.In: "=",
    exp.Between: "between", exp.Like: "like", exp.ILike: "like", exp.Glob: "like",
}  # fmt: skip
_MIRRORED: dict[Kind, Kind] = {">": "<", "<": ">"}


@dataclass(frozen=True)
class Condition:
    """A comparison of a column with values. `tables`: names in lower case of the tables that the column may be of."""

    tables: frozenset[str]
    column: str  # in lower case
    kind: Kind
    values: tuple[Value, ...]


def conditions(query: Query) -> list[Condition]:
    """The comparisons of columns with literals, in any part of the query. A comparison of a function of a column counts
    as one of the column: WHERE strftime('%Y', day) = '2020'."""
    names = {table.alias_or_name.lower(): table.name.lower() for table in query.tree.find_all(exp.Table)}
    found = []
    for node in query.tree.find_all(*_KINDS):
        values = tuple(_values(node))
        kind = _KINDS[type(node)]
        if not values:
            continue
        if not isinstance(node, (exp.In, exp.Between)) and isinstance(node.this, (exp.Literal, exp.Neg)):
            kind = _MIRRORED.get(kind, kind)
        for column in _columns(node):
            table = names.get(column.table.lower())
            tables = frozenset([table]) if table else frozenset(names.values())
            found.append(Condition(tables, column.name.lower(), kind, values))
    return found


def _values(node: exp.Expression) -> Iterator[Value]:
    sides = [node.args.get(name) for name in ("this", "expression", "low", "high")]
    for side in [*sides, *node.expressions]:
        if isinstance(side, exp.Literal):
            yield value_of(side)
        elif isinstance(side, exp.Neg) and isinstance(side.this, exp.Literal):
            value = value_of(side.this)
            if not isinstance(value, str):
                yield -value


def _columns(node: exp.Expression) -> Iterator[exp.Column]:
    """The columns of a comparison, without those of queries and aggregates in it."""
    for side in (node.args.get("this"), node.args.get("expression")):
        if side is None or isinstance(side, exp.Query) or side.find(exp.Query, exp.AggFunc) is not None:
            continue
        yield from side.find_all(exp.Column)
