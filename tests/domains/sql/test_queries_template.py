"""Templates and canonical texts: equal where the form or the meaning is the same, and only there."""

from __future__ import annotations

import pytest

from training.domains.sql.queries.conditions import Condition, conditions
from training.domains.sql.queries.parsing import parse
from training.domains.sql.queries.template import canonical, template


def of(function, sql, dialect="sqlite"):
    return function(parse(sql, dialect))


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("select Name from City where Country = 'x' limit 3", "SELECT x FROM x WHERE x = ? LIMIT ?"),
        ("SELECT a AS n, 1 FROM t GROUP BY 1 ORDER BY n DESC", "SELECT x, ? FROM x GROUP BY x ORDER BY x DESC"),
        ("SELECT a FROM t WHERE b IN (1, 2, 3)", "SELECT x FROM x WHERE x IN (?)"),
        ("SELECT a FROM t WHERE b > -1.5 -- why", "SELECT x FROM x WHERE x > ?"),
        ('SELECT a FROM t WHERE b = "x"', "SELECT x FROM x WHERE x = ?"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dialect", ["sqlite", "postgres"])
def test_a_template_has_no_names_and_no_literals(sql, expected, dialect):
    if dialect == "sqlite" or '"' not in sql:
        assert of(template, sql, dialect) == expected


#: Pairs that mean the same, and that exact set match therefore takes for equal.
SAME = [
    (
        "SELECT T1.name, T1.age FROM person AS T1 JOIN city AS T2 ON T1.city_id = T2.id "
        "WHERE T2.name = 'Oslo' AND T1.age > 3",
        "select p.age, p.name from city c inner join person p on c.id = p.city_id where 3 < p.age and c.name = 'Oslo';",
    ),
    ("SELECT name FROM city", "SELECT city.name FROM city"),
    ("SELECT name AS n FROM city ORDER BY n", "SELECT c.name FROM city AS c ORDER BY 1 ASC"),
    ("SELECT a FROM t WHERE b = 1 OR c = 2 OR d = 3", "SELECT a FROM t WHERE (d = 3 OR b = 1) OR c = 2"),
    ("SELECT a FROM t WHERE b IN (1, 2) AND c <> 3", "SELECT a FROM t WHERE 3 != c AND (b IN (2, 1))"),
    ("SELECT a, count(*) AS n FROM t GROUP BY a, b HAVING n > 1",
     "SELECT count(*), a FROM t GROUP BY b, 2 HAVING COUNT(*) > 1"),
    ('SELECT a FROM t WHERE b = "x"', "SELECT a FROM T WHERE B = 'x'"),
    ("SELECT a.x FROM t a, t b WHERE a.i = b.j", "SELECT t1.x FROM t AS t1, t AS t2 WHERE t2.j = t1.i"),
    ("SELECT a FROM t WHERE b IN (SELECT x.c FROM u x)", "SELECT a FROM t WHERE b IN (SELECT c FROM u)"),
    ("SELECT a FROM t WHERE b >= 2", "SELECT a FROM t WHERE 2 <= b"),
]  # fmt: skip
#: Pairs that differ.
DIFFERENT = [
    ("SELECT a FROM t", "SELECT DISTINCT a FROM t"),
    ("SELECT a FROM t WHERE b = 'x'", "SELECT a FROM t WHERE b = 'X'"),
    ("SELECT a FROM t WHERE b < 2", "SELECT a FROM t WHERE b > 2"),
    ("SELECT a FROM t WHERE b - c = 2", "SELECT a FROM t WHERE c - b = 2"),
    ("SELECT a FROM t ORDER BY b, c", "SELECT a FROM t ORDER BY c, b"),
    ("SELECT a FROM t ORDER BY b", "SELECT a FROM t ORDER BY b DESC"),
    ("SELECT a FROM t LIMIT 1", "SELECT a FROM t LIMIT 2"),
    ("SELECT a FROM t EXCEPT SELECT a FROM u", "SELECT a FROM u EXCEPT SELECT a FROM t"),
    ("SELECT a, b FROM t UNION SELECT c, d FROM u", "SELECT b, a FROM t UNION SELECT c, d FROM u"),
    ("SELECT t.a FROM t LEFT JOIN u ON t.i = u.i", "SELECT t.a FROM u LEFT JOIN t ON t.i = u.i"),
    ("SELECT t.a FROM t LEFT JOIN u ON t.i = u.i", "SELECT t.a FROM t JOIN u ON t.i = u.i"),
    ("SELECT a FROM t WHERE (b = 1 OR c = 2) AND d = 3", "SELECT a FROM t WHERE b = 1 OR c = 2 AND d = 3"),
    ("SELECT a.x FROM t a JOIN t b ON a.i = b.j", "SELECT b.x FROM t a JOIN t b ON a.i = b.j"),
    ("SELECT (a + b) * c FROM t", "SELECT a + b * c FROM t"),
    ("SELECT a FROM t WHERE NOT b = 1", "SELECT a FROM t WHERE b = 1"),
    ("SELECT count(a) FROM t", "SELECT count(DISTINCT a) FROM t"),
    ("SELECT a FROM t UNION SELECT a FROM u", "SELECT a FROM t UNION ALL SELECT a FROM u"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_canonical_texts_of_the_same_query_are_equal(one, other):
    assert of(canonical, one) == of(canonical, other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_canonical_texts_of_different_queries_differ(one, other):
    assert of(canonical, one) != of(canonical, other)


@pytest.mark.parametrize("sql", sorted({sql for pair in SAME + DIFFERENT for sql in pair}))
def test_a_canonical_text_is_its_own_and_leaves_the_query_as_it_is(sql):
    query = parse(sql, "sqlite")
    before = query.tree.sql("sqlite")
    text = canonical(query)
    template(query)
    assert query.tree.sql("sqlite") == before
    assert of(canonical, text) == text


def test_templates_differ_where_the_form_does():
    forms = [
        "SELECT a FROM t",
        "SELECT a, b FROM t",
        "SELECT count(a) FROM t",
        "SELECT sum(a) FROM t",
        "SELECT DISTINCT a FROM t",
        "SELECT a FROM t WHERE b = 1",
        "SELECT a FROM t WHERE b > 1",
        "SELECT a FROM t WHERE b = 1 AND c = 2",
        "SELECT a FROM t WHERE b = 1 OR c = 2",
        "SELECT a FROM t ORDER BY b",
        "SELECT a FROM t ORDER BY b DESC",
        "SELECT t.a FROM t JOIN u ON t.i = u.i",
        "SELECT t.a FROM t LEFT JOIN u ON t.i = u.i",
        "SELECT a FROM t WHERE b IN (SELECT c FROM u)",
        "SELECT a FROM t WHERE NOT b IN (SELECT c FROM u)",
    ]
    assert len({of(template, sql) for sql in forms}) == len(forms)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        (
            "SELECT p.a FROM person p JOIN city c ON p.c = c.i WHERE c.Name = 'Oslo' AND p.age BETWEEN 3 AND -4",
            [({"city"}, "name", "=", ("Oslo",)), ({"person"}, "age", "between", (3, -4))],
        ),
        ("SELECT a FROM t WHERE 5 < b", [({"t"}, "b", ">", (5,))]),
        ("SELECT a FROM t WHERE strftime('%Y', d) = '2020'", [({"t"}, "d", "=", ("2020",))]),
        ("SELECT a FROM t WHERE b IN ('x', 'y')", [({"t"}, "b", "=", ("x", "y"))]),
        ("SELECT a FROM t WHERE c LIKE '%z'", [({"t"}, "c", "like", ("%z",))]),
        ("SELECT a FROM t GROUP BY a HAVING count(b) > 3", []),
        ("SELECT a FROM t WHERE b > (SELECT avg(b) FROM t)", []),
    ],
)  # fmt: skip
def test_conditions_are_what_columns_are_compared_with(sql, expected):
    found = sorted(of(conditions, sql), key=lambda condition: condition.column)
    wanted = [Condition(frozenset(tables), column, kind, values) for tables, column, kind, values in expected]
    assert found == sorted(wanted, key=lambda condition: condition.column)
