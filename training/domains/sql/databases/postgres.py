"""The schema and sample values of a PostgreSQL database, read over a connection that cannot write."""

from __future__ import annotations

import psycopg
from psycopg import sql

from training.domains.sql.databases.schema import Column, ForeignKey, Schema, Table
from training.domains.sql.databases.sqlite import SAMPLED_ROWS, SAMPLES, literal

_SECONDS = 60  # limit of one statement of the introspection
_UNQUOTED = ("smallint", "integer", "bigint", "numeric", "real", "double precision", "boolean")

_TABLES = """
SELECT c.oid, n.nspname, c.relname, c.relkind, greatest(c.reltuples, 0)::bigint
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ANY (current_schemas(false)) AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
  AND has_table_privilege(c.oid, 'SELECT') AND pg_table_is_visible(c.oid)
ORDER BY c.oid"""
_COLUMNS = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
       coalesce(a.attnum = ANY (i.indkey), false)
FROM pg_attribute a LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum"""
_FOREIGN_KEYS = """
SELECT array(SELECT attname::text FROM unnest(k.conkey) WITH ORDINALITY AS part(number, place)
             JOIN pg_attribute ON attrelid = k.conrelid AND attnum = part.number ORDER BY place),
       k.confrelid,
       array(SELECT attname::text FROM unnest(k.confkey) WITH ORDINALITY AS part(number, place)
             JOIN pg_attribute ON attrelid = k.confrelid AND attnum = part.number ORDER BY place)
FROM pg_constraint k WHERE k.conrelid = %s AND k.contype = 'f' AND k.conparentid = 0
ORDER BY k.oid"""


def introspect_url(url: str) -> Schema:
    """The tables and views on the search path of the database at `url` that its role may read, with sample values.

    The number of rows is the server's estimate. Raises ValueError with the reason: no connection, a role that is a
    superuser (it may read and write the server's files), no tables. The reason never holds the URL's password.
    """
    try:
        with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
            if connection.info.parameter_status("is_superuser") == "on":
                raise ValueError(
                    f"the role {connection.info.user} is a superuser; create one that may only SELECT: CREATE ROLE "
                    "reader LOGIN; GRANT pg_read_all_data TO reader"
                )
            connection.execute(f"SET statement_timeout = '{_SECONDS}s'; BEGIN READ ONLY")
            tables = _tables(connection)
    except psycopg.Error as error:
        raise ValueError(f"PostgreSQL: {' '.join(str(error).split())}") from None
    if not tables:
        raise ValueError("the role may read no tables on its search path")
    return Schema("postgres", tables)


def _tables(connection: psycopg.Connection) -> tuple[Table, ...]:
    found = connection.execute(_TABLES).fetchall()
    names = {oid: name for oid, _, name, _, _ in found}
    tables = []
    for oid, namespace, name, kind, rows in found:
        columns = tuple(
            Column(column, kind_of, primary, not_null, _samples(connection, namespace, name, column, kind, kind_of))
            for column, kind_of, not_null, primary in connection.execute(_COLUMNS, [oid]).fetchall()
        )
        keys = tuple(
            ForeignKey(tuple(own), names[target], tuple(theirs))
            for own, target, theirs in connection.execute(_FOREIGN_KEYS, [oid]).fetchall()
            if target in names
        )
        tables.append(Table(name, columns, keys, rows))
    return tuple(tables)


def _samples(
    connection: psycopg.Connection, namespace: str, table: str, column: str, kind: str, type_name: str
) -> tuple[str, ...]:
    """The most frequent values among the first rows. Of a view none: it may take long."""
    if kind == "v" or type_name == "bytea":
        return ()
    query = sql.SQL(
        "SELECT v::text FROM (SELECT {column} AS v FROM {table} LIMIT {rows}) part WHERE v IS NOT NULL "
        "AND v::text <> '' GROUP BY v::text ORDER BY count(*) DESC, v::text LIMIT {samples}"
    ).format(
        column=sql.Identifier(column),
        table=sql.Identifier(namespace, table),
        rows=sql.Literal(SAMPLED_ROWS),
        samples=sql.Literal(SAMPLES),
    )
    return tuple(dict.fromkeys(_literal(value, type_name) for (value,) in connection.execute(query).fetchall()))


def _literal(text: str, type_name: str) -> str:
    """A value as a SQL literal. Numbers and booleans need no quotes; NaN and infinity do."""
    if type_name.startswith(_UNQUOTED) and text not in ("NaN", "Infinity", "-Infinity"):
        return text
    return literal(text)
