"""Re-populated copies: the original's schema and keys, the golds' literals, and queries that are wrong found so."""

from __future__ import annotations

import random
import sqlite3

import pytest

from training.domains.sql.databases.compare import same_rows
from training.domains.sql.databases.copies import make_copies
from training.domains.sql.databases.execution import Executor

SCRIPT = """
CREATE TABLE country (code TEXT PRIMARY KEY, name TEXT UNIQUE);
CREATE TABLE city (id INTEGER PRIMARY KEY, name TEXT NOT NULL, code TEXT NOT NULL REFERENCES country,
    people INTEGER CHECK (people % 2 = 0));
CREATE TABLE person (id INTEGER PRIMARY KEY, name TEXT, born TEXT, height REAL CHECK (height > 0),
    city_id INTEGER REFERENCES city (id), boss_id INTEGER REFERENCES person (id),
    label TEXT GENERATED ALWAYS AS (name || born) VIRTUAL);
CREATE TABLE club (id INTEGER PRIMARY KEY, name TEXT, head INTEGER REFERENCES member_of (number));
CREATE TABLE member_of (number INTEGER UNIQUE, club_id INTEGER NOT NULL REFERENCES club (id),
    person_id INTEGER NOT NULL REFERENCES person (id), since INTEGER, PRIMARY KEY (club_id, person_id));
CREATE TABLE part (id INTEGER PRIMARY KEY, part_of INTEGER NOT NULL REFERENCES part (id));
CREATE INDEX by_name ON person (name);
CREATE VIEW tall AS SELECT name FROM person WHERE height > 1.8;
CREATE TRIGGER t AFTER INSERT ON club BEGIN DELETE FROM person; END;
"""
GOLDS = [
    "SELECT p.name FROM person p JOIN city c ON p.city_id = c.id WHERE c.name = 'Tromsø' AND p.height > 1.95",
    "SELECT count(*) FROM person WHERE strftime('%Y', born) = '1931'",
    "SELECT name FROM person WHERE name LIKE 'Zo_%'",
    "SELECT name FROM country WHERE code = 'XX'",
    "SELECT c.name FROM club c JOIN member_of m ON m.club_id = c.id JOIN person p ON p.id = m.person_id "
    "WHERE p.name = 'Quentin' AND m.since BETWEEN 2031 AND 2033",
    "SELECT name FROM city WHERE id NOT IN (SELECT city_id FROM person WHERE city_id IS NOT NULL)",
    "SELECT name FROM person WHERE id = 7777",
]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    path = tmp_path_factory.mktemp("original") / "a.sqlite"
    rng = random.Random(1)
    connection = sqlite3.connect(path)
    connection.executescript(SCRIPT.replace("CREATE TRIGGER", "-- CREATE TRIGGER"))
    many = connection.executemany
    many("INSERT INTO country VALUES (?, ?)", [("NO", "Norway"), ("SE", "Sweden"), ("DK", "Denmark")])
    cities = [(n, f"City {n}", rng.choice(["NO", "SE"]), 2 * rng.randint(500, 450_000)) for n in range(1, 15)]
    many("INSERT INTO city VALUES (?, ?, ?, ?)", cities)
    people = [
        (n, rng.choice(["Ann", "Bob", "Cid"]), f"19{rng.randint(50, 99)}-0{rng.randint(1, 9)}-11",
         round(rng.uniform(1.5, 2.0), 2), rng.choice([None, *range(1, 15)]), rng.randint(1, n))
        for n in range(1, 91)
    ]  # fmt: skip
    many("INSERT INTO person (id, name, born, height, city_id, boss_id) VALUES (?, ?, ?, ?, ?, ?)", people)
    many("INSERT INTO club VALUES (?, ?, NULL)", [(n, f"Club {n}") for n in range(1, 6)])
    members = [(n, 1 + n % 5, 1 + n, rng.randint(1990, 2020)) for n in range(60)]
    many("INSERT INTO member_of VALUES (?, ?, ?, ?)", members)
    connection.executescript(SCRIPT[SCRIPT.index("CREATE TRIGGER") :])
    connection.close()
    return path


@pytest.fixture(scope="module")
def copies(original, tmp_path_factory):
    return make_copies(original, GOLDS, tmp_path_factory.mktemp("copies"))


def rows(path, sql):
    connection = sqlite3.connect(path)
    found = connection.execute(sql).fetchall()
    connection.close()
    return found


def test_copies_have_the_schema_and_the_keys_hold(original, copies):
    schema = "SELECT type, name, sql FROM sqlite_master WHERE type <> 'trigger' ORDER BY name"
    assert len(copies) == 5
    for copy in copies:
        assert rows(copy, "SELECT count(*) FROM part WHERE part_of <> id")[0][0] >= 4
        assert sorted(rows(copy, schema)) == sorted(rows(original, schema))
        assert rows(copy, "PRAGMA foreign_key_check") == []
        assert rows(copy, "PRAGMA integrity_check") == [("ok",)]
        for table in ("country", "city", "person", "club", "member_of"):
            assert rows(copy, f"SELECT count(*) FROM {table}")[0][0] >= 4, table
    assert any(rows(copy, "SELECT 1 FROM club WHERE head IS NOT NULL") for copy in copies)  # a cycle of keys
    assert any(rows(copy, "SELECT 1 FROM person WHERE boss_id <> id") for copy in copies)
    assert any(rows(copy, "SELECT 1 FROM person WHERE city_id IS NULL") for copy in copies)


def test_every_gold_has_rows_on_most_copies(original, copies):
    """None of the literals is in the original."""
    for gold in GOLDS[:5] + GOLDS[6:]:
        assert rows(original, gold) in ([], [(0,)])
        found = [rows(copy, gold) not in ([], [(0,)]) for copy in copies]
        assert sum(found) >= 3, gold


def test_copies_differ_and_are_a_function_of_their_inputs(original, copies, tmp_path):
    dump = "SELECT * FROM person ORDER BY id"
    assert len({str(rows(copy, dump)) for copy in copies}) == 5
    again = make_copies(original, GOLDS[::-1], tmp_path / "again")
    assert [copy.read_bytes() for copy in again] == [copy.read_bytes() for copy in copies]
    other = make_copies(original, GOLDS, tmp_path / "again", count=2, seed=1)
    assert len(other) == 2
    assert rows(other[0], dump) != rows(again[0], dump)


def test_copies_are_made_once(original, tmp_path):
    first = make_copies(original, GOLDS, tmp_path, count=2)
    times = [path.stat().st_mtime_ns for path in first]
    assert make_copies(original, GOLDS, tmp_path, count=2) == first
    assert [path.stat().st_mtime_ns for path in first] == times
    first[0].unlink()  # a part of them is made again
    assert make_copies(original, GOLDS, tmp_path, count=2)[0].is_file()
    assert [path.name for path in tmp_path.iterdir()] == [first[0].parent.name]


@pytest.mark.parametrize(
    ("gold", "wrong"),
    [
        ("SELECT name FROM person WHERE height > 1.8", "SELECT name FROM person WHERE height >= 1.8"),
        ("SELECT DISTINCT name FROM city", "SELECT name FROM city"),
        ("SELECT name FROM city WHERE name = 'Tromsø'", "SELECT name FROM city WHERE name LIKE 'Troms%'"),
        (
            "SELECT c.name, count(*) FROM city c JOIN person p ON p.city_id = c.id GROUP BY c.id",
            "SELECT c.name, count(p.id) FROM city c LEFT JOIN person p ON p.city_id = c.id GROUP BY c.id",
        ),
        ("SELECT count(*) FROM person", "SELECT count(city_id) FROM person"),
        ("SELECT name FROM person WHERE born < '1960-01-01'", "SELECT name FROM person WHERE born < '1961-01-01'"),
    ],
)
def test_a_wrong_query_is_found(original, tmp_path, gold, wrong):
    """Wrong queries that return what the gold does on some data. Right ones are right on all copies."""
    made = make_copies(original, [gold], tmp_path)
    with Executor() as executor:
        golds = executor.run_all([(str(copy), gold) for copy in made])
        answers = executor.run_all([(str(copy), wrong) for copy in made])
        right = executor.run_all([(str(copy), gold.replace("person", "Person")) for copy in made])
    assert not all(same_rows(g, a, ordered=False) for g, a in zip(golds, answers, strict=True))
    assert all(same_rows(g, a, ordered=False) for g, a in zip(golds, right, strict=True))


def test_values_repeat_although_the_originals_do_not(tmp_path):
    """GROUP BY with HAVING count(*) > 2, and DISTINCT, need repetitions."""
    path = tmp_path / "unique.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript("CREATE TABLE a (id INTEGER PRIMARY KEY, name TEXT, size REAL)")
    connection.executemany("INSERT INTO a VALUES (?, ?, ?)", [(n, f"name {n}", n / 7) for n in range(150)])
    connection.commit()
    connection.close()
    for copy in make_copies(path, ["SELECT name FROM a"], tmp_path / "copies"):
        count, names, sizes = rows(copy, "SELECT count(*), count(DISTINCT name), count(DISTINCT size) FROM a")[0]
        assert names < 0.6 * count
        assert sizes > 0.6 * count  # ties would make ORDER BY with LIMIT ambiguous


def test_an_empty_database_gets_rows(tmp_path):
    path = tmp_path / "empty.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript("CREATE TABLE a (id INTEGER PRIMARY KEY, x REAL, y); CREATE TABLE b (a_id REFERENCES a)")
    connection.close()
    for copy in make_copies(path, ["SELECT id FROM a WHERE y = 'k'"], tmp_path / "copies", count=2):
        assert rows(copy, "SELECT count(*) FROM a JOIN b ON a.id = b.a_id")[0][0] > 3
        assert rows(copy, "SELECT id FROM a WHERE y = 'k'")
