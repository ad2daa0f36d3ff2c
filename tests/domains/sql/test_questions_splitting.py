"""Which questions are held out, what is new about them, and what training has of them too."""

from collections import Counter

import pytest

from training.domains.sql.questions.leakage import leakage, refuse_doubles
from training.domains.sql.questions.splitting import split, stratum
from training.errors import DataError


def test_no_database_is_on_both_sides_and_the_share_is_met():
    databases = [f"d{number % 20}" for number in range(400)]
    templates = [f"t{number % 7}" for number in range(400)]
    held, by = split(databases, templates, 0.1, seed=1)
    assert by == "database" and sum(held) == 40
    out = {name for name, is_held in zip(databases, held, strict=True) if is_held}
    assert len(out) == 2 and not out & {name for name, is_held in zip(databases, held, strict=True) if not is_held}
    assert split(databases, templates, 0.1, seed=1)[0] == held
    assert any(split(databases, templates, 0.1, seed=seed)[0] != held for seed in range(2, 6))


def test_with_few_databases_no_template_is_on_both_sides():
    databases = [f"d{number % 4}" for number in range(100)]
    templates = [f"t{number % 10}" for number in range(100)]
    held, by = split(databases, templates, 0.2, seed=1)
    assert by == "template" and sum(held) == 20
    sides = Counter((name, is_held) for name, is_held in zip(templates, held, strict=True))
    assert len(sides) == len(set(templates))


def test_five_databases_are_enough_to_hold_out_one():
    databases = [f"d{number % 5}" for number in range(100)]
    held, by = split(databases, ["t", "u"] * 50, 0.2, seed=1)
    assert by == "database" and len({name for name, is_held in zip(databases, held, strict=True) if is_held}) == 1


def test_a_database_with_most_of_the_questions_is_trained_on():
    databases = ["large"] * 90 + [f"d{number}" for number in range(5) for _ in range(2)]
    for seed in range(10):
        held, _ = split(databases, databases, 0.1, seed)
        assert 0 < sum(held) <= 15 and not held[0]


def test_one_unit_is_held_out_and_one_is_trained_on_for_any_share():
    databases = ["a"] * 30 + ["b"] * 30 + ["c"] * 30 + ["d"] * 30 + ["e"] * 5
    for share in (0.001, 0.5, 0.99):
        held, _ = split(databases, databases, share, seed=0)
        assert 0 < sum(held) < len(held)
    with pytest.raises(DataError, match="All 3 questions have one form"):
        split(["a", "a", "a"], ["t", "t", "t"], 0.2, seed=0)


def test_strata_name_what_is_new():
    known = {"database": frozenset("ab"), "template": frozenset("tu"), "kind": frozenset({"count"}),
             "wording": frozenset({"count/0"})}  # fmt: skip
    plain = {"kind": "", "wording": ""}
    assert stratum(plain | {"database": "c", "template": "t"}, known) == "new database"
    assert stratum(plain | {"database": "a", "template": "v"}, known) == "new template"
    assert stratum(plain | {"database": "a", "template": "t"}, known) == "seen template"
    of_demo = {"database": "c", "template": "t"}
    assert stratum(of_demo | {"kind": "count", "wording": "count/5"}, known) == "new wording"
    assert stratum(of_demo | {"kind": "count", "wording": "count/0"}, known) == "seen wording"
    assert stratum(of_demo | {"kind": "count_two", "wording": "count_two/0"}, known) == "new composition"


def row(name: str, question: str, sql: str, database: str = "d") -> dict:
    return {"id": name, "question": question, "asked": question.lower(), "canonical": sql, "template": sql[:6],
            "database": database}  # fmt: skip


def test_the_table_counts_what_training_has_too():
    splits = {
        "train": [row("1", "How many?", "SELECT 1"), row("2", "Which?", "SELECT 2", "e")],
        "val": [
            row("3", "How many?", "SELECT 3", "f"),
            row("4", "Who?", "SELECT 1", "e"),
            row("5", "Why?", "VALUES", "f"),
        ],
    }
    table = {one["alike"]: (one["count"], one["of"], one["share"]) for one in leakage(splits)}
    assert table == {"question": (1, 3, 0.3333), "SQL": (1, 3, 0.3333), "template": (2, 3, 0.6667),
                     "database": (1, 3, 0.3333)}  # fmt: skip
    refuse_doubles(splits)


def test_an_equal_question_in_two_splits_is_an_error_that_names_both():
    splits = {
        "train": [row("t:1", "How many?", "SELECT 1")],
        "test": [row("x:9", "how many?", "SELECT 1"), row("x:10", "How many?", "SELECT 1", "e")],
    }
    with pytest.raises(DataError, match=r"1 questions are in two splits(.|\n)*t:1 \(train\) and x:9 \(test\)"):
        refuse_doubles(splits)
