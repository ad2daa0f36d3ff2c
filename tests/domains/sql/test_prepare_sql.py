"""`prepare` on real files: manifests, quarantine with places and reasons, splits, refusals, and repeated runs."""

import json
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from tests.domains.sql.postgres_server import TemporaryServer, why_not
from training.data import manifest
from training.data.encode import encode_all
from training.data.identity import leaking_ids
from training.data.rows import Row
from training.domain import Job, Request
from training.domains.sql.databases.sqlite import DATABASE
from training.domains.sql.domain import SQL
from training.domains.sql.prepare import prepare
from training.domains.sql.rows import SCHEMA
from training.errors import DataError, UsageError
from training.workspace import Workspace

TABLES = """
CREATE TABLE team (id INTEGER PRIMARY KEY, name TEXT, city TEXT);
CREATE TABLE player (id INTEGER PRIMARY KEY, name TEXT, age INTEGER, team_id INTEGER REFERENCES team (id));
INSERT INTO team VALUES (1, 'Reds', 'Oslo'), (2, 'Blues', 'Bergen');
INSERT INTO player VALUES (1, 'Ann', 20, 1), (2, 'Bob', 31, 1), (3, 'Cid', 25, 2);
"""
#: Good questions of different forms; {n} makes them distinct.
QUESTIONS = (
    ("How many players are older than {n}?", "SELECT COUNT(*) FROM player WHERE age > {n}"),
    ("Names of players younger than {n}?", "SELECT name FROM player WHERE age < {n}"),
    ("The {n} oldest players?", "SELECT name FROM player ORDER BY age DESC LIMIT {n}"),
    ("Cities with {n} teams?", "SELECT city FROM team GROUP BY city HAVING COUNT(*) = {n}"),
)


def database(path: Path, script: str = TABLES) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    return path


def questions(count: int, databases: int = 1) -> list[dict]:
    """`count` good ones, about d0, d1 ... in turn."""
    rows = []
    for number in range(count):
        text, sql = QUESTIONS[number // databases % len(QUESTIONS)]
        rows.append({"question": text.format(n=number), "sql": sql.format(n=number), "db_id": f"d{number % databases}"})
    return rows


def jsonl(path: Path, rows: list) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def job(root: Path, say=lambda _: None, **options) -> Job:
    return Job(Workspace(root / "out"), {"val_split": 0.2, **options}, 42, 1, say)


def run(root: Path, rows: list | None = None, files: int = 1, **options):
    if rows is not None:
        for number in range(files):
            database(root / f"dbs/d{number}.sqlite")
        options |= {"train": jsonl(root / "q.jsonl", rows), "databases": root / "dbs"}
    messages = []
    summary = prepare(job(root, messages.append, **options))
    summary.output = "\n".join(messages)
    return summary


def written(root: Path, split: str) -> list[dict]:
    path = root / f"out/data/manifests/text_to_sql_{split}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def loaded(root: Path, splits) -> dict[str, Sequence[Row]]:
    """The manifests as a training loads them."""
    folder = root / "out/data/manifests"
    paths = {split: folder / f"text_to_sql_{split}.jsonl" for split in splits}
    rows = {split: manifest.load(path, SCHEMA, path_keys=("database_path",)) for split, path in paths.items()}
    cache = Workspace(root / "out").cache
    return {split: encode_all(of, {"database_path": DATABASE}, cache, 1)[0] for split, of in rows.items()}


def quarantine(root: Path) -> dict[str, str]:
    """Place -> reason."""
    lines = (root / "out/data/manifests/quarantine.jsonl").read_text().splitlines()
    return {item["place"] or item["path"]: item["reason"] for item in map(json.loads, lines)}


def contents(folder: Path) -> dict[Path, tuple[bytes, int]]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path: (path.read_bytes(), path.stat().st_ino) for path in files}


# -- what is written --------------------------------------------------------------------------------------------------


def test_the_demo_becomes_manifests_that_load_and_a_second_run_changes_nothing(tmp_path):
    options = dict(SQL.demo(job(tmp_path, questions=60)))
    summary = run(tmp_path, **options)
    assert summary.questions == {"train": 60, "val": 16, "test": 16} and not summary.quarantined
    assert summary.synthetic and summary.split_by == "database" and summary.empty == 0
    assert set(summary.strata["val"]) == {"new wording", "new composition"}
    assert "synthetic: true" in summary.output and "no database is on both sides" in summary.output
    row = written(tmp_path, "val")[0]
    assert row["id"] == "val.jsonl:1" and row["group"] == row["database"] and row["judged"] == "execution"
    assert Path(row["database_path"]).is_file() and row["wording"].startswith(row["kind"] + "/")
    folder = tmp_path / "out/data/manifests"
    rows = loaded(tmp_path, summary.questions)
    assert {split: len(of) for split, of in rows.items()} == summary.questions
    assert leaking_ids(rows) == []
    stored = json.loads((folder / "summary.json").read_text())
    assert (
        stored["digest"] == summary.digest
        and sum(of["questions"]["train"] for of in stored["databases"].values()) == 60
    )
    before = contents(tmp_path / "out/data")
    again = run(tmp_path, **options)
    assert again.up_to_date and again.digest == summary.digest and contents(tmp_path / "out/data") == before


def test_questions_are_held_out_by_database_where_there_are_five(tmp_path):
    summary = run(tmp_path, questions(60, 6), files=6)
    assert summary.split_by == "database" and summary.questions == {"train": 50, "val": 10}
    sides = {split: {row["database"] for row in written(tmp_path, split)} for split in ("train", "val")}
    assert len(sides["val"]) == 1 and not sides["train"] & sides["val"]
    assert summary.strata == {"val": {"new database": 10}}
    table = {row["alike"]: row["count"] for row in summary.leakage}
    assert table == {"question": 0, "SQL": 0, "template": 10, "database": 0}
    assert run(tmp_path, questions(60, 6), files=0).digest == summary.digest


def test_questions_are_held_out_by_template_where_there_are_fewer_databases(tmp_path):
    summary = run(tmp_path, questions(60, 2), files=2)
    assert summary.split_by == "template"
    sides = {split: {row["template"] for row in written(tmp_path, split)} for split in ("train", "val")}
    assert len(sides["val"]) == 1 and not sides["train"] & sides["val"]
    for row in written(tmp_path, "val"):
        assert row["stratum"] == "new template" and row["group"] == row["template"]


def test_files_of_held_out_questions_may_share_databases_but_no_question(tmp_path):
    val = jsonl(tmp_path / "val.jsonl", questions(8)[4:])
    test = jsonl(tmp_path / "test.jsonl", questions(12)[8:])
    summary = run(tmp_path, questions(4), val=val, test=test)
    assert summary.questions == {"train": 4, "val": 4, "test": 4} and summary.split_by == "files"
    assert {row["stratum"] for row in written(tmp_path, "test")} == {"seen template"}
    assert [row["count"] for row in summary.leakage if row["alike"] == "database"] == [4, 4]
    assert leaking_ids(loaded(tmp_path, summary.questions)) == []
    double = questions(8)[2] | {"question": "the 2  OLDEST players?"}
    with pytest.raises(DataError, match=r"q.jsonl:3 \(train\) and val.jsonl:2 \(val\)"):
        run(tmp_path, questions(4), val=jsonl(tmp_path / "val.jsonl", [questions(8)[5], double]))


def test_questions_with_a_schema_alone_are_judged_by_text_and_still_executed(tmp_path):
    schema = TABLES.strip()
    rows = [
        {"messages": [{"role": "user", "content": f"Database: club\nSchema:\n{schema}\nQuestion: {one['question']}"},
                      {"role": "assistant", "content": one["sql"]}]}
        for one in questions(30)
    ]  # fmt: skip
    rows.append({"question": "Which?", "sql": "SELECT no_such(age) FROM player", "schema": schema})
    summary = run(tmp_path, train=jsonl(tmp_path / "seed.jsonl", rows))
    assert summary.by_text == 30 and "judged by text" in summary.output
    assert "no such function" in quarantine(tmp_path)["seed.jsonl:31"]
    row = written(tmp_path, "train")[0]
    assert (row["database"], row["judged"]) == ("club", "text")
    assert sqlite3.connect(row["database_path"]).execute("SELECT COUNT(*) FROM player").fetchall() == [(0,)]
    assert list(summary.databases) == ["club"] and summary.databases["club"]["rows"] == 0


# -- what is refused --------------------------------------------------------------------------------------------------

ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n"
BAD = {  # SQL -> a part of the reason
    "SELEC name FROM player": "does not parse",
    "SELECT name FROM player WHERE (": "does not parse",
    "SELECT name FROM playr": "unknown table playr; nearest: player",
    "SELECT nam FROM player": "unknown column nam; nearest: name",
    "SELECT 1; SELECT 2": "2 statements instead of one",
    "DELETE FROM player": "DELETE is no SELECT statement",
    "SELECT name FROM player ORDER BY random()": "its result changes from run to run: random()",
    "SELECT no_such(age) FROM player": "does not execute: no such function",
    ENDLESS: "does not execute: timeout",
}


@pytest.fixture
def quick_timeout(monkeypatch):
    monkeypatch.setattr("training.domains.sql.prepare.SECONDS", 0.3)


def test_questions_that_cannot_be_used_are_quarantined_with_line_and_reason(tmp_path, quick_timeout):
    good = questions(120)
    bad = [{"question": f"Bad {number}?", "sql": sql, "db_id": "d0"} for number, sql in enumerate(BAD)]
    others = [
        {"question": "Whose?", "sql": "SELECT name FROM player", "db_id": "d00"},
        {"question": "Whose?", "sql": "SELECT name FROM player", "db_id": "damaged"},
        {"question": "Same?", "sql": "SELECT MIN(age) FROM player", "db_id": "d0"},
        {"question": "same?", "sql": "SELECT MAX(age) FROM player", "db_id": "d0"},
        {"about": "?"},
    ]
    equal = [good[0], {"question": "Equal?", "sql": "SELECT COUNT(*) FROM team", "db_id": "d0"},
             {"question": "Equal?", "sql": "SELECT COUNT(id) FROM team", "db_id": "d0"}]  # fmt: skip
    (tmp_path / "dbs").mkdir()
    (tmp_path / "dbs/damaged.sqlite").write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    summary = run(tmp_path, [*good, *bad, *others, *equal])
    reasons = quarantine(tmp_path)
    for line, reason in enumerate(BAD.values(), 121):
        assert reason in reasons.pop(f"q.jsonl:{line}"), line
    line = 121 + len(BAD)
    assert "there is no database d00 in the folder of --databases; nearest: d0" in reasons.pop(f"q.jsonl:{line}")
    assert "database damaged: " in reasons.pop(f"q.jsonl:{line + 1}")
    assert f"other SQL in q.jsonl:{line + 3}" in reasons.pop(f"q.jsonl:{line + 2}")
    assert f"other SQL in q.jsonl:{line + 2}" in reasons.pop(f"q.jsonl:{line + 3}")
    assert "no question" in reasons.pop(f"q.jsonl:{line + 4}")
    assert [Path(path).name for path in reasons] == ["damaged.sqlite"]
    assert summary.doubles == 2  # the same again, and other SQL with the same rows
    assert sum(summary.questions.values()) == 121 and summary.read == 120 + len(BAD) + 8
    assert summary.reasons["over time"] == 1 and summary.reasons["contradictory"] == 2
    assert "contradictory" in summary.output and "2 questions left out: equal to another one" in summary.output


def test_statements_that_write_are_kept_on_request_and_never_executed(tmp_path):
    writes = [{"question": f"Delete {n}", "sql": f"DELETE FROM player WHERE id = {n}", "db_id": "d0"} for n in range(3)]
    summary = run(tmp_path, [*questions(30), *writes], allow_writes=True)
    assert summary.by_text == 3 and not summary.quarantined
    with closing(sqlite3.connect(tmp_path / "dbs/d0.sqlite")) as connection:
        assert connection.execute("SELECT COUNT(*) FROM player").fetchall() == [(3,)]


def test_a_question_about_a_virtual_table_is_refused_as_such_and_others_of_its_database_are_used(tmp_path):
    path = database(tmp_path / "dbs/d0.sqlite", TABLES + "CREATE VIRTUAL TABLE box USING rtree(id, x0, x1);")
    rows = [*questions(8), {"question": "Which?", "sql": "SELECT id FROM box WHERE x0 > 1", "db_id": "d0"},
            {"question": "Whose?", "sql": "SELECT 1", "db_id": "D0"}]  # fmt: skip
    run(tmp_path, train=jsonl(tmp_path / "q.jsonl", rows), databases=path.parent)
    reasons = quarantine(tmp_path)
    assert "a virtual table (FTS5, R-tree, pragma_...) is not read" in reasons.pop("q.jsonl:9")
    assert "nearest: d0" in reasons.pop("q.jsonl:10") and not reasons


def test_too_many_bad_questions_are_refused_and_listed(tmp_path):
    rows = [*questions(8), *({"question": f"{n}?", "sql": "SELECT x FROM player", "db_id": "d0"} for n in range(3))]
    with pytest.raises(DataError, match=r"3 of 11 questions cannot be used(?s:.*)q\.jsonl:9 and 2 more: unknown"):
        run(tmp_path, rows)
    assert len(quarantine(tmp_path)) == 3
    assert not (tmp_path / "out/data/manifests/summary.json").exists()


@pytest.mark.parametrize(("options", "message"), [
    ({"train": None}, "--train is needed"),
    ({"val_split": 1.0}, "between 0 and 1; it is 1"),
    ({"dialect": "postgres", "databases": "x"}, "--dialect postgres needs --database-url"),
    ({"database_url": "postgresql://h/d", "databases": "x"}, "Both --databases and --database-url"),
    ({"database_url": "postgresql://h/d", "dialect": "sqlite"}, "does not fit --database-url"),
    ({"database_url": "postgresql://u:secret@h/d"}, "holds a password"),
    ({"database_url": "postgresql://u@h/d?password=secret"}, "holds a password"),
    ({"database_url": "mysql://h/d"}, "begins with postgresql://"),
])  # fmt: skip
def test_options_that_cannot_be_meant_are_refused_without_showing_a_password(tmp_path, options, message):
    train = jsonl(tmp_path / "q.jsonl", questions(4))
    with pytest.raises(UsageError, match=message) as caught:
        prepare(job(tmp_path, **{"train": train, **options}))
    assert "secret" not in str(caught.value)
    if "val_split" not in options and "train" not in options:
        with pytest.raises(UsageError, match=message):  # before anything is started
            SQL.arrange(Request({"train": train, **options}, ("text_to_sql",)))


def test_databases_without_questions_and_an_empty_folder_are_refused(tmp_path):
    with pytest.raises(UsageError, match="--databases needs --train"):
        SQL.arrange(Request({"databases": tmp_path}, ("text_to_sql",)))
    assert SQL.given({"databases": tmp_path}) and not SQL.given({"base": tmp_path})
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no database: <id>\.sqlite"):
        prepare(job(tmp_path, train=jsonl(tmp_path / "q.jsonl", questions(4)), databases=tmp_path / "empty"))
    findings = list(SQL.checks(job(tmp_path, databases=tmp_path / "empty")))
    assert [finding.state for finding in findings] == ["fails"]
    database(tmp_path / "dbs/d0.sqlite")
    database(tmp_path / "spider/database/d0/d0.sqlite")
    with pytest.raises(DataError, match=r"There are some in .*/spider/database: name that folder"):
        prepare(job(tmp_path, train=jsonl(tmp_path / "q.jsonl", questions(4)), databases=tmp_path / "spider"))
    assert [finding.state for finding in SQL.checks(job(tmp_path, databases=tmp_path / "dbs"))] == ["ok"]
    assert SQL.store_bytes(job(tmp_path, databases=tmp_path / "dbs")) > 1_000


# -- PostgreSQL -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_questions_about_a_postgresql_database_are_executed_there(tmp_path):
    rows = [{key: row[key] for key in ("question", "sql")} for row in questions(40)]
    rows.append({"question": "Case?", "sql": "SELECT name FROM player WHERE name ILIKE 'a%' LIMIT 1"})
    rows.append({"question": "Elsewhere?", "sql": "SELECT 1", "db_id": "other"})
    rows.append({"question": "Divided?", "sql": "SELECT 1 / (id - id) FROM player"})
    with TemporaryServer() as server:
        server.execute(TABLES)
        summary = run(tmp_path, train=jsonl(tmp_path / "q.jsonl", rows), database_url=server.reader)
        row = written(tmp_path, "train")[0]
        assert (row["dialect"], row["database"], row["database_url"]) == ("postgres", "postgres", server.reader)
        assert summary.dialect == "postgres" and summary.databases["postgres"]["tables"] == 2
        assert Path(row["database_path"]).name == "postgres.schema.json"
        reasons = quarantine(tmp_path)
        assert "its database is other, and that of --database-url is postgres" in reasons["q.jsonl:42"]
        assert "division by zero" in reasons["q.jsonl:43"] and len(reasons) == 2
        assert Counter(row["judged"] for row in written(tmp_path, "val")).keys() == {"execution"}
