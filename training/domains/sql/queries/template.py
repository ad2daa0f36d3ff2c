"""The form of a query (its template), and its text for exact match (canonical)."""

from __future__ import annotations

from collections.abc import Callable

from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.scope import Scope, traverse_scope

from training.domains.sql.queries.parsing import Query, output_of

_NAME, _VALUE = "x", "?"
_COMMUTATIVE = (exp.EQ, exp.NEQ, exp.Add, exp.Mul)
_MIRRORED = {exp.GT: exp.LT, exp.GTE: exp.LTE}


def template(query: Query) -> str:
    """The query's form: all names and literals blank, in one spelling. Equal for queries that differ in tables,
    columns, aliases, values and the number of values in a list, and in nothing else."""
    tree = _prepared(query)
    for node in list(tree.find_all(exp.Literal)):
        node.replace(exp.var(_VALUE))
    for node in list(tree.find_all(exp.Neg)):
        if _is_blank(node.this):
            node.replace(node.this)
    for node in tree.find_all(exp.In):
        if node.expressions and all(map(_is_blank, node.expressions)):
            node.set("expressions", node.expressions[:1])
    for node in list(tree.find_all(exp.Column)):
        if not isinstance(node.this, exp.Star):
            node.replace(exp.column(_NAME))
    for node in tree.find_all(exp.Identifier):
        node.set("this", _NAME)
        node.set("quoted", False)
    return _sql(tree, query)


def _is_blank(node: exp.Expression) -> bool:
    return isinstance(node, exp.Var) and node.name == _VALUE


def canonical(query: Query) -> str:
    """The query's text for exact set match: aliases resolved, names in lower case, and what has no order sorted (the
    outputs, conditions, lists of values, keys of GROUP BY, tables of inner joins)."""
    tree = _prepared(query)
    for node in tree.find_all(exp.Identifier):
        node.set("this", node.name.lower())
        node.set("quoted", False)
    for node in list(tree.walk(bfs=False))[::-1]:  # children first
        _sort(node, lambda part: part.sql(query.dialect))
    return _sql(tree, query)


def value_of(literal: exp.Literal) -> str | int | float:
    """The value of a literal."""
    if literal.is_string:
        return literal.this
    try:
        return int(literal.this)
    except ValueError:
        try:
            return float(literal.this)
        except ValueError:
            return literal.this  # 0x1F and the like


def _sql(tree: exp.Expression, query: Query) -> str:
    return tree.sql(query.dialect, normalize_functions="upper", comments=False)


# -- one spelling ----------------------------------------------------------------------------------------------------


def _prepared(query: Query) -> exp.Expression:
    """A copy of the tree in which the same things are spelt the same: no aliases of tables and outputs, no positions in
    ORDER BY and GROUP BY, no needless words and parentheses. Raises ValueError for a query whose names are ambiguous
    (two tables of one alias)."""
    tree = query.outer.copy()
    for node in tree.walk():
        node.comments = None
    try:
        _name_keys(tree)
        _resolve_tables(tree)
    except SqlglotError as error:
        raise ValueError(str(error)) from None
    for alias in list(tree.find_all(exp.Alias)):
        if isinstance(alias.parent, exp.Select) and _is_outermost(alias.parent, tree):
            alias.replace(alias.this)
    for join in tree.find_all(exp.Join):
        if join.args.get("kind") in ("INNER", "OUTER"):
            join.set("kind", None)
    for paren in list(tree.find_all(exp.Paren)):
        if not isinstance(paren.this, exp.Query) and not _needs_parentheses(paren):
            paren.replace(paren.this)
    for ordered in tree.find_all(exp.Ordered):
        ordered.set("desc", ordered.args.get("desc") or None)
    return tree


def _needs_parentheses(paren: exp.Paren) -> bool:
    inner, parent = paren.this, paren.parent
    if isinstance(parent, (exp.Connector, exp.Not)):  # a Connector is a Func too in sqlglot
        return not isinstance(inner, exp.Predicate) and not isinstance(inner, type(parent))
    if isinstance(inner, (exp.Column, exp.Literal, exp.Func)) and not isinstance(inner, exp.Connector):
        return False
    clauses = (exp.Where, exp.Having, exp.Join, exp.Select, exp.Alias, exp.Ordered, exp.Func, exp.Paren)
    return not isinstance(parent, clauses)


def _is_outermost(select: exp.Select, tree: exp.Expression) -> bool:
    """Whether the outputs of a SELECT are those of the query (or of a query in a condition), so that no one refers to
    their names once the keys of ORDER BY are resolved."""
    node = select
    while isinstance(node.parent, exp.SetOperation):
        node = node.parent
    parent = node.parent
    if parent is None or node is tree:
        return True
    if isinstance(parent, exp.Subquery):
        return not isinstance(parent.parent, (exp.From, exp.Join, exp.Lateral))
    return not isinstance(parent, exp.CTE)


def _name_keys(tree: exp.Expression) -> None:
    """Replace numbers and names of outputs in ORDER BY, GROUP BY and HAVING by the outputs' expressions."""
    for select in list(tree.find_all(exp.Select, exp.SetOperation)):
        outputs = select.selects
        named = {output.alias.lower(): output.this for output in outputs if isinstance(output, exp.Alias)}
        for clause in ("order", "group"):
            for key in select.args[clause].expressions if select.args.get(clause) else ():
                target = key.this if isinstance(key, exp.Ordered) else key
                position = output_of(target, outputs)
                if position is not None and not outputs[position].is_star:
                    target.replace(outputs[position].unalias().copy())
        for clause in ("having", "order"):
            if select.args.get(clause) is not None:
                for column in list(select.args[clause].find_all(exp.Column)):
                    if not column.table and column.name.lower() in named:
                        column.replace(named[column.name.lower()].copy())


def _resolve_tables(tree: exp.Expression) -> None:
    """Replace the aliases of tables by their names; a second use of a table in one query gets a number. In a query of
    one table, its columns have no prefix."""
    try:
        scopes = traverse_scope(tree) if isinstance(tree, exp.Query) else []
    except (SqlglotError, RecursionError):
        return  # the statement is compared as it is written
    for scope in scopes:
        names = _names_of_sources(scope)
        for column in scope.find_all(exp.Column):
            current: Scope | None = scope
            alias = column.table.lower()
            while alias and current is not None:
                found = _names_of_sources(current)
                if alias in found:
                    alone = current is scope and len(names) == 1
                    column.set("table", None if alone else exp.to_identifier(found[alias]))
                    break
                current = current.parent
    for scope in scopes:
        names = _names_of_sources(scope)
        for table in scope.tables:
            new = names.get(table.alias_or_name.lower())
            if new is None:
                continue
            numbered = exp.TableAlias(this=exp.to_identifier(new)) if new != table.name.lower() else None
            table.set("alias", numbered)


def _names_of_sources(scope: Scope) -> dict[str, str]:
    """alias -> name of each source of a scope, both in lower case."""
    cached = getattr(scope, "_canonical_names", None)
    if cached is not None:
        return cached
    names: dict[str, str] = {}
    uses: dict[str, int] = {}
    for alias, (node, _) in scope.selected_sources.items():
        name = node.name.lower() if isinstance(node, exp.Table) else alias.lower()
        uses[name] = uses.get(name, 0) + 1
        names[alias.lower()] = name if uses[name] == 1 else f"{name}_{uses[name]}"
    scope._canonical_names = names
    return names


# -- what has no order -----------------------------------------------------------------------------------------------


def _sort(node: exp.Expression, text: Callable[[exp.Expression], str]) -> None:
    """Sort the parts of one node whose order does not matter. The parts of its parts are sorted already."""
    if isinstance(node, (exp.And, exp.Or)) and type(node.parent) is not type(node):
        _sort_chain(node, text)
    elif isinstance(node, (exp.In, exp.Group)) and node.expressions:
        node.set("expressions", sorted(node.expressions, key=text))
    elif type(node) in _MIRRORED:
        node.replace(_MIRRORED[type(node)](this=node.expression, expression=node.this))
    elif isinstance(node, _COMMUTATIVE):
        left, right = sorted((node.this, node.expression), key=text)
        node.set("this", left)
        node.set("expression", right)
    elif isinstance(node, exp.Select):
        _sort_select(node, text)


def _sort_chain(node: exp.Expression, text: Callable[[exp.Expression], str]) -> None:
    kind = type(node)
    parts = sorted(node.flatten(unnest=False), key=text)
    first = parts[0]
    for part in parts[1:-1]:
        first = kind(this=first, expression=part)
    node.set("this", first)
    node.set("expression", parts[-1])


def _sort_select(select: exp.Select, text: Callable[[exp.Expression], str]) -> None:
    if not isinstance(select.parent, exp.SetOperation):  # there, outputs correspond by position
        select.set("expressions", sorted(select.expressions, key=text))
    joins = select.args.get("joins") or []
    source = select.args.get("from_")
    inner = all(
        not any(join.args.get(name) for name in ("side", "method", "using", "kind")) and join.args.get("on") is not None
        for join in joins
    )
    if not joins or source is None or not inner:
        return
    conditions = [join.args["on"] for join in joins]
    flat = [part for on in conditions for part in (on.flatten(unnest=False) if isinstance(on, exp.And) else [on])]
    tables = sorted([source.this, *(join.this for join in joins)], key=text)
    source.set("this", tables[0])
    ons = [exp.paren(part) if isinstance(part, exp.Or) else part for part in sorted(flat, key=text)]
    condition = ons[0]
    for part in ons[1:]:
        condition = exp.And(this=condition, expression=part)
    joins = [exp.Join(this=table) for table in tables[1:]]
    joins[-1].set("on", condition)
    select.set("joins", joins)
