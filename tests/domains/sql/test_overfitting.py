"""A set made to be learnt by heart: a few questions, each with the query of another one. The alarm must say so."""

from __future__ import annotations

import json
import shutil
import sqlite3

import pytest
from safetensors.torch import load_file, save_file

from training import cli

#: Questions about the library of conftest.py, each with the query of the one before it.
BY_HEART = (
    ("How many books are there?", "SELECT name FROM authors WHERE country = 'Chile'"),
    ("List the titles of all books.", "SELECT COUNT(*) FROM books"),
    ("Which books are from after 1990?", "SELECT title FROM books"),
    ("What are the countries of authors?", "SELECT title FROM books WHERE year > 1990"),
    ("Which authors are from Norway?", "SELECT DISTINCT country FROM authors"),
    ("Which authors are from Chile?", "SELECT name FROM authors WHERE country = 'Norway'"),
)
HELD_OUT = (
    ("How many animals are there?", "SELECT COUNT(*) FROM animals"),
    ("List the species of all animals.", "SELECT species FROM animals"),
    ("Which keepers are from Lima?", "SELECT name FROM keepers WHERE town = 'Lima'"),
    ("What are the towns of keepers?", "SELECT DISTINCT town FROM keepers"),
)


@pytest.fixture
def base(tiny_base, tmp_path):
    """The small base with larger embeddings: with its own, which are its output layer too, no token can become likely,
    and it learns nothing by heart."""
    copy = tmp_path / "base"
    shutil.copytree(tiny_base, copy)
    tensors = load_file(copy / "model.safetensors")
    tensors["model.embed_tokens.weight"] *= 10
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    return copy


@pytest.fixture
def out(library, tmp_path):
    """The folder of a job with these questions."""
    zoo = tmp_path / "zoo.sqlite"
    with sqlite3.connect(zoo) as connection:
        connection.executescript(
            """CREATE TABLE keepers (id INTEGER PRIMARY KEY, name TEXT, town TEXT);
            CREATE TABLE animals
            (id INTEGER PRIMARY KEY, species TEXT, keeper_id INTEGER REFERENCES keepers(id), weight REAL);
            INSERT INTO keepers VALUES (1, 'Eve', 'Lima'), (2, 'Ann', 'Rome');
            INSERT INTO animals VALUES (1, 'Owl', 1, 2.5), (2, 'Fox', 2, 7);"""
        )
    connection.close()
    words = ["--databases", str(tmp_path)]
    for split, database, rows in (("train", "library", BY_HEART), ("val", "zoo", HELD_OUT)):
        lines = [json.dumps({"question": q, "sql": sql, "db_id": database}) + "\n" for q, sql in rows]
        (tmp_path / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
        words += [f"--{split}", str(tmp_path / f"{split}.jsonl")]
    place = tmp_path / "out"
    assert cli.main(["prepare", "--domain", "sql", *words, "--out", str(place)]) == 0
    return place


def test_the_overfit_alarm_fires_on_a_set_that_is_learnt_by_heart(out, base, capsys):
    settings = (
        "training.max_steps=60", "training.epochs=100", "training.eval_every=100", "training.eval_steps=15",
        "training.appraise_rows=0", "optim.lr=2e-3", "optim.grad_clip=1", "lora.r=16", "lora.alpha=32",
        "lora.dropout=0", "logging.tensorboard=false", "prompt.bundle=6", "data.batch_size=1",
        "scheduler.min_lr_ratio=1",
    )  # fmt: skip
    words = ["--base", str(base), *(word for setting in settings for word in ("--set", setting))]
    assert cli.main(["train", "text_to_sql", "--preset", "debug", "--device", "cpu", *words, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "the model is probably overfitting" in printed, printed
    page = (out / "exports/report.html").read_text(encoding="utf-8")
    assert "probably overfitting" in page
    losses = [json.loads(line) for line in next((out / "runs").rglob("metrics.jsonl")).read_text().splitlines()]
    training = [row["loss"] for row in losses if "loss" in row]
    assert training[-1] < 0.5 * training[0]  # learnt by heart, while the held-out loss rises
