"""Answers are judged by their rows, on the database and on copies of it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from types import SimpleNamespace

import pytest

from training.domains.sql.text_to_sql import judging
from training.domains.sql.text_to_sql.generate import Answer
from training.domains.sql.text_to_sql.neighbour import Neighbours
from training.domains.sql.text_to_sql.predictors import BASE, NEIGHBOUR, TUNED, cleaned, complete

GOLDS = (
    ("Which authors are from Norway?", "SELECT name FROM authors WHERE country = 'Norway'"),
    ("How many books are there?", "SELECT COUNT(*) FROM books"),
    ("Titles by year?", "SELECT title FROM books ORDER BY year"),
    (
        "Who wrote Blue?",
        "SELECT authors.name FROM authors JOIN books ON books.author_id = authors.id WHERE title = 'Blue'",
    ),
)


def rows_of(path):
    return [
        SimpleNamespace(
            values={
                "id": f"q:{number}", "question": question, "sql": sql, "database": "library", "dialect": "sqlite",
                "database_path": str(path), "hardness": "easy", "stratum": "new wording", "judged": "execution",
            }
        )
        for number, (question, sql) in enumerate(GOLDS)
    ]  # fmt: skip


@pytest.fixture
def judge(library, tmp_path):
    with judging.Judge(rows_of(library), tmp_path / "copies", 3, 2.0, 7, workers=1) as judge:
        yield judge


def answered(*texts: str) -> list[Answer]:
    return [Answer((), True, text) for text in texts]


def test_right_queries_are_right_and_shuffled_ones_are_not(judge):
    right = judge.judge(answered(*(sql for _, sql in GOLDS)))
    assert all(o.suite and o.exec and o.exact and o.bird and o.valid and not o.error for o in right)
    shuffled = judge.judge(answered(*(sql for _, sql in [*GOLDS[1:], GOLDS[0]])))
    assert not any(o.suite or o.exact for o in shuffled) and all(o.valid for o in shuffled)


def test_another_query_with_the_same_rows_everywhere_is_right(judge):
    outcome = judge.judge(
        answered("SELECT name FROM authors WHERE NOT country <> 'Norway'", *[s for _, s in GOLDS[1:]])
    )[0]
    assert outcome.suite and not outcome.exact


def test_a_query_that_is_right_by_chance_is_not_right(judge):
    """It gives the right rows on this database and not on the copies."""
    outcome = judge.judge(answered("SELECT name FROM authors WHERE id IN (1, 3)", "SELECT 4", GOLDS[2][1], GOLDS[3][1]))
    assert [o.exec for o in outcome[:2]] == [True, True]
    assert [o.suite for o in outcome[:2]] == [False, False]
    assert {o.error for o in outcome[:2]} == {"right by chance"}


@pytest.mark.parametrize(
    ("sql", "error"),
    [
        ("SELECT name FROM writers", "unknown table"),
        ("SELECT surname FROM authors", "unknown column"),
        ("I do not know", "no valid query"),
        ("", "no query"),
        ("SELECT name, country FROM authors WHERE country = 'Norway'", "other columns"),
        ("SELECT name FROM authors WHERE country = 'Peru'", "no rows"),
        ("SELECT name FROM authors", "other rows"),
        ("DROP TABLE authors", "no valid query"),
    ],
)
def test_a_wrong_answer_gets_the_kind_of_its_mistake(judge, sql, error):
    outcome = judge.judge(answered(sql, *[s for _, s in GOLDS[1:]]))[0]
    assert (outcome.error, outcome.suite) == (error, False)


def test_order_counts_where_the_right_query_has_one(judge):
    wrong = judge.judge(answered(GOLDS[0][1], GOLDS[1][1], "SELECT title FROM books ORDER BY year DESC", GOLDS[3][1]))[
        2
    ]
    assert (wrong.error, wrong.exec, wrong.bird) == ("other order", False, True)


def test_an_answer_that_did_not_end_is_named(judge):
    answers = [Answer((), False, "SELECT name FROM authors WHERE"), *answered(*[sql for _, sql in GOLDS[1:]])]
    outcome = judge.judge(answers)[0]
    assert (outcome.error, outcome.ended) == ("did not end", False)


def test_a_database_without_rows_judges_no_answer_by_its_rows(tmp_path):
    path = tmp_path / "empty.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE authors (id INTEGER PRIMARY KEY, name TEXT, country TEXT)")
    connection.close()
    rows = rows_of(path)[:1]
    with judging.Judge(rows, tmp_path / "copies", 0, 2.0, 7, workers=1) as judge:
        (wrong,) = judge.judge(answered("SELECT name FROM authors"))
        (right,) = judge.judge(answered(GOLDS[0][1]))
    assert wrong.exec is None and wrong.suite is None and right.exact
    assert judging.tables({TUNED: [wrong]}, rows)["unjudged"] == 1


def test_without_a_database_an_answer_is_compared_with_the_right_query(tmp_path):
    """As with PostgreSQL's SQL about a schema alone; and SQL that writes is not executed, whatever there is."""
    path = tmp_path / "shop.schema.json"
    path.write_text("{}")
    rows = rows_of(path)[:3]
    sql = ("SELECT id FROM sales WHERE region ILIKE 'north'", "SELECT DATE_TRUNC('month', at) FROM sales",
           "DELETE FROM sales")  # fmt: skip
    for row, text in zip(rows, sql, strict=True):
        row.values |= {"sql": text, "dialect": "postgres", "judged": "text"}
    with judging.Judge(rows, tmp_path / "copies", 3, 2.0, 7, workers=1) as judge:
        right = judge.judge(answered(*sql))
        wrong = judge.judge(answered(sql[1], "no query", sql[0]))
    assert [o.right for o in right] == [True] * 3 and [o.right for o in wrong] == [False] * 3
    assert {(o.exec, o.suite, o.valid, o.result) for o in [*right, *wrong]} == {(None,) * 4}
    metrics = judging.metrics_of({TUNED: right, BASE: wrong}, rows, set(), 1)
    assert set(metrics) == {"exact", "ended"} and metrics["exact"].baselines[BASE].value == 0
    assert len(judging.findings(metrics)) == 1
    shown = judging.tables({TUNED: right, BASE: wrong}, rows)
    assert [answer["answer"] for answer in shown["answers"]] == list(sql) and shown["unjudged"] == 3
    assert shown["hardness"][0]["right"] == {TUNED: 100.0, BASE: 0.0}


def test_the_verdict_rests_on_every_baseline(judge, library):
    rows = [row for _ in range(5) for row in rows_of(library)]
    right, wrong = judge.judge(answered(*(sql for _, sql in GOLDS))) * 5, judge.judge(answered("", "", "", "")) * 5
    for number, row in enumerate(rows):
        row.values["database"] = f"d{number // 4}"
    metrics = judging.metrics_of({TUNED: right, BASE: wrong, NEIGHBOUR: wrong}, rows, set(), 1)
    assert metrics["suite"].model.value == 100 and metrics["suite"].baselines[BASE].value == 0
    assert {f.mark for f in judging.findings(metrics)} == {"good"}
    metrics = judging.metrics_of({TUNED: right, BASE: wrong, NEIGHBOUR: right}, rows, set(), 1)
    assert "bad" in {f.mark for f in judging.findings(metrics)}
    assert NEIGHBOUR not in metrics["ended"].baselines


def test_on_databases_of_training_the_forms_of_queries_decide_and_not_the_number_of_databases(judge, library):
    """A user with one database can learn whether a model has learnt."""
    rows = [row for _ in range(5) for row in rows_of(library)]
    for number, row in enumerate(rows):
        row.values["template"] = f"form {number % 4}"
    outcomes = {
        TUNED: judge.judge(answered(*(sql for _, sql in GOLDS))) * 5, BASE: judge.judge(answered("", "", "", "")) * 5
    }  # fmt: skip
    (known,) = judging.findings(judging.metrics_of(outcomes, rows, {"library"}, 1))
    assert known.mark == "good"
    (new,) = judging.findings(judging.metrics_of(outcomes, rows, {"another"}, 1))
    assert new.mark == "fair" and "of too few databases" in new.sentence


def test_a_copy_on_which_the_right_query_fails_does_not_count(tmp_path):
    """A copy holds texts that differ in one letter from those of the original, which are no JSON any more."""
    path = tmp_path / "shop.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE sales (id INTEGER PRIMARY KEY, item TEXT NOT NULL)")
        connection.executemany("INSERT INTO sales (item) VALUES (?)", [(f'{{"price": {n}}}',) for n in range(40)])
        connection.commit()
    sql = "SELECT sum(json_extract(item, '$.price')) FROM sales"
    rows = rows_of(path)[:1]
    rows[0].values["sql"] = sql
    with judging.Judge(rows, tmp_path / "copies", 5, 2.0, 7, workers=1) as judge:
        assert len(judge.golds[0].copies) < 5
        (right,), (wrong,) = judge.judge(answered(sql)), judge.judge(answered("SELECT count(*) FROM sales"))
    assert right.suite and not right.error and not wrong.suite


def test_a_code_fence_is_no_part_of_the_query():
    assert cleaned("```sql\nSELECT 1;\n```") == cleaned("Sure:\n```\nSELECT 1\n```\nDone.") == "SELECT 1"
    assert cleaned(" SELECT 1 ; ") == "SELECT 1"


@pytest.mark.parametrize(
    ("text", "ended"),
    [
        ("SELECT name FROM t;", True), (" select name FROM t; SELECT", True), ("SELECT name FROM t", False),
        ("SELECT name FROM t WHERE a = 'b;c'", False), ("SELECT name FROM t WHERE a = 'b;", False),
        ("You can do this; it is easy:", False), ("Sure; here:\n```sql\nSELECT 1", False),
        ("Sure:\n```sql\nSELECT 1;", True), ("Sure:\n```\nSELECT 1\n```", True), ("", False),
    ],
)  # fmt: skip
def test_an_answer_is_complete_where_its_query_ends(text, ended):
    assert complete(text) is ended


def test_the_neighbour_copies_with_names_and_values_swapped(library, tmp_path):
    import sqlite3

    from training.domains.sql.databases.sqlite import introspect

    zoo = tmp_path / "zoo.sqlite"
    with sqlite3.connect(zoo) as connection:
        connection.executescript(
            """CREATE TABLE keepers (id INTEGER PRIMARY KEY, name TEXT, town TEXT);
            CREATE TABLE animals
            (id INTEGER PRIMARY KEY, species TEXT, keeper_id INTEGER REFERENCES keepers(id), weight REAL);
            INSERT INTO keepers VALUES (1, 'Eve', 'Lima'); INSERT INTO animals VALUES (1, 'Owl', 1, 2.5);"""
        )
    connection.close()
    known = Neighbours(
        ["Which authors have the country 'Norway'?", "How many books have a year above 1990?"],
        ["SELECT name FROM authors WHERE country = 'Norway'", "SELECT COUNT(*) FROM books WHERE year > 1990"],
        ["library"] * 2, [introspect(library)] * 2, "sqlite",
    )  # fmt: skip
    ours = introspect(zoo)
    assert known.answer("How many animals have a weight above 30?", "zoo", ours) == (
        "SELECT COUNT(*) FROM animals WHERE weight > 30"
    )
    assert known.answer("Which authors have the country 'Chile'?", "library", introspect(library)) == (
        "SELECT name FROM authors WHERE country = 'Chile'"
    )
