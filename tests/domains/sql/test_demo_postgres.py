"""The demo in PostgreSQL's dialect, on a real server: its idioms mean what their equivalents in SQLite mean, and its
questions are judged by executing them there."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from tests.domains.sql.postgres_server import TemporaryServer, why_not
from training import cli
from training.domain import Job
from training.domains.sql.databases.compare import same_rows
from training.domains.sql.databases.execution import Executor
from training.domains.sql.demo import idioms, schemas
from training.domains.sql.demo.drafts import World
from training.domains.sql.demo.filling import fill, write_database
from training.domains.sql.demo.making import make_demo
from training.domains.sql.demo.phrases import Speaker
from training.domains.sql.demo.scope import SCOPES
from training.domains.sql.text_to_sql.generate import Answer
from training.domains.sql.text_to_sql.judging import Judge
from training.registry import load_recipe
from training.stages.splits import load_split
from training.workspace import Workspace

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
SEED = 42


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The folder of a job, whose demo questions are for PostgreSQL."""
    root = tmp_path_factory.mktemp("demo")
    return root, make_demo(Job(Workspace(root), {"dialect": "postgres", "questions": 60}, SEED, 1, lambda _: None))


@pytest.fixture(scope="module")
def server(demo):
    """A server with the databases of the demo, each made by its script."""
    with TemporaryServer() as made:
        for path in sorted((demo[0] / "data/demo/postgres").glob("*.sql")):
            made.execute(f"CREATE DATABASE {path.stem}")
            with psycopg.connect(_url(made.admin, path.stem), autocommit=True) as connection:
                connection.execute(path.read_text(encoding="utf-8"))
        yield made


def _url(server: str, database: str) -> str:
    return urlunsplit(urlsplit(server)._replace(path=f"/{database}"))


@pytest.mark.parametrize("kind", list(idioms.DRAFTS))
def test_an_idiom_gives_the_rows_of_its_equivalent(server, tmp_path, kind):
    draw, compared = random.Random(kind), 0
    with Executor(5.0) as executor:
        for subject in SCOPES["short"].databases(schemas.parts(SEED)["train"]):
            content, path = fill(subject, SEED), tmp_path / f"{subject.name}.sqlite"
            write_database(path, subject, content)
            draft = idioms.DRAFTS[kind](World(subject, Speaker(draw, False, frozenset(), content), draw))
            if draft is None:
                continue
            theirs = executor.run(_url(server.reader, subject.name), draft.sql)
            with closing(sqlite3.connect(path)) as database:
                ours = executor.run(str(path), draft.sqlite)
                assert ours.rows is not None, database.execute(draft.sqlite)
            assert theirs.rows and same_rows(ours, theirs, False), (draft.sql, theirs.error)
            compared += 1
    assert compared >= 5


def test_its_questions_are_judged_by_executing_them_on_the_server(demo, server, tmp_path):
    _, files = demo
    words = [word for split in ("train", "val", "test") for word in (f"--{split}", str(files[split]))]
    place = _url(server.reader, "")
    out = tmp_path / "out"
    assert cli.main(["prepare", "--domain", "sql", *words, "--database-url", place, "--out", str(out)]) == 0
    assert not (out / "data/manifests/quarantine.jsonl").read_text(encoding="utf-8")
    rows = load_split(load_recipe("text_to_sql", "debug"), Workspace(out), "val")
    assert {row.values["judged"] for row in rows} == {"execution"} and rows[0].values["dialect"] == "postgres"
    golds = [Answer((), True, row.values["sql"]) for row in rows]
    with Judge(rows, tmp_path / "copies", 5, 5.0, SEED) as judge:
        assert all(outcome.right for outcome in judge.judge(golds))
        shifted = judge.judge([*golds[1:], golds[0]])
        assert sum(bool(outcome.right) for outcome in shifted) <= 1
