"""The demo: its databases, its golds, and that its held-out questions cannot be answered by copying."""

import json
import re
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from training.domain import Job
from training.domains.sql.databases.execution import deterministic
from training.domains.sql.databases.schema import Schema
from training.domains.sql.databases.sqlite import introspect
from training.domains.sql.demo import schemas
from training.domains.sql.demo.composed_wordings import COMPOSITIONS
from training.domains.sql.demo.idioms import IDIOMS
from training.domains.sql.demo.making import make_demo
from training.domains.sql.demo.scope import SCOPES
from training.domains.sql.demo.subjects_leisure import LEISURE
from training.domains.sql.demo.subjects_work import WORK
from training.domains.sql.demo.wordings import KINDS
from training.domains.sql.domain import SQL
from training.domains.sql.queries.parsing import parse
from training.domains.sql.queries.template import template
from training.domains.sql.queries.validity import check
from training.errors import UsageError
from training.workspace import Workspace

HELD_OUT = ("val", "test")
MOST_CHARACTERS = 1_200  # of the CREATE TABLE statements with samples, so that a prompt has at most 350 tokens or so


@dataclass
class Demo:
    options: dict
    rows: dict[str, list[dict]]
    schemas: dict[str, Schema]

    def file(self, row: dict) -> Path:
        return self.options["databases"] / f"{row['db_id']}.sqlite"

    @property
    def every(self) -> list[dict]:
        return [row for of in self.rows.values() for row in of]


def job(root: Path, seed: int = 42, **options) -> Job:
    return Job(Workspace(root), options, seed, 1, lambda _: None)


def made(root: Path, seed: int = 42, **options) -> Demo:
    found = dict(make_demo(job(root, seed, **options)))
    rows = {
        split: [json.loads(line) for line in found[split].read_text().splitlines()] for split in ("train", *HELD_OUT)
    }
    return Demo(found, rows, {path.stem: introspect(path) for path in sorted(found["databases"].glob("*.sqlite"))})


def executed(path: Path, sql: str) -> list[tuple]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute(sql).fetchall()


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Demo:
    return made(tmp_path_factory.mktemp("demo"), scope="full")


@pytest.fixture(scope="module")
def other_seed(tmp_path_factory) -> Demo:
    return made(tmp_path_factory.mktemp("other"), seed=7, questions=60, scope="full")


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> Demo:
    """As it is made without a choice."""
    return made(tmp_path_factory.mktemp("short"))


# -- databases --------------------------------------------------------------------------------------------------------


def test_databases_are_small_varied_and_consistent(demo):
    assert len(demo.schemas) == len(WORK) + len(LEISURE) >= 14
    for name, schema in demo.schemas.items():
        assert 2 <= len(schema.tables) <= 5, name
        assert all(20 <= table.rows <= 200 for table in schema.tables), name
        assert any(table.foreign_keys for table in schema.tables), name
        with closing(sqlite3.connect(demo.options["databases"] / f"{name}.sqlite")) as database:
            assert database.execute("PRAGMA foreign_key_check").fetchall() == [], name
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)], name


def test_schemas_with_samples_are_short_enough_for_a_prompt(demo):
    lengths = {name: len(schema.ddl()) for name, schema in demo.schemas.items()}
    assert max(lengths.values()) <= MOST_CHARACTERS, lengths


def test_names_of_rows_are_unique_so_that_a_question_can_name_one(demo):
    for subject in (*WORK, *LEISURE):
        for table in subject.tables:
            if table.label:
                path = demo.options["databases"] / f"{subject.name}.sqlite"
                count, names = executed(path, f"SELECT COUNT(*), COUNT(DISTINCT {table.label.name}) FROM {table.name}")[
                    0
                ]
                assert count == names, (subject.name, table.name)


# -- golds ------------------------------------------------------------------------------------------------------------


def test_every_gold_fits_its_schema_executes_and_gives_rows(demo, other_seed, short):
    for of in (demo, other_seed, short):
        for row in of.every:
            check(parse(row["sql"], "sqlite"), of.schemas[row["db_id"]])
            assert deterministic(row["sql"]) is None
            rows = executed(of.file(row), row["sql"])
            assert rows and rows[0] not in ((0,), (None,)), row


def test_a_limit_never_cuts_between_equal_rows(demo):
    """Otherwise several answers would be right, and the gold's rows would be chance."""
    limited = [row for row in demo.every if " LIMIT " in row["sql"]]
    assert len(limited) > 20
    for row in limited:
        body, _, limit = row["sql"].rpartition(" LIMIT ")
        key = body.rpartition(" ORDER BY ")[2].removesuffix(" DESC")
        columns = re.sub(r"^SELECT .*? FROM ", f"SELECT {key} FROM ", body)
        keys = executed(demo.file(row), f"{columns} LIMIT {int(limit) + 1}")
        assert keys[-1] != keys[-2], row


def test_sql_has_one_style(demo):
    for row in demo.every:
        sql = row["sql"]
        assert "\n" not in sql and "  " not in sql and not sql.endswith(";") and " AS " not in sql, sql
        assert not re.search(r"\b(select|from|where|join|group by|order by)\b", sql), sql
        qualified = re.findall(r"\b([a-z_]+)\.[a-z_]+", sql)
        assert bool(qualified) == (" JOIN " in sql), sql


# -- questions --------------------------------------------------------------------------------------------------------


def test_kinds_have_wordings_enough_of_which_some_are_held_out():
    assert len(KINDS) >= 15 and len(COMPOSITIONS) >= 6
    for kind, wordings in KINDS.items():
        assert len(wordings.train) >= 5 and len(wordings.held) >= 3, kind
        assert not set(wordings.train) & set(wordings.held), kind
    assert all(not wordings.train and len(wordings.held) >= 3 for wordings in COMPOSITIONS.values())


@pytest.mark.parametrize("scope", ["full", "short"])
def test_held_out_questions_share_no_database_no_wording_and_no_composition_with_training(request, scope):
    demo = request.getfixturevalue({"full": "demo", "short": "short"}[scope])
    training = demo.rows["train"]
    known = {key: {row[key] for row in training} for key in ("db_id", "kind", "wording", "question")}
    assert known["kind"] == set(SCOPES[scope].kinds)
    for split in HELD_OUT:
        rows = demo.rows[split]
        for key in ("db_id", "wording", "question"):
            assert not {row[key] for row in rows} & known[key], (split, key)
        composed = [row for row in rows if row["kind"] in COMPOSITIONS]
        assert abs(len(composed) - len(rows) // 3) <= 2  # a kind may have nothing new to ask
        templates = {template(parse(row["sql"], "sqlite")) for row in training}
        new = [template(parse(row["sql"], "sqlite")) not in templates for row in composed]
        assert sum(new) / len(new) > 0.9
    assert not {row["db_id"] for row in demo.rows["val"]} & {row["db_id"] for row in demo.rows["test"]}


def test_the_short_demo_has_pairs_of_tables_of_which_one_refers_to_the_other(short):
    for name, schema in short.schemas.items():
        parent, child = schema.tables
        assert [key.table for key in child.foreign_keys] == [parent.name], name
        assert not parent.foreign_keys, name
    assert max(len(schema.ddl(2)) for schema in short.schemas.values()) <= 650


@pytest.mark.parametrize("scope", ["full", "short"])
def test_a_question_is_its_wording_filled_in(request, scope):
    """So that the number of a wording, by which training and held-out questions differ, is that of its text."""
    demo = request.getfixturevalue({"full": "demo", "short": "short"}[scope])
    for row in demo.every:
        kind, number = row["wording"].split("/")
        wordings = (KINDS | COMPOSITIONS)[kind]
        parts = re.split(r"\{\w+\}", (wordings.train + wordings.held)[int(number)])
        pattern = ".+".join(map(re.escape, parts))
        assert re.fullmatch(pattern, row["question"], re.IGNORECASE), row
        assert (int(number) < len(wordings.train)) == (row in demo.rows["train"])


def test_the_own_words_of_held_out_columns_are_not_in_training(demo):
    """ "How old" for `age`: a model must know it, since training never has it where a held-out database has it."""
    parts = schemas.parts(42)
    words = set().union(*(subject.own_words for split in HELD_OUT for subject in parts[split]))
    phrases = [re.escape(word).replace(r"\{x\}", ".+") for word in words]
    pattern = re.compile(
        "|".join(rf"\b{phrase}(?!\w)" for phrase in phrases if not phrase.endswith(r"\ "))
        + "|"
        + "|".join(rf"\b{phrase}\d" for phrase in phrases if phrase.endswith(r"\ "))
    )
    assert not [row["question"] for row in demo.rows["train"] if pattern.search(row["question"])]
    held = [row for split in HELD_OUT for row in demo.rows[split] if pattern.search(row["question"])]
    assert len(held) > 40


def test_questions_are_spread_over_databases_kinds_and_wordings(demo):
    for split, rows in demo.rows.items():
        per_database = Counter(row["db_id"] for row in rows)
        assert max(per_database.values()) - min(per_database.values()) <= 6, split
    per_kind = Counter(row["kind"] for row in demo.rows["train"])
    assert min(per_kind.values()) >= 10 and max(per_kind.values()) <= 36  # of few kinds there are no more
    assert len({row["wording"] for row in demo.rows["train"]}) > 0.95 * sum(len(of.train) for of in KINDS.values())


def test_questions_are_sentences_without_gaps_or_wrong_articles(demo, other_seed):
    for row in (*demo.every, *other_seed.every):
        text = row["question"]
        assert text[0].isupper() and text[-1] in ".?" and "  " not in text and not set("{}_") & set(text), text
        assert not re.search(r"\ba [aeio]|\ban [bcdfgjklmnpqrstvwxyz]|specieses", text), text
        assert text.split()[0] not in ("Of",) or text.startswith("Of all"), text
    assert len({(row["db_id"], row["question"]) for row in demo.every}) == len(demo.every)


def test_literals_of_the_sql_are_in_the_question(demo):
    """Whatever a model must write is there to be read: as it is, as a year, or as the number's word."""
    words = dict(enumerate(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]))
    for row in demo.every:
        for text, number in re.findall(r"'%?([^'%]+)%?'|(?<![\w.])(\d+(?:\.\d+)?)(?![\w.])", row["sql"]):
            value = text or number
            spelt = words.get(int(value), "") if value.isdigit() else ""
            shown = (value, value[:4] if re.fullmatch(r"\d{4}-\d\d-\d\d", value) else value, spelt or value)
            is_first = value == "1" and row["sql"].endswith("LIMIT 1")
            assert is_first or any(form in row["question"] for form in shown), row


# -- copying ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["full", "short"])
def test_the_nearest_training_question_seldom_answers_a_held_out_one(request, scope):
    """The baseline of the evaluation: the most similar question's SQL with names and values swapped."""
    from training.domains.sql.text_to_sql.neighbour import Neighbours

    demo = request.getfixturevalue({"full": "demo", "short": "short"}[scope])
    rows = demo.rows["train"]
    copies = Neighbours(
        [row["question"] for row in rows], [row["sql"] for row in rows], [row["db_id"] for row in rows],
        [demo.schemas[row["db_id"]] for row in rows], "sqlite",
    )  # fmt: skip
    right = 0
    held = [row for split in HELD_OUT for row in demo.rows[split]]
    for row in held:
        try:
            answer = executed(demo.file(row), copies.answer(row["question"], row["db_id"], demo.schemas[row["db_id"]]))
        except sqlite3.Error:
            continue
        right += Counter(map(repr, answer)) == Counter(map(repr, executed(demo.file(row), row["sql"])))
    assert right < 0.15 * len(held), f"{right} of {len(held)}"


def test_even_with_perfect_swapping_the_nearest_question_seldom_has_the_right_form(demo):
    """Words of schemas, values and numbers blank on both sides: what is left is the wording. The forms that are equal
    then are more than a copy can answer, since it also had to find the right names."""

    def bag(row):
        names = {word for text in _texts(demo, row) for word in re.findall(r"[a-z]+", text.lower())}
        words = re.findall(r"[a-z]+|[\d.-]+", row["question"].lower())
        return {
            "#" if word[0].isdigit() else "x" if word in names or word.rstrip("s") in names else word for word in words
        }

    training = [(bag(row), template(parse(row["sql"], "sqlite"))) for row in demo.rows["train"]]
    right = 0
    held = [row for split in HELD_OUT for row in demo.rows[split]]
    for row in held:
        own = bag(row)
        nearest = max(training, key=lambda one: len(own & one[0]) / len(own | one[0]))
        right += nearest[1] == template(parse(row["sql"], "sqlite"))
    assert right < 0.25 * len(held), f"{right} of {len(held)}"


def _texts(demo: Demo, row: dict) -> list[str]:
    return [
        name for table in demo.schemas[row["db_id"]].tables for name in (table.name, *(c.name for c in table.columns))
    ]


# -- files ------------------------------------------------------------------------------------------------------------


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_the_demo_is_a_function_of_the_seed(tmp_path, other_seed):
    again = made(tmp_path / "again", seed=7, questions=60, scope="full")
    assert again.rows == other_seed.rows
    first, second = (contents(of.options["train"].parent) for of in (other_seed, again))
    assert first == second
    assert made(tmp_path / "other", seed=8, questions=60).rows != again.rows


def test_a_complete_demo_is_left_alone_and_an_incomplete_or_different_one_is_made_again(tmp_path):
    demo = made(tmp_path, questions=30)
    folder = demo.options["train"].parent
    before = {path: path.stat().st_ino for path in folder.rglob("*")}
    assert made(tmp_path, questions=30).rows == demo.rows
    assert {path: path.stat().st_ino for path in folder.rglob("*")} == before
    demo.options["val"].unlink()
    assert made(tmp_path, questions=30).rows == demo.rows
    assert len(made(tmp_path, questions=40).rows["train"]) == 40
    assert json.loads((folder / "synthetic.json").read_text())["questions"] == 40
    assert made(tmp_path, questions=40, scope="full").rows != made(tmp_path, questions=40).rows


def test_a_demo_for_postgresql_has_its_idioms_its_schemas_and_scripts_instead_of_files(tmp_path):
    found = make_demo(job(tmp_path, questions=60, dialect="postgres"))
    rows = [json.loads(line) for line in found["train"].read_text().splitlines()]
    assert set(IDIOMS) <= {row["kind"] for row in rows} and "databases" not in found
    scripts = {path.stem for path in (tmp_path / "data/demo/postgres").iterdir()}
    assert scripts == {subject.name for subject in (*WORK, *LEISURE)}
    for row in rows:
        check(parse(row["sql"], "postgres"), Schema.from_ddl(row["schema"], "postgres"))
    assert not (tmp_path / "data/demo/databases").exists()


def test_a_demo_with_too_few_questions_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"--questions .* from 30 up; it is 5"):
        SQL.demo(job(tmp_path, questions=5))
