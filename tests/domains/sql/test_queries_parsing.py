"""Parsing: one SELECT or a reason, SQLite's strings in double quotes, and what the rows are ordered by."""

from __future__ import annotations

import contextlib
import time

import pytest
from sqlglot import exp

from training.domains.sql.queries.parsing import order_columns, ordered, parse


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "select a from t;",
        "-- what\nSELECT a /* b; c */ FROM t; -- the end",
        "WITH q AS (SELECT a FROM t) SELECT * FROM q",
        "SELECT a FROM t UNION SELECT b FROM u ORDER BY 1",
        "(SELECT a FROM t)",
        "VALUES (1), (2)",
    ],
)
@pytest.mark.parametrize("dialect", ["sqlite", "postgres"])
def test_one_select_is_accepted(sql, dialect):
    query = parse(sql, dialect)
    assert (query.sql, query.dialect) == (sql, dialect)


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("", "no statement"),
        (" -- SELECT 1", "no statement"),
        ("SELECT 1; SELECT 2", "2 statements instead of one"),
        ("SELECT a\nFROM WHERE b", r"does not parse: .*; line 2, column 10 near 'WHERE'"),
        ("SELECT a FROM t WHERE (a = 1", "does not parse: .* line 1, column 28"),
        ("SELECT 'a FROM t", "does not parse"),
        ("I would write SELECT", "does not parse"),
        ("INSERT INTO t VALUES (1)", "INSERT is no SELECT"),
        ("WITH q AS (SELECT 1) DELETE FROM t", "DELETE is no SELECT"),
        ("DROP TABLE t", "DROP is no SELECT"),
        ("PRAGMA table_info(t)", "PRAGMA is no SELECT"),
        ("ATTACH 'x' AS y", "ATTACH is no SELECT"),
        ("EXPLAIN SELECT 1", "no SELECT"),
        ("SELECT " + "(" * 500 + "1" + ")" * 500, "nested too deeply"),
        ("SELECT " + " + ".join("1" * 5000), "nested too deeply"),
        ("SELECT '" + "x" * 60_000 + "'", "more than 50000"),
    ],
)
def test_what_is_no_single_select_is_refused_with_the_reason(sql, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        parse(sql, "sqlite")
    assert "\n" not in str(caught.value)
    assert "sqlglot" not in str(caught.value)
    assert "Token" not in str(caught.value)


@pytest.mark.parametrize("sql", ["SELECT a INTO u FROM t", "WITH d AS (DELETE FROM t RETURNING a) SELECT * FROM d"])
def test_a_select_that_writes_is_none(sql):
    with pytest.raises(ValueError, match="a SELECT that writes"):
        parse(sql, "postgres")
    assert parse(sql, "postgres", allow_writes=True)


def test_writes_are_accepted_where_they_are_allowed():
    for sql in ("INSERT INTO t VALUES (1)", "UPDATE t SET a = 1", "DELETE FROM t", "CREATE TABLE t (a INT)"):
        assert parse(sql, "postgres", allow_writes=True).sql == sql
    with pytest.raises(ValueError, match="PRAGMA is no SELECT"):
        parse("PRAGMA user_version = 1", "sqlite", allow_writes=True)


def strings(sql, dialect="sqlite"):
    return [node.this for node in parse(sql, dialect).tree.find_all(exp.Literal, bfs=False) if node.is_string]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ('SELECT a FROM t WHERE b = "Oslo"', ["Oslo"]),
        ('SELECT a FROM t WHERE b IN ("x", "y") AND c LIKE "%z" AND d BETWEEN "1" AND "2"', ["x", "y", "%z", "1", "2"]),
        ('SELECT strftime("%Y", d) FROM t', ["%Y"]),
        ('SELECT "b" FROM t WHERE "b" = \'x\' ORDER BY "b"', ["x"]),
        ('SELECT a FROM t JOIN u ON t.a = u."b c"', []),
        ("SELECT a FROM t WHERE b = `Oslo` AND c = [Oslo]", []),
    ],
)
def test_sqlite_has_strings_in_double_quotes(sql, expected):
    assert strings(sql) == expected


def test_postgres_has_none():
    assert strings('SELECT a FROM t WHERE b = "Oslo"', "postgres") == []


@pytest.mark.parametrize(
    ("sql", "is_ordered", "columns"),
    [
        ("SELECT a FROM t", False, None),
        ("SELECT a, b FROM t ORDER BY b", True, (1,)),
        ("SELECT a, b AS n FROM t ORDER BY n DESC, 1", True, (1, 0)),
        ("SELECT a, count(*) FROM t GROUP BY a ORDER BY count(*)", True, (1,)),
        ("SELECT t.a FROM t ORDER BY t.a", True, (0,)),
        ("SELECT a FROM t ORDER BY b", True, None),
        ("SELECT * FROM t ORDER BY b", True, None),
        ("SELECT a FROM t UNION SELECT b FROM u ORDER BY a", True, (0,)),
        ("SELECT a FROM (SELECT a FROM t ORDER BY a) AS q", False, None),
        ("SELECT rank() OVER (ORDER BY a) FROM t", False, None),
        ("(SELECT a FROM t ORDER BY a)", True, (0,)),
    ],
)
def test_the_order_of_the_outer_query(sql, is_ordered, columns):
    query = parse(sql, "sqlite")
    assert ordered(query) is is_ordered
    assert order_columns(query) == columns


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT " + "(" * 40,
        "SELECT " + "(a," * 40,
        "SELECT " + "NOT " * 5000 + "1",
        "SELECT " + "CASE WHEN " * 300,
        "SELECT " + "f(" * 60 + "1" + ")" * 60,
        "SELECT * FROM " + "(SELECT * FROM " * 40 + "t" + ") q" * 40,
        " UNION ".join(["SELECT 1"] * 3000),
        "SELECT '" * 3000,
    ],
    ids=lambda sql: sql[:14],
)
def test_what_a_broken_model_writes_takes_no_time(sql):
    began = time.process_time()
    with contextlib.suppress(ValueError):
        parse(sql, "sqlite")
    assert time.process_time() - began < 10  # not exponential; a slow host takes a second
