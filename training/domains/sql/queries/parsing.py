"""Parse one SQL statement into a tree, or say why it is none that this project uses."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass

import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError, SqlglotError, TokenError

from training.domains.sql.databases.schema import Dialect

#: A longer statement is not parsed; a deeper tree is refused, because what reads it is recursive.
MAX_CHARACTERS = 50_000
MAX_DEPTH = 120
_WRITES = (exp.Insert, exp.Update, exp.Delete, exp.Merge, exp.Create, exp.Drop, exp.Alter)
_COMPARISONS = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Like, exp.ILike, exp.Glob, exp.Is)

# sqlglot warns of each statement that it keeps as text (a Command); these are refused here, with a reason
logging.getLogger("sqlglot").setLevel(logging.ERROR)


@dataclass(frozen=True)
class Query:
    """A statement as text and as sqlglot's tree, which must not be changed."""

    sql: str
    tree: exp.Expression
    dialect: Dialect

    @property
    def outer(self) -> exp.Expression:
        """The tree without parentheses around all of it."""
        return self.tree.unnest() if isinstance(self.tree, exp.Subquery) else self.tree


def parse(sql: str, dialect: Dialect, allow_writes: bool = False) -> Query:
    """The one statement in `sql`; comments and a semicolon at its end are fine.

    In SQLite a text in double quotes is a string where no column has that name. Without the schema this is decided by
    its place: right of a comparison, in a list of IN or as a bound of BETWEEN it is a string,
    and as the argument of a function if it holds characters that are in no name.

    Raises ValueError with the reason: it does not parse (with line and column), is none or several statements, is no
    SELECT and `allow_writes` is not set.
    """
    if len(sql) > MAX_CHARACTERS:
        raise ValueError(f"the statement has {len(sql)} characters, more than {MAX_CHARACTERS}")
    try:
        trees = [tree for tree in sqlglot.parse(sql, read=dialect) if tree and not isinstance(tree, exp.Semicolon)]
    except ParseError as error:
        raise ValueError(_reason(error)) from None
    except TokenError as error:
        raise ValueError(f"does not parse: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise ValueError("does not parse: nested too deeply") from None
    except SqlglotError as error:
        raise ValueError(f"does not parse: {error}") from None
    if len(trees) != 1:
        raise ValueError(f"{len(trees)} statements instead of one" if trees else "no statement")
    tree = trees[0]
    if _depth(tree) > MAX_DEPTH:
        raise ValueError("does not parse: nested too deeply")
    _check_kind(tree, allow_writes)
    if dialect == "sqlite":
        tree = _strings_in_double_quotes(tree, sql)
    return Query(sql, tree, dialect)


def _depth(tree: exp.Expression) -> int:
    depth, level = 0, [tree]
    while level:
        depth += 1
        level = [child for node in level for child in node.iter_expressions()]
    return depth


def _reason(error: ParseError) -> str:
    if not error.errors:
        return f"does not parse: {str(error).splitlines()[0]}"
    first = error.errors[0]
    what = re.sub(r"<Token .*?text: (.*?), line: .*?>", r"\1", first["description"])
    what = re.sub(r"<class '[\w.]*?(\w+)'>", r"\1", what).rstrip(". ")
    near = f" near {first['highlight']!r}" if first.get("highlight") else ""
    return f"does not parse: {what}; line {first['line']}, column {first['col']}{near}"


def _check_kind(tree: exp.Expression, allow_writes: bool) -> None:
    query = tree.unnest() if isinstance(tree, exp.Subquery) else tree
    if isinstance(query, (exp.Select, exp.SetOperation, exp.Values)):
        if query.find(*_WRITES) is None and not any(node.args.get("into") for node in query.find_all(exp.Select)):
            return
        if allow_writes:
            return
        raise ValueError("a SELECT that writes")
    if allow_writes and isinstance(query, _WRITES):
        return
    kind = query.this if isinstance(query, exp.Command) else query.key
    raise ValueError(f"{str(kind).upper()} is no SELECT statement")


def _strings_in_double_quotes(tree: exp.Expression, sql: str) -> exp.Expression:
    for column in list(tree.find_all(exp.Column)):
        if in_double_quotes(column, sql) and _is_value(column):
            column.replace(exp.Literal.string(column.name))
    return tree


def in_double_quotes(column: exp.Column, sql: str) -> bool:
    """Whether an unqualified column was written in double quotes, and not in backticks or brackets."""
    name = column.this
    start = name.meta.get("start") if isinstance(name, exp.Identifier) else None
    return start is not None and not column.table and sql[start : start + 1] == '"'


def _is_value(column: exp.Column) -> bool:
    parent = column.parent
    if isinstance(parent, _COMPARISONS):
        return parent.expression is column
    if isinstance(parent, exp.In):
        return parent.this is not column
    if isinstance(parent, exp.Between):
        return parent.this is not column
    # strftime("%Y", day): such characters are in no column's name
    return isinstance(parent, exp.Func) and re.search(r"[^\w .-]", column.name) is not None


# -- order -----------------------------------------------------------------------------------------------------------


def ordered(query: Query) -> bool:
    """Whether the order of the rows is part of the answer: the outer query has an ORDER BY."""
    return query.outer.args.get("order") is not None


def order_columns(query: Query) -> tuple[int, ...] | None:
    """Positions among the outputs of the outer ORDER BY's keys, or None if there is no ORDER BY or a key is no output
    (or may be one that a star stands for)."""
    order = query.outer.args.get("order")
    if order is None:
        return None
    outputs = query.outer.selects
    if any(output.is_star for output in outputs):
        return None
    positions = []
    for key in order.expressions:
        position = output_of(key.this, outputs)
        if position is None:
            return None
        positions.append(position)
    return tuple(positions)


def output_of(key: exp.Expression, outputs: list[exp.Expression]) -> int | None:
    """The position of the output that a key of ORDER BY or GROUP BY means: by number, by name, or as an expression."""
    if isinstance(key, exp.Literal) and not key.is_string:
        number = int(key.this) if key.this.isdigit() else 0
        return number - 1 if 1 <= number <= len(outputs) else None
    if isinstance(key, exp.Column) and not key.table:
        names = [output.alias_or_name.lower() for output in outputs]
        if key.name.lower() in names:
            return names.index(key.name.lower())
    for position, output in enumerate(outputs):
        if output.unalias() == key:
            return position
    return None
