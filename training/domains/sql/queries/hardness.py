"""How hard a query is by the rules of the Spider benchmark, and which clauses it has.

The rules are those of `eval_hardness` in Spider's evaluation.py (Yu et al. 2018, "Spider: A Large-Scale Human-Labeled
Dataset for Complex and Cross-Domain Semantic Parsing and Text-to-SQL Task", https://github.com/taoyds/spider), applied
to a tree of sqlglot. They look at the outer query; of a set operation, at its left side.

    component 1   one each for WHERE, GROUP BY, ORDER BY, LIMIT; the number of joins, ORs and LIKEs
    component 2   queries nested in conditions, and set operations
    others        one each for several aggregates, several outputs, several conditions in WHERE, several keys of GROUP
                  BY
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from sqlglot import exp

from training.domains.sql.queries.parsing import Query

Hardness = Literal["easy", "medium", "hard", "extra"]

_AGGREGATES = (exp.Max, exp.Min, exp.Count, exp.Sum, exp.Avg)  # those of Spider's grammar


def hardness(query: Query) -> Hardness:
    """The level of the query by Spider's rules. A statement that writes, which Spider has none of, is "extra"."""
    select, operations = _left_side(query.outer)
    if select is None:
        return "extra" if not isinstance(query.outer, exp.Values) else "easy"
    where, having = _conditions(select.args.get("where")), _conditions(select.args.get("having"))
    joined = [unit for join in select.args.get("joins") or () for unit in _conditions(join.args.get("on"))]
    first = _component_1(select, joined + where + having)
    second = operations + sum(_nested(unit) for unit in joined + where + having)
    others = _others(select, where, having)
    if first <= 1 and others == 0 and second == 0:
        return "easy"
    if second == 0 and ((others <= 2 and first <= 1) or (others < 2 and first <= 2)):
        return "medium"
    if (
        (second == 0 and others > 2 and first <= 2)
        or (second == 0 and others <= 2 and 2 < first <= 3)
        or (second <= 1 and others == 0 and first <= 1)
    ):
        return "hard"
    return "extra"


def _left_side(tree: exp.Expression) -> tuple[exp.Select | None, int]:
    """The leftmost SELECT, and 1 if it is part of a set operation. Spider's parser reads `a UNION b UNION c` as a with
    the nested query (b UNION c), so it counts one."""
    operations = 0
    while isinstance(tree, (exp.SetOperation, exp.Subquery)):
        operations = operations or int(isinstance(tree, exp.SetOperation))
        tree = tree.this
    return (tree if isinstance(tree, exp.Select) else None), operations


def _conditions(clause: exp.Expression | None) -> list[exp.Expression]:
    """The single conditions of a clause: what AND and OR connect."""
    if clause is None:
        return []
    tree = clause.this if isinstance(clause, (exp.Where, exp.Having)) else clause
    return list(_leaves(tree))


def _leaves(tree: exp.Expression) -> Iterator[exp.Expression]:
    while isinstance(tree, exp.Paren):
        tree = tree.this
    if isinstance(tree, (exp.And, exp.Or)):
        yield from _leaves(tree.left)
        yield from _leaves(tree.right)
    else:
        yield tree


def _without_not(unit: exp.Expression) -> exp.Expression:
    while isinstance(unit, (exp.Not, exp.Paren)):
        unit = unit.this
    return unit


def _component_1(select: exp.Select, units: Iterable[exp.Expression]) -> int:
    clauses = sum(select.args.get(name) is not None for name in ("where", "group", "order", "limit"))
    joins = select.args.get("joins") or ()
    conditions = [join.args.get("on") for join in joins] + [select.args.get(name) for name in ("where", "having")]
    alternatives = sum(_alternatives(clause) for clause in conditions if clause is not None)
    likes = sum(isinstance(_without_not(unit), (exp.Like, exp.ILike)) for unit in units)
    return clauses + len(joins) + alternatives + likes


def _alternatives(clause: exp.Expression) -> int:
    """The number of ORs of a clause, without those of nested queries."""
    tree = clause.this if isinstance(clause, (exp.Where, exp.Having)) else clause
    while isinstance(tree, exp.Paren):
        tree = tree.this
    if not isinstance(tree, (exp.And, exp.Or)):
        return 0
    return isinstance(tree, exp.Or) + _alternatives(tree.left) + _alternatives(tree.right)


def _nested(unit: exp.Expression) -> int:
    """Queries that a condition compares with. A query within one of them is theirs."""
    unit = _without_not(unit)
    if isinstance(unit, exp.Query):
        return 1
    sides = list(unit.args.values())
    nodes = [node for side in sides for node in (side if isinstance(side, list) else [side])]
    return sum(isinstance(_without_not(node), exp.Query) for node in nodes if isinstance(node, exp.Expression))


def _others(select: exp.Select, where: list[exp.Expression], having: list[exp.Expression]) -> int:
    keys = list(select.args["group"].expressions) if select.args.get("group") else []
    order = [key.this for key in select.args["order"].expressions] if select.args.get("order") else []
    aggregates = sum(_has_aggregate(node) for node in [*select.expressions, *keys, *order])
    # In evaluation.py the first field of a condition is its NOT, which the count takes for an aggregate. It is kept:
    # the levels of the published figures are counted so.
    aggregates += sum(_negated(unit) for unit in where + having)
    return (aggregates > 1) + (len(select.expressions) > 1) + (len(where) > 1) + (len(keys) > 1)


def _has_aggregate(node: exp.Expression) -> bool:
    return any(not _in_nested(found, node) for found in node.find_all(*_AGGREGATES))


def _in_nested(node: exp.Expression, top: exp.Expression) -> bool:
    while node is not top:
        if isinstance(node, exp.Query):
            return True
        node = node.parent
    return isinstance(top, exp.Query)


def _negated(unit: exp.Expression) -> bool:
    """NOT IN, NOT LIKE, NOT BETWEEN, NOT EXISTS and IS NOT, but not `<>`."""
    return isinstance(unit, exp.Not)


def clauses(query: Query) -> frozenset[str]:
    """Which of these the query has anywhere: where, group, having, order, limit, join, nested (a query in a query), set
    (UNION, INTERSECT, EXCEPT), distinct, aggregate."""
    tree = query.outer
    kinds = {
        "where": (exp.Where,),
        "group": (exp.Group,),
        "having": (exp.Having,),
        "limit": (exp.Limit, exp.Fetch),
        "join": (exp.Join,),
        "set": (exp.SetOperation,),
    }
    found = {name for name, types in kinds.items() if tree.find(*types)}
    for name, kind in (("order", exp.Order), ("aggregate", exp.AggFunc)):  # those of a window are no clause
        if any(not isinstance(node.parent, exp.Window) for node in tree.find_all(kind)):
            found.add(name)
    # a set operation has a `distinct` argument too, and that is not written
    if any(node.args.get("distinct") for node in tree.find_all(exp.Select)) or tree.find(exp.Distinct):
        found.add("distinct")
    if any(node is not tree and not isinstance(node.parent, exp.SetOperation) for node in tree.find_all(exp.Select)):
        found.add("nested")
    return frozenset(found)
