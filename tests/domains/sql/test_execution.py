"""The executor: results as the engine returns them, errors by kind, order, golds that change with time."""

from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path

import pytest

from training.domains.sql.databases.child import MAX_ROWS
from training.domains.sql.databases.execution import Executor, deterministic


def database(path, script):
    connection = sqlite3.connect(path)
    connection.executescript(script)
    connection.close()
    return str(path)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return database(
        tmp_path_factory.mktemp("databases") / "shop.sqlite",
        "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, price REAL);"
        "INSERT INTO item VALUES (1, 'apple', 1.5), (2, 'pear', NULL), (3, 'fig', 2.0);",
    )


@pytest.fixture(scope="module")
def executor():
    with Executor(2.0) as made:
        yield made


def test_values_arrive_as_the_engine_has_them(executor, tmp_path):
    path = database(tmp_path / "values.sqlite", "CREATE TABLE v (x)")
    numbers = [None, 0, -1, 2**63 - 1, -(2**63), 0.1, 1.0, 1e300, float("inf")]
    values = [*numbers, "", "a\nb\t\x01", "Ærø €𝄞", b"\0\xff\n", b""]
    connection = sqlite3.connect(path)
    connection.executemany("INSERT INTO v VALUES (?)", [(value,) for value in values])
    connection.execute("INSERT INTO v VALUES (CAST(x'41ff42' AS TEXT))")  # not UTF-8
    connection.commit()
    connection.close()
    result = executor.run(path, "SELECT x FROM v ORDER BY rowid")
    assert [row[0] for row in result.rows] == [*values, "A\ufffdB"]
    assert [type(row[0]) for row in result.rows] == [*map(type, values), str]
    assert result.columns == ("x",)
    assert result.error is None
    assert 0 < result.seconds < 2


def test_no_rows_are_no_error(executor, shop):
    result = executor.run(shop, "SELECT id, name AS n FROM item WHERE id = 9")
    assert (result.rows, result.columns, result.error) == ((), ("id", "n"), None)


@pytest.mark.parametrize(
    ("sql", "error"),
    [
        ("SELECT nme FROM item", "no such column: nme"),
        ("SELECT name FROM itm", "no such table: itm"),
        ("SELECT nope(name) FROM item", "no such function: nope"),
        ("SELECT name FROM FROM item", 'syntax error near "FROM"'),
        ("SELECT name FROM item WHERE", "syntax error: incomplete input"),
        ("SELECT name FROM item WHERE name = 'x", "syntax error: unrecognized token"),
        ("SELECT abs(-9223372036854775807 - 1)", "integer overflow"),
    ],
)
def test_an_error_is_the_engines(executor, shop, sql, error):
    result = executor.run(shop, sql)
    assert result.rows is None
    assert result.error.startswith(error)


def test_the_number_of_rows_is_limited(executor, shop):
    counted = "WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r WHERE x < {}) SELECT x FROM r"
    assert len(executor.run(shop, counted.format(MAX_ROWS)).rows) == MAX_ROWS
    assert executor.run(shop, counted.format(MAX_ROWS + 1)).error == f"too large: more than {MAX_ROWS} rows"


def test_results_are_in_the_order_of_the_statements(shop):
    endless = "WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r) SELECT count(*) FROM r"
    statements = [f"SELECT {number}" for number in range(40)]
    statements[3] = statements[17] = endless
    with Executor(0.2, workers=2) as two:
        results = two.run_all([(shop, sql) for sql in statements])
    for number, result in enumerate(results):
        if number in (3, 17):
            assert result.error.startswith("timeout")
        else:
            assert result.rows == ((number,),)


def test_a_process_that_crashes_costs_its_statement_alone(shop):
    endless = "WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r) SELECT count(*) FROM r"
    with Executor(20.0) as one:
        one.run(shop, "SELECT 1")
        timer = threading.Timer(0.2, os.kill, [one._children[0]._process.pid, 9])
        timer.start()
        first, second = one.run_all([(shop, endless), (shop, "SELECT 2")])
        timer.join()
    assert first.error == "crashed: the process ended with code -9"
    assert second.rows == ((2,),)


def test_a_database_that_was_replaced_is_read_again(executor, tmp_path):
    path = database(tmp_path / "a.sqlite", "CREATE TABLE t (x); INSERT INTO t VALUES ('old')")
    assert executor.run(path, "SELECT x FROM t").rows == (("old",),)
    other = database(tmp_path / "b.sqlite", "CREATE TABLE t (x); INSERT INTO t VALUES ('new')")
    Path(other).replace(path)
    assert executor.run(path, "SELECT x FROM t").rows == (("new",),)


def test_many_databases_are_used_in_turn(executor, tmp_path):
    paths = [
        database(tmp_path / f"a {n}?#%.sqlite", f"CREATE TABLE t (x); INSERT INTO t VALUES ({n})") for n in range(12)
    ]
    results = executor.run_all([(path, "SELECT x FROM t") for path in paths + paths[::-1]])
    assert [result.rows[0][0] for result in results] == [*range(12), *range(11, -1, -1)]


def test_a_file_that_is_no_database_is_an_error(executor, tmp_path):
    (tmp_path / "text.sqlite").write_text("not a database" * 100)
    assert "not a database" in executor.run(str(tmp_path / "text.sqlite"), "SELECT 1 FROM t").error
    assert executor.run(str(tmp_path / "absent.sqlite"), "SELECT 1").error
    assert not (tmp_path / "absent.sqlite").exists()
    with pytest.raises(ValueError, match="absolute"):
        executor.run("text.sqlite", "SELECT 1")


@pytest.mark.parametrize(
    ("sql", "function"),
    [
        ("SELECT random()", "random()"),
        ("SELECT name FROM t ORDER BY RANDOM() LIMIT 1", "random()"),
        ("SELECT now()", "now()"),
        ("SELECT * FROM t WHERE d > CURRENT_DATE", "CURRENT_DATE"),
        ("SELECT * FROM t WHERE d > current_timestamp - interval '1 day'", "CURRENT_TIMESTAMP"),
        ("SELECT date('now', '-1 day')", "date('now')"),
        ("SELECT strftime('%Y', 'NOW') - strftime('%Y', born) FROM t", "strftime('now')"),
        ("SELECT datetime()", "datetime()"),
        ("SELECT gen_random_uuid()", "gen_random_uuid()"),
        ("SELECT 'today'::date", "'today'"),
        ("SELECT * FROM t TABLESAMPLE SYSTEM (10)", "TABLESAMPLE"),
        ("SELECT date(born), strftime('%Y', born) FROM t", None),
        ("SELECT random FROM t -- random()", None),
        ("SELECT 'random()', \"now()\" FROM t /* now() */", None),
        ("SELECT t.current_date FROM t", None),
        ("SELECT x FROM t WHERE word = 'now'", None),
        ("SELECT brandom(x) FROM t", None),
    ],
)
def test_golds_that_depend_on_the_moment_are_found(sql, function):
    assert deterministic(sql) == function
