"""What a statement written by a model can try: each is refused or cut in time, and the database file stays as it is."""

from __future__ import annotations

import hashlib
import os
import select
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from training.domains.sql.databases.child import MAX_SQL
from training.domains.sql.databases.execution import Executor
from training.workspace import PROJECT

SECONDS = 0.25
LATEST = 2 * SECONDS + 1 + 2  # the parent's limit, and two seconds for a loaded machine

ENDLESS = "WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r)"
REFUSED = {
    "attach": "ATTACH '{folder}/other.sqlite' AS other",
    "attach after a comment": "/* SELECT */ ATTACH '{folder}/other.sqlite' AS other",
    "detach": "DETACH main",
    "pragma that writes": "PRAGMA user_version = 7",
    "pragma of the journal": "PRAGMA journal_mode = WAL",
    "writable schema": "PRAGMA writable_schema = ON",
    "pragma as a table": "SELECT * FROM pragma_table_info('t')",
    "pragma as a table, counted": "SELECT count(*) FROM pragma_database_list",
    "load_extension": "SELECT load_extension('{folder}/evil.so')",
    "load_extension in VALUES": "VALUES (load_extension('{folder}/evil.so'))",
    "load_extension in a view": "SELECT * FROM evil_view",
    "fts3_tokenizer": "SELECT fts3_tokenizer('simple', x'4141414141414141')",
    "zeroblob": "SELECT zeroblob(1000000000)",
    "randomblob": "SELECT randomblob(1000000000)",
    "random": "SELECT a FROM t ORDER BY random()",
    "state of the library": "SELECT sqlite_compileoption_get(1)",
    "pages of the file": "SELECT * FROM dbstat",
    "statements of the connection": "SELECT * FROM sqlite_stmt",
    "several statements": "SELECT 1; DROP TABLE t",
    "several queries": "SELECT 1; SELECT 2",
    "insert": "INSERT INTO t VALUES (9, 'z')",
    "insert of a query": "WITH q AS (SELECT 1) INSERT INTO t SELECT 9, 'z' FROM q",
    "replace": "REPLACE INTO t VALUES (1, 'z')",
    "update": "UPDATE t SET b = 'z'",
    "update of the schema": "UPDATE sqlite_master SET sql = ''",
    "delete": "DELETE FROM t",
    "delete behind a query": "WITH q AS (SELECT 1) DELETE FROM t",
    "drop": "DROP TABLE t",
    "create": "CREATE TABLE u (a)",
    "create of a temporary table": "CREATE TEMP TABLE u AS SELECT * FROM t",
    "alter": "ALTER TABLE t ADD COLUMN c",
    "vacuum": "VACUUM",
    "vacuum into a file": "VACUUM INTO '{folder}/copy.sqlite'",
    "reindex": "REINDEX",
    "analyze": "ANALYZE",
    "transaction": "BEGIN EXCLUSIVE",
    "savepoint": "SAVEPOINT s",
    "explain": "EXPLAIN SELECT * FROM t",
    "nothing": " -- SELECT 1",
    "many comments": "/**/" * 5000 + "1",
    "null character": "SELECT 1\0; DROP TABLE t",
    "half a surrogate pair": "SELECT '\ud800'",
    "too long": "SELECT " + "1," * (MAX_SQL // 2) + "1",
}
#: Statements that SQLite's own limits stop: the begin of the error.
LIMITED = {
    "writefile": ("SELECT writefile('{folder}/written', 'x')", "no such function"),
    "readfile": ("SELECT readfile('/etc/passwd')", "no such function"),
    "rows without end": (f"{ENDLESS} SELECT x FROM r", "too large"),
    "a value that doubles": ("SELECT " + "replace(" * 12 + "'aaaaaaaa'" + ",'a','aaaaaaaa')" * 12, "too large"),
    "one text of all rows": (f"{ENDLESS} SELECT group_concat(hex(x)) FROM r", ("too large", "timeout")),
    "many columns of text": ("SELECT " + ",".join(["printf('%.*c', 1000000, 'x')"] * 12), "too large"),
    "a sort of everything": (f"{ENDLESS} SELECT x FROM r ORDER BY x * 7 % 1000", ("timeout", "too large")),
    "nested parentheses": ("SELECT " + "(" * 3000 + "1" + ")" * 3000, ("syntax", "Expression tree", "parser stack")),
    "nested calls": ("SELECT " + "abs(" * 900 + "1" + ")" * 900, ("Expression tree", "parser stack")),
    "many queries": (" UNION ALL ".join(["SELECT 1"] * 600), "too many terms"),
    "a parameter": ("SELECT ?", "too many SQL variables"),
    "a long pattern": ("SELECT '" + "a" * 4000 + "' LIKE '" + "%a" * 2000 + "b'", "LIKE or GLOB pattern too complex"),
}
#: Statements that take too long: the progress handler, the limit of processor time or the parent ends them.
ENDLESS_ONES = {
    "recursion": f"{ENDLESS} SELECT count(*) FROM r",
    "recursion without rows": f"{ENDLESS} SELECT x FROM r WHERE x < 0",
    "cross join": "SELECT count(*) FROM big a, big b, big c, big d",
    "nested loops in conditions": "SELECT a FROM big x WHERE a < (SELECT count(*) FROM big y, big z WHERE y.a <> x.a)",
    "one step: a search": "SELECT instr(printf('%.*c', 9000000, 'a'), printf('%.*c', 4500000, 'a') || 'b')",
    "one step: a format": "SELECT " + " + ".join(["length(printf('%.*c', 100000000, 'x'))"] * 20),
    "few steps, each long": "SELECT sum(length(replace(printf('%.*c', 9000000, 'a'), 'a', substr(a, 1, 1)))) FROM big",
}  # fmt: skip


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    path = tmp_path_factory.mktemp("attacked") / "a.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript(
        "CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT); INSERT INTO t VALUES (1, 'x'), (2, 'y');"
        "CREATE TABLE big (a INTEGER); CREATE VIEW v AS SELECT b FROM t;"
        "CREATE VIEW evil_view AS SELECT load_extension('evil.so') AS x;"
    )
    connection.executemany("INSERT INTO big VALUES (?)", [(number,) for number in range(2000)])
    connection.commit()
    connection.close()
    return path


@pytest.fixture(scope="module")
def executor():
    with Executor(SECONDS) as made:
        yield made


@pytest.fixture
def attack(database, executor):
    """Executes a statement; afterwards the folder is what it was, and the limit of time was kept."""

    def state():
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in database.parent.iterdir()}

    def run(sql):
        before, began = state(), time.monotonic()
        result = executor.run(str(database), sql.replace("{folder}", str(database.parent)))
        assert time.monotonic() - began < LATEST
        assert state() == before
        assert result.rows is None
        return result.error

    yield run
    assert executor.run(str(database), "SELECT count(*) FROM t").rows == ((2,),)


def child_of(executor):
    return executor._children[0]._process.pid


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_single_select_is_refused(attack, name):
    assert attack(REFUSED[name]).startswith("refused: ")


@pytest.mark.parametrize("name", LIMITED)
def test_what_is_too_large_is_cut(attack, name):
    sql, expected = LIMITED[name]
    assert attack(sql).startswith(expected)


@pytest.mark.parametrize("name", ENDLESS_ONES)
def test_what_takes_too_long_is_stopped(attack, name):
    assert attack(ENDLESS_ONES[name]).startswith("timeout: ")


def test_a_long_statement_costs_no_process(executor, database):
    """SQLite stops at the limit alone: the parent kills only where one step takes long."""
    executor.run(str(database), "SELECT 1")
    first = child_of(executor)
    for name in ("recursion", "cross join"):
        result = executor.run(str(database), ENDLESS_ONES[name])
        assert result.error == f"timeout: stopped after {SECONDS:g} s"
    assert child_of(executor) == first


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT name FROM sqlite_master WHERE type = 'table'",
        "SELECT count(*) FROM sqlite_schema",
        "SELECT * FROM v",
        "SELECT rowid, a FROM t",
        "-- a comment\nSELECT 1;",
        "/* a comment */ WITH q AS (SELECT a FROM t) SELECT count(*) FROM q",
        "WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r WHERE x < 9) SELECT x FROM r",
        "SELECT value FROM json_each('[1, 2]')",
        "SELECT b, rank() OVER (ORDER BY a DESC) FROM t",
        "SELECT printf('%.2f', avg(a)), group_concat(b, ';'), strftime('%Y', '2020-01-02') FROM t",
        "SELECT b || 'INSERT INTO t; DROP TABLE t' FROM t WHERE b LIKE '%x%' AND a BETWEEN 0 AND 9",
        "VALUES (1, 2), (3, 4)",
    ],
)
def test_queries_are_not_refused(executor, database, sql):
    result = executor.run(str(database), sql)
    assert result.error is None
    assert result.rows


def test_the_process_is_locked(executor, database, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "a secret")
    with Executor(SECONDS) as other:
        other.run(str(database), "SELECT 1")
        process = f"/proc/{child_of(other)}"
        lines = Path(process, "limits").read_text().splitlines()
        limits = {line[:25].strip(): line[26:47].strip() for line in lines}
        environment = Path(process, "environ").read_text()
    assert limits["Max file size"] == limits["Max processes"] == limits["Max core file size"] == "0"
    assert int(limits["Max address space"]) < 2**30
    assert int(limits["Max cpu time"]) < 10
    assert "secret" not in environment


def test_a_process_that_was_killed_is_replaced(executor, database):
    executor.run(str(database), "SELECT 1")
    first = child_of(executor)
    os.kill(first, signal.SIGKILL)
    os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
    assert executor.run(str(database), "SELECT 1").rows == ((1,),)
    assert child_of(executor) != first


def test_the_parent_kills_a_process_that_does_not_answer(executor, database):
    executor.run(str(database), "SELECT 1")
    first = child_of(executor)
    os.kill(first, signal.SIGSTOP)  # it can neither look at the clock nor use processor time
    assert executor.run(str(database), "SELECT 1").error.startswith("timeout: killed")
    assert not Path(f"/proc/{first}").exists()
    assert executor.run(str(database), "SELECT 1").rows == ((1,),)


def test_a_process_does_not_outlive_its_parent(database):
    program = (
        "import os, sys\n"
        "from training.domains.sql.databases.execution import Executor\n"
        "executor = Executor(1)\n"
        f"executor.run({str(database)!r}, 'SELECT 1')\n"
        "print(executor._children[0]._process.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program], cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    ended = os.pidfd_open(int(parent.stdout.readline()))
    parent.kill()
    parent.communicate()
    assert select.select([ended], [], [], 10)[0]
    os.close(ended)
