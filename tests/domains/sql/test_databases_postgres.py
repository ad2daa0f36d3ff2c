"""PostgreSQL: its schema, results and errors, and that a statement can neither write nor run on. Needs the server."""

from __future__ import annotations

import sqlite3
import time

import pytest

from training.domains.sql.databases.execution import Executor, is_server
from training.domains.sql.databases.schema import ForeignKey

postgres_server = pytest.importorskip("tests.domains.sql.postgres_server", exc_type=ImportError)
pytestmark = pytest.mark.skipif(postgres_server.why_not() is not None, reason=str(postgres_server.why_not()))
SECONDS = 0.5

SETUP = """
CREATE TABLE city (id serial PRIMARY KEY, name text NOT NULL, area numeric(10, 2), old boolean, founded date,
    facts jsonb, picture bytea);
INSERT INTO city (name, area, old, founded, facts, picture) VALUES
    ('Oslo', 1.50, true, '1040-01-02', '{"a": [1, 2]}', '\\x00ff'), ('Bergen', 2, false, NULL, NULL, NULL),
    ('Oslo', 'NaN', NULL, NULL, NULL, NULL);
CREATE TABLE "Person" (a integer, b integer, city_id integer REFERENCES city, PRIMARY KEY (a, b));
CREATE VIEW names AS SELECT name FROM city;
CREATE SCHEMA hidden; CREATE TABLE hidden.secret (x integer);
ANALYZE
"""


@pytest.fixture(scope="module")
def server():
    with postgres_server.TemporaryServer() as made:
        made.execute(SETUP)
        yield made


@pytest.fixture(scope="module")
def executor():
    with Executor(SECONDS) as made:
        yield made


def test_the_schema_is_read(server):
    from training.domains.sql.databases.postgres import introspect_url

    schema = introspect_url(server.reader)
    assert schema.dialect == "postgres"
    assert [(table.name, table.rows) for table in schema.tables] == [("city", 3), ("Person", 0), ("names", 0)]
    assert schema.table("person").foreign_keys == (ForeignKey(("city_id",), "city", ("id",)),)
    city = {column.name: column for column in schema.table("city").columns}
    assert (city["area"].type, city["area"].samples) == ("numeric(10,2)", ("1.50", "2.00", "'NaN'"))
    assert (city["name"].not_null, city["name"].samples) == (True, ("'Oslo'", "'Bergen'"))
    assert city["old"].samples == ("false", "true")
    assert city["founded"].samples == ("'1040-01-02'",)
    assert city["picture"].samples == ()
    assert 'CREATE TABLE "Person"' in schema.ddl()


def test_a_superuser_is_refused(server, executor):
    from training.domains.sql.databases.postgres import introspect_url

    with pytest.raises(ValueError, match="superuser"):
        introspect_url(server.admin)
    assert executor.run(server.admin, "SELECT 1").error.startswith("refused: the role admin is a superuser")


def test_no_connection_is_a_reason_without_the_password(server):
    from training.domains.sql.databases.postgres import introspect_url

    with pytest.raises(ValueError, match="does not exist") as caught:
        introspect_url(server.reader.replace("reader@", "absent:geheim@"))
    assert "geheim" not in str(caught.value)


def test_values_arrive_as_plain_ones(server, executor):
    sql = "SELECT name, area, old, founded, facts, picture FROM city ORDER BY id LIMIT 2"
    result = executor.run(server.reader, sql)
    assert result.rows == (
        ("Oslo", 1.5, True, "1040-01-02", '{"a": [1, 2]}', b"\0\xff"),
        ("Bergen", 2, False, None, None, None),
    )
    assert result.columns == ("name", "area", "old", "founded", "facts", "picture")
    assert executor.run(server.reader, "SELECT 1 WHERE false;").rows == ()
    assert executor.run(server.reader, "SELECT 10::numeric ^ 500").rows == ((float("inf"),),)


@pytest.mark.parametrize(
    ("sql", "error"),
    [
        ("SELECT a FROM FROM city", "syntax error"),
        ("SELECT nope FROM city", 'column "nope" does not exist'),
        ("SELECT 1; DROP TABLE city", "refused: several statements"),
        ("SELECT 1; COMMIT; DELETE FROM city", "refused: several statements"),
        ("DELETE FROM city", "refused"),
        ("WITH d AS (DELETE FROM city RETURNING id) SELECT * FROM d", "refused"),
        ("SELECT name INTO taken FROM city", "SELECT ... INTO is not allowed"),
        ("SELECT * FROM city FOR UPDATE", "refused"),
        ("SELECT nextval('city_id_seq')", "refused"),
        ("SELECT set_config('transaction_read_only', 'off', false)", "transaction read-write mode"),
        ("COPY city TO PROGRAM 'true'", "refused"),
        ("DO $$ BEGIN DELETE FROM city; END $$", "refused"),
        ("SELECT pg_read_file('/etc/passwd')", "refused: permission denied"),
        ("SELECT lo_import('/etc/passwd')", "refused: permission denied"),
        ("SELECT generate_series(1, 1000000000)", ("too large", "timeout")),
        ("SELECT repeat('x', 1000000000)", ("too large", "timeout")),
        ("SELECT count(*) FROM generate_series(1, 10000000000)", "timeout"),
        ("SELECT pg_sleep(60)", "timeout"),
        ("SELECT set_config('statement_timeout', '0', false), pg_sleep(60)", "timeout"),
        ("WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT max(n) FROM r", "timeout"),
    ],
)
def test_attacks_are_refused_or_cut(server, executor, sql, error):
    began = time.monotonic()
    result = executor.run(server.reader, sql)
    assert time.monotonic() - began < 2 * SECONDS + 1 + 2
    assert result.rows is None
    assert result.error.startswith(error)
    assert server.execute("SELECT count(*) FROM city") == [(3,)]


def test_a_statement_cannot_switch_its_limit_off(server, executor):
    """The first rows switch it off; the next ones are fetched by a statement that then has none."""
    sql = (
        "SELECT set_config('statement_timeout', '0', false), "
        "CASE WHEN n > 600 THEN (SELECT count(*) FROM pg_sleep(60 + n)) END FROM generate_series(1, 700) AS n"
    )
    assert executor.run(server.reader, sql).error == f"timeout: stopped after {SECONDS:g} s"


def test_nothing_is_committed(server, executor):
    """PostgreSQL before version 16 makes large objects in read-only transactions."""
    executor.run(server.reader, "SELECT lo_from_bytea(0, 'x')")
    assert server.execute("SELECT count(*) FROM pg_largeobject_metadata") == [(0,)]


def test_a_session_ends_with_its_statement(server, executor):
    executor.run(server.reader, "SELECT set_config('search_path', 'hidden', false)")
    assert executor.run(server.reader, "SELECT count(*) FROM city").rows == ((3,),)
    deadline = time.monotonic() + 10
    while server.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = 'reader'") != [(0,)]:
        assert time.monotonic() < deadline, "a session of the reader is still open"


def test_both_kinds_of_database_in_one_run(server, executor, tmp_path):
    path = tmp_path / "a.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (x)")
    connection.close()
    assert is_server(server.reader) and not is_server(str(path))
    pairs = [(server.reader, "SELECT 1"), (str(path), "SELECT 2"), (server.reader, "SELECT 3")]
    assert [result.rows for result in executor.run_all(pairs)] == [((1,),), ((2,),), ((3,),)]
