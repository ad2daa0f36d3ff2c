"""A small base model and databases, made once for all tests of the domain."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

TEXTS = (
    "How many books are there?", "SELECT COUNT(*) FROM books", "List the titles of all books.",
    "SELECT title FROM books WHERE year > 1990 ORDER BY title", "Who wrote the oldest book?",
)  # fmt: skip


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory) -> Path:
    from training.domains.sql.bases import tiny

    return tiny.make(tmp_path_factory.mktemp("base"), TEXTS)


@pytest.fixture
def library(tmp_path) -> Path:
    """A database of two tables."""
    path = tmp_path / "library.sqlite"
    with sqlite3.connect(path) as connection:
        connection.executescript(
            """CREATE TABLE authors (id INTEGER PRIMARY KEY, name TEXT, country TEXT);
            CREATE TABLE books
            (id INTEGER PRIMARY KEY, title TEXT, author_id INTEGER REFERENCES authors(id), year INTEGER);
            INSERT INTO authors VALUES (1, 'Ada', 'Norway'), (2, 'Ben', 'Chile'), (3, 'Cy', 'Norway');
            INSERT INTO books
            VALUES (1, 'Red', 1, 1990), (2, 'Blue', 1, 2001), (3, 'Green', 2, 1985), (4, 'Grey', 3, 2010);"""
        )
    connection.close()
    return path
