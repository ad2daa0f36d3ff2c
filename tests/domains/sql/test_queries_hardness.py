"""Spider's levels of hardness, and the clauses of a query. The expected levels were also computed with the benchmark's
own evaluation.py, except where a comment says otherwise."""

from __future__ import annotations

import pytest

from training.domains.sql.queries.hardness import clauses, hardness
from training.domains.sql.queries.parsing import parse

LEVELS = {
    "SELECT count(*) FROM cars_data WHERE cylinders > 4": "easy",
    "SELECT name FROM t": "easy",
    "SELECT max(a) FROM t": "easy",
    "SELECT name FROM t ORDER BY a": "easy",
    "SELECT name, a FROM t": "medium",
    "SELECT max(a), min(a) FROM t": "medium",
    "SELECT name FROM t WHERE a = 1 AND b = 2": "medium",
    "SELECT name FROM t WHERE a = 1 OR b = 2": "medium",
    "SELECT name FROM t WHERE a LIKE '%x%'": "medium",
    "SELECT name FROM t ORDER BY a LIMIT 1": "medium",
    "SELECT T1.name FROM t AS T1 JOIN u AS T2 ON T1.i = T2.i WHERE T2.a = 1": "medium",
    "SELECT T2.name, count(*) FROM concert AS T1 JOIN stadium AS T2 ON T1.stadium_id = T2.stadium_id "
    "GROUP BY T1.stadium_id": "medium",
    "SELECT a FROM t WHERE a > (SELECT avg(a) FROM t)": "hard",
    "SELECT a FROM t UNION SELECT a FROM u": "hard",
    "SELECT a FROM t EXCEPT SELECT a FROM u WHERE b = 1 AND c = 2": "hard",
    "SELECT T1.name FROM t AS T1 JOIN u AS T2 ON T1.i = T2.i ORDER BY T2.a DESC LIMIT 1": "hard",
    "SELECT name, a FROM t WHERE a LIKE '%x%' OR b LIKE '%y%'": "extra",
    "SELECT name FROM t WHERE a NOT IN (SELECT a FROM u)": "hard",
    "SELECT avg(life) FROM country WHERE name NOT IN (SELECT T1.name FROM country AS T1 JOIN language AS T2 "
    "ON T1.code = T2.code WHERE T2.language = 'English' AND T2.official = 'T')": "extra",
    "SELECT T1.name FROM t AS T1 JOIN u AS T2 ON T1.i = T2.i GROUP BY T1.i ORDER BY count(*) DESC LIMIT 1": "extra",
    "SELECT name FROM t WHERE a = 1 UNION SELECT name FROM t WHERE a = 2": "hard",
    "SELECT name, b FROM t WHERE a = 1 UNION SELECT name, b FROM t WHERE a = 2": "extra",
}


@pytest.mark.parametrize("sql", LEVELS)
def test_a_query_has_its_level_of_the_benchmark(sql):
    assert hardness(parse(sql, "sqlite")) == LEVELS[sql]


def test_a_write_has_the_highest_level():
    assert hardness(parse("DELETE FROM t", "postgres", allow_writes=True)) == "extra"


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT a FROM t", ""),
        ("SELECT DISTINCT a FROM t WHERE b = 1 ORDER BY a LIMIT 1", "distinct where order limit"),
        ("SELECT count(DISTINCT a) FROM t", "distinct aggregate"),
        ("SELECT a, count(*) FROM t JOIN u ON t.i = u.i GROUP BY a HAVING count(*) > 1", "aggregate join group having"),
        ("SELECT a FROM t UNION ALL SELECT a FROM u", "set"),
        ("SELECT a FROM t UNION SELECT a FROM u", "set"),
        ("SELECT a FROM t WHERE b IN (SELECT b FROM u)", "where nested"),
        ("SELECT a FROM (SELECT a FROM t) AS q", "nested"),
        ("WITH q AS (SELECT a FROM t) SELECT a FROM q", "nested"),
        ("SELECT rank() OVER (ORDER BY a) FROM t", ""),
        ("SELECT a FROM t, u", "join"),
    ],
)
def test_the_clauses_of_a_query(sql, expected):
    assert clauses(parse(sql, "sqlite")) == set(expected.split())


def test_the_limit_of_the_standard_is_one():
    assert clauses(parse("SELECT a FROM t FETCH FIRST 3 ROWS ONLY", "postgres")) == {"limit"}
