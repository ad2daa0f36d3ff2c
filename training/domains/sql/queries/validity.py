"""Check the tables and columns of a query against a schema, without executing it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator

from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.scope import Scope, traverse_scope

from training.domains.sql.databases.schema import Schema
from training.domains.sql.queries.parsing import Query, in_double_quotes

#: Columns that every table has, and tables that every database has.
_HIDDEN_COLUMNS = {
    "sqlite": {"rowid", "oid", "_rowid_"},
    "postgres": {"ctid", "oid", "tableoid", "xmin", "xmax", "cmin", "cmax"},
}
_SYSTEM_TABLES = {"sqlite": {"sqlite_master", "sqlite_schema"}, "postgres": set()}
_SYSTEM_SCHEMAS = {"information_schema", "pg_catalog"}


def check(query: Query, schema: Schema) -> None:
    """Raises ValueError for the first table or column of the query that the schema does not have, with the nearest
    name that it has. Of a statement that writes, the tables alone are checked."""
    scopes = _scopes(query)
    known = {table.name.lower(): table.name for table in schema.tables}
    for table in _tables(query, scopes):
        if table.name.lower() not in known and not _is_system(table, query.dialect):
            raise ValueError(f"unknown table {table.name}{_nearest(table.name, known.values())}")
    resolver = _Resolver(query, schema)
    for scope in scopes:
        for column in scope.find_all(exp.Column):
            resolver.check(column, scope)


def tables_of(query: Query, schema: Schema) -> frozenset[str]:
    """The tables of the schema that the query names, as the schema spells them. Raises ValueError as `check`."""
    known = {table.name.lower(): table.name for table in schema.tables}
    names = set()
    for table in _tables(query, _scopes(query)):
        if table.name.lower() in known:
            names.add(known[table.name.lower()])
        elif not _is_system(table, query.dialect):
            raise ValueError(f"unknown table {table.name}{_nearest(table.name, known.values())}")
    return frozenset(names)


def _scopes(query: Query) -> list[Scope]:
    if not isinstance(query.tree, exp.Query):
        return []
    try:
        return traverse_scope(query.tree)
    except SqlglotError as error:
        raise ValueError(str(error).splitlines()[0]) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _tables(query: Query, scopes: list[Scope]) -> Iterator[exp.Table]:
    """The tables of the database that the query reads: no common table expressions, no functions."""
    if scopes:
        for scope in scopes:
            for source in scope.sources.values():
                if isinstance(source, exp.Table) and isinstance(source.this, exp.Identifier):
                    yield source
        return
    defined = {cte.alias.lower() for cte in query.tree.find_all(exp.CTE)}
    for table in query.tree.find_all(exp.Table):
        if isinstance(table.this, exp.Identifier) and table.name.lower() not in defined:
            yield table


def _is_system(table: exp.Table, dialect: str) -> bool:
    return table.name.lower() in _SYSTEM_TABLES[dialect] or table.db.lower() in _SYSTEM_SCHEMAS or (
        dialect == "postgres" and table.name.lower().startswith("pg_")
    )  # fmt: skip


def _nearest(name: str, names: Iterable[str]) -> str:
    by_lower = {other.lower(): other for other in names}
    found = difflib.get_close_matches(name.lower(), sorted(by_lower), n=1)
    return f"; nearest: {by_lower[found[0]]}" if found else ""


class _Resolver:
    """Looks columns up in the tables, queries and names that are visible where they stand."""

    def __init__(self, query: Query, schema: Schema):
        self._query = query
        self._schema = schema

    def check(self, column: exp.Column, scope: Scope) -> None:
        """Raises ValueError if the column is not visible in the scope."""
        if isinstance(column.this, exp.Star):
            return
        name, table = column.name.lower(), column.table.lower()
        if self._is_output(column, scope):
            return
        visible: list[str] = []
        current: Scope | None = scope
        while current is not None:
            for alias, source in current.sources.items():
                if table and alias.lower() != table:
                    continue
                names = self._outputs(source)
                if names is None or name in {other.lower() for other in names}:
                    return
                if isinstance(source, exp.Table) and name in _HIDDEN_COLUMNS[self._query.dialect]:
                    return
                if not table and self._query.dialect == "postgres" and alias.lower() == name:
                    return  # the row as one value
                visible += names
            current = current.parent
        if self._is_string(column):
            return
        if table and not visible:
            raise ValueError(f"unknown table {column.table} of the column {column.table}.{column.name}")
        shown = f"{column.table}.{column.name}" if table else column.name
        raise ValueError(f"unknown column {shown}{_nearest(column.name, visible)}")

    def _is_output(self, column: exp.Column, scope: Scope) -> bool:
        """Whether the column is the name of an output: PostgreSQL permits it in ORDER BY and GROUP BY, SQLite anywhere
        but in the outputs."""
        if column.table:
            return False
        outputs = {output.alias.lower() for output in _selects(scope.expression) if isinstance(output, exp.Alias)}
        if isinstance(scope.expression, exp.SetOperation):
            outputs = {name.lower() for name in self._outputs(scope) or [column.name]}
        if column.name.lower() not in outputs:
            return False
        clauses = (exp.Order, exp.Group, exp.Where, exp.Having, exp.Join)
        if self._query.dialect == "postgres":
            clauses = (exp.Order, exp.Group)
        return column.find_ancestor(*clauses, exp.Query).__class__ in clauses

    def _outputs(self, source: exp.Table | Scope) -> list[str] | None:
        """The names of a source's columns; None where they are not known, as those of a function's result."""
        if isinstance(source, exp.Table):
            if not isinstance(source.this, exp.Identifier) or _is_system(source, self._query.dialect):
                return None
            renamed = source.alias_column_names
            names = [column.name for column in self._schema.table(source.name).columns]
            return renamed + names[len(renamed) :]
        if source.outer_columns:
            return list(source.outer_columns)
        expression = source.expression
        if not isinstance(expression, exp.Query):
            return None
        names = []
        for output in _selects(expression):
            if not output.is_star:
                names.append(output.alias_or_name)
                continue
            left = _left_scope(source)
            for alias, inner in left.sources.items():
                # a recursive query's own rows: what they hold is decided by the first part
                if isinstance(output, exp.Column) and output.table.lower() != alias.lower():
                    continue
                more = None if inner is source else self._outputs(inner)
                if more is None:
                    return None
                names += more
        return names

    def _is_string(self, column: exp.Column) -> bool:
        """Whether SQLite takes an unknown name in double quotes for a string, and its place is not a column's: an
        output, a key, the left side of a comparison, an aggregate's argument."""
        if self._query.dialect != "sqlite" or not in_double_quotes(column, self._query.sql):
            return False
        parent = column.parent
        places = (exp.Select, exp.Alias, exp.Ordered, exp.Group, exp.Predicate, exp.AggFunc, exp.Distinct, exp.Tuple)
        return not isinstance(parent, places)


def _selects(expression: exp.Expression) -> list[exp.Expression]:
    return expression.selects if isinstance(expression, exp.Query) else []


def _left_scope(scope: Scope) -> Scope:
    while scope.set_operation_scopes:
        scope = scope.set_operation_scopes[0]
    return scope
