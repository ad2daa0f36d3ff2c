"""Tables and columns against a schema: what SQLite and PostgreSQL accept is accepted, unknown names are found."""

from __future__ import annotations

import sqlite3

import pytest

from training.domains.sql.databases.schema import Schema
from training.domains.sql.queries.parsing import parse
from training.domains.sql.queries.validity import check, tables_of

TEXT = """
CREATE TABLE city (id INTEGER PRIMARY KEY, name TEXT, country TEXT, "order date" TEXT);
CREATE TABLE person (id INTEGER PRIMARY KEY, name TEXT, age INTEGER, city_id INTEGER REFERENCES city (id),
    boss_id INTEGER REFERENCES person (id));
"""
SQLITE, POSTGRES = Schema.from_ddl(TEXT, "sqlite"), Schema.from_ddl(TEXT, "postgres")
#: Statement -> the tables it reads.
VALID = {
    "SELECT T1.Name FROM Person AS T1 JOIN CITY T2 ON T1.city_id = T2.id ORDER BY T1.age": "city person",
    "SELECT c.name FROM city c WHERE \"order date\" > '2020' AND [order date] < '2021'": "city",
    'SELECT name FROM city WHERE country = "Norway"': "city",
    'SELECT CASE WHEN age > 3 THEN "old" ELSE "young" END FROM person': "person",
    'SELECT strftime("%Y", "order date") FROM city': "city",
    "SELECT rowid, _rowid_ FROM city": "city",
    "SELECT country, count(*) AS n FROM city WHERE n IS NULL GROUP BY 1 HAVING n > 1 ORDER BY n DESC": None,
    "SELECT country, count(*) AS n FROM city GROUP BY country HAVING n > 1 ORDER BY n DESC": "city",
    "SELECT name FROM person p WHERE EXISTS (SELECT 1 FROM city WHERE id = p.city_id AND country = 'x')": "city person",
    "SELECT name FROM person WHERE age > (SELECT avg(age) FROM person AS q WHERE q.city_id = person.city_id)": "person",
    "WITH q AS (SELECT city_id, avg(age) AS m FROM person GROUP BY 1) "
    "SELECT c.name, m FROM q JOIN city c ON c.id = q.city_id": "city person",
    "WITH q(a, b) AS (SELECT id, name FROM city) SELECT a, q.b FROM q": "city",
    "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT n FROM r": "",
    "WITH RECURSIVE r AS (SELECT id, boss_id FROM person UNION ALL SELECT p.id, r.boss_id FROM person p "
    "JOIN r ON p.id = r.id) SELECT boss_id FROM r LIMIT 1": "person",
    "WITH city AS (SELECT id AS number FROM person) SELECT number FROM city": "person",
    "SELECT q.n FROM (SELECT name AS n, age FROM person) AS q WHERE q.age > 1": "person",
    "SELECT q.age FROM (SELECT * FROM person) AS q": "person",
    "SELECT q.country FROM (SELECT p.*, c.* FROM person p JOIN city c ON c.id = p.city_id) AS q": "city person",
    "SELECT name FROM person UNION SELECT name FROM city ORDER BY name": "city person",
    "SELECT a.name, b.name FROM person a, person b WHERE a.boss_id = b.id": "person",
    "SELECT name, rank() OVER (PARTITION BY city_id ORDER BY age DESC) AS r FROM person ORDER BY r": "person",
    "SELECT value FROM json_each('[1]')": "",
    "SELECT name FROM sqlite_master": "",
    "SELECT main.city.name FROM main.city": "city",
    "SELECT person.id FROM person JOIN city USING (id)": "city person",
    "SELECT DISTINCT name FROM person NATURAL JOIN city": None,
    "SELECT 1": "",
}  # fmt: skip
INVALID = {
    "SELECT nme FROM city": "unknown column nme; nearest: name",
    'SELECT "nme" FROM city': "unknown column nme; nearest: name",
    "SELECT name FROM city WHERE \"cuontry\" = 'x'": "unknown column cuontry; nearest: country",
    "SELECT name FROM ctiy": "unknown table ctiy; nearest: city",
    "SELECT c.nam FROM city AS c": "unknown column c.nam; nearest: name",
    "SELECT x.name FROM city": "unknown table x of the column x.name",
    "SELECT city.name FROM city AS c": "unknown table city of the column city.name",
    "SELECT name FROM city WHERE id IN (SELECT city FROM person)": "unknown column city; nearest: city_id",
    "SELECT q.age FROM (SELECT name FROM person) AS q": "unknown column q.age",
    "SELECT age FROM city ORDER BY name": "unknown column age",
    "SELECT name FROM city ORDER BY age": "unknown column age",
    "SELECT name FROM city GROUP BY agee": "unknown column agee",
    "WITH q(a) AS (SELECT id FROM city) SELECT id FROM q": "unknown column id",
    "SELECT name FROM person UNION SELECT nme FROM city": "unknown column nme",
    "SELECT avg(salary) FROM person": "unknown column salary",
    "SELECT city.name FROM city JOIN person ON city.id = person.town_id": "unknown column person.town_id",
}


@pytest.fixture(scope="module")
def connection():
    made = sqlite3.connect(":memory:")
    made.executescript(TEXT)
    yield made
    made.close()


@pytest.mark.parametrize("sql", VALID)
def test_what_sqlite_accepts_is_accepted(connection, sql):
    if VALID[sql] is not None:  # None: other rules of SQLite forbid it
        connection.execute(sql)
        assert tables_of(parse(sql, "sqlite"), SQLITE) == set(VALID[sql].split())
    check(parse(sql, "sqlite"), SQLITE)


@pytest.mark.parametrize("sql", INVALID)
def test_an_unknown_name_is_found_with_the_nearest(connection, sql):
    with pytest.raises(ValueError) as caught:
        check(parse(sql, "sqlite"), SQLITE)
    assert str(caught.value).startswith(INVALID[sql])
    if '"' not in sql:  # SQLite takes those for strings
        with pytest.raises(sqlite3.OperationalError, match="no such"):
            connection.execute(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT c.name FROM public.city c",
        "SELECT row_to_json(c), c.ctid FROM city c",
        "SELECT extract(year FROM now()), age::text, interval '1 day' FROM person",
        "SELECT g.n, n FROM generate_series(1, 3) AS g(n)",
        "SELECT DISTINCT ON (country) country, name FROM city ORDER BY country, name",
        "SELECT count(*) FILTER (WHERE age > 3) FROM person FETCH FIRST 3 ROWS ONLY",
        "SELECT table_name FROM information_schema.tables",
        "SELECT relname FROM pg_class",
        "SELECT c.name, q.m FROM city c CROSS JOIN LATERAL (SELECT max(age) m FROM person WHERE city_id = c.id) q",
        "SELECT country AS n, count(*) FROM city GROUP BY n ORDER BY n",
        "SELECT v.a FROM (VALUES (1, 'x')) AS v(a, b)",
        "SELECT date_trunc('month', \"order date\"::date) FROM city",
    ],
)
def test_what_postgres_accepts_is_accepted(sql):
    check(parse(sql, "postgres"), POSTGRES)


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("SELECT name AS n FROM city WHERE n = 'a'", "unknown column n"),
        ('SELECT name FROM city WHERE country = "Norway"', "unknown column Norway"),
        ("SELECT rowid FROM city", "unknown column rowid"),
    ],
)
def test_postgres_is_stricter_than_sqlite(sql, reason):
    check(parse(sql, "sqlite"), SQLITE)
    with pytest.raises(ValueError, match=reason):
        check(parse(sql, "postgres"), POSTGRES)


def test_the_tables_of_a_write_are_checked():
    check(parse("DELETE FROM city WHERE id = 1", "postgres", allow_writes=True), POSTGRES)
    with pytest.raises(ValueError, match="unknown table towns"):
        check(parse("INSERT INTO towns SELECT * FROM city", "postgres", allow_writes=True), POSTGRES)
