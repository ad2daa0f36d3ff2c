"""Schemas: read from SQLite files and from CREATE TABLE statements, written as such; files that cannot be used."""

from __future__ import annotations

import hashlib
import json
import shlex
import sqlite3
from contextlib import closing

import numpy as np
import pytest

from training.domains.sql.databases.schema import Column, ForeignKey, Schema, Table
from training.domains.sql.databases.sqlite import DATABASE, decode, introspect, schema_of, write_schema

SCRIPT = """
CREATE TABLE city (id INTEGER PRIMARY KEY, name VARCHAR(20) NOT NULL, "order" TEXT);
CREATE TABLE person (
    a INTEGER, b INTEGER, name TEXT, height REAL, photo BLOB, home INTEGER REFERENCES CITY,
    PRIMARY KEY (a, b), FOREIGN KEY (home) REFERENCES city (ID)
);
CREATE TABLE "odd name" (
    "x""y" TEXT, p_a INTEGER, p_b INTEGER, gone INTEGER REFERENCES absent (id),
    FOREIGN KEY (p_a, p_b) REFERENCES person (a, b)
);
CREATE VIEW tall AS SELECT name FROM person WHERE height > 1.8;
CREATE VIEW broken AS SELECT x FROM absent;
INSERT INTO city VALUES (1, 'Oslo', NULL), (2, 'Bergen', ''), (3, 'Oslo', 'it''s'), (4, 'Aa', 'line
break');
INSERT INTO person VALUES (1, 1, 'Ann', 1.5, x'00', 1), (1, 2, 'Bob', 2, x'01', NULL);
"""


def make(path, script=SCRIPT):
    connection = sqlite3.connect(path)
    connection.executescript(script)
    connection.close()
    return path


def test_a_database_is_read_completely(tmp_path):
    schema = introspect(make(tmp_path / "a.sqlite"))
    assert [table.name for table in schema.tables] == ["city", "person", "odd name", "tall"]
    assert [table.rows for table in schema.tables] == [4, 2, 0, 0]
    city, person, odd, tall = schema.tables
    assert city.columns == (
        Column("id", "INTEGER", primary_key=True, samples=("1", "2", "3")),
        Column("name", "VARCHAR(20)", not_null=True, samples=("'Oslo'", "'Aa'", "'Bergen'")),
        Column("order", "TEXT", samples=("'it''s'", "'line break'")),
    )
    assert [column.name for column in person.columns if column.primary_key] == ["a", "b"]
    assert {column.name: column.samples for column in person.columns}["height"] == ("1.5", "2.0")
    assert {column.name: column.samples for column in person.columns}["photo"] == ()
    assert set(person.foreign_keys) == {ForeignKey(("home",), "city", ("id",))}
    assert odd.foreign_keys == (ForeignKey(("p_a", "p_b"), "person", ("a", "b")),)
    assert [column.name for column in tall.columns] == ["name"]


def test_reading_changes_nothing(tmp_path):
    path = make(tmp_path / "a.sqlite")
    before = hashlib.sha256(path.read_bytes()).digest()
    path.chmod(0o444)
    assert introspect(path) == introspect(path)
    assert hashlib.sha256(path.read_bytes()).digest() == before
    assert [one.name for one in tmp_path.iterdir()] == ["a.sqlite"]


def test_the_statements_build_the_same_schema(tmp_path):
    """SQLite accepts what `ddl` writes, and both it and the parser of statements read the same schema back."""
    schema = introspect(make(tmp_path / "a.sqlite"))
    tables = schema.only(["city", "person", "odd name"])
    text = tables.ddl()
    again = introspect(make(tmp_path / "b.sqlite", text))

    def bare(one):
        return [
            (t.name, [(c.name, c.type, c.primary_key, c.not_null) for c in t.columns], set(t.foreign_keys))
            for t in one.tables
        ]

    assert bare(again) == bare(tables)
    assert bare(Schema.from_ddl(text, "sqlite")) == bare(tables)


def test_the_text_of_a_schema():
    columns = (
        Column("id", "INTEGER", primary_key=True, not_null=True, samples=("1", "2", "3")),
        Column("group", "TEXT", not_null=True, samples=("'a'",)),
        Column("size", ""),
    )
    schema = Schema("sqlite", (Table("Item", columns, (ForeignKey(("size",), "b", ("id",)),)), Table("b", columns[:1])))
    assert schema.ddl(samples=2).splitlines() == [
        "CREATE TABLE Item (",
        "  id INTEGER PRIMARY KEY, -- 1, 2",
        "  \"group\" TEXT NOT NULL, -- 'a'",
        "  size,",
        "  FOREIGN KEY (size) REFERENCES b (id)",
        ");",
        "CREATE TABLE b (",
        "  id INTEGER PRIMARY KEY -- 1, 2",
        ");",
    ]
    assert Schema("postgres", schema.tables).ddl(0).splitlines()[0] == 'CREATE TABLE "Item" ('


def test_a_part_of_a_schema_has_no_keys_to_absent_tables(tmp_path):
    schema = introspect(make(tmp_path / "a.sqlite"))
    part = schema.only(["PERSON", "odd name"])
    assert [table.name for table in part.tables] == ["person", "odd name"]
    assert part.table("Person").foreign_keys == ()
    assert part.table("odd name").foreign_keys
    with pytest.raises(KeyError):
        part.table("city")


def test_a_schema_survives_json_and_the_store(tmp_path):
    path = make(tmp_path / "a.sqlite")
    schema = introspect(path)
    assert Schema.from_plain(json.loads(json.dumps(schema.plain()))) == schema
    record = decode(path)
    assert record["schema"].dtype == np.uint8
    assert schema_of(record) == schema
    assert DATABASE.function is decode
    stored = tmp_path / "remote.schema.json"
    write_schema(stored, Schema("postgres", schema.tables))
    assert schema_of(decode(stored)) == Schema("postgres", schema.tables)
    stored.write_text("[1]")
    with pytest.raises(ValueError, match="not a schema"):
        decode(stored)


def test_statements_of_a_dump_are_read_without_its_rows():
    text = """-- shop; with a semicolon
    DROP TABLE IF EXISTS item;
    CREATE TABLE IF NOT EXISTS item (id SERIAL PRIMARY KEY, name VARCHAR(10) NOT NULL, price NUMERIC(10, 2) DEFAULT 0,
        shop_id INT REFERENCES shop(id), CHECK (price > 0));  /* a; b */
    INSERT INTO item VALUES (1, 'a;b', 2); INSERT INTO item (broken;
    CREATE TABLE shop (id INT, code TEXT, PRIMARY KEY (id), UNIQUE (code));
    CREATE INDEX i ON item (name)"""
    schema = Schema.from_ddl(text, "postgres")
    assert [table.name for table in schema.tables] == ["item", "shop"]
    item = schema.table("item")
    assert [column.name for column in item.columns] == ["id", "name", "price", "shop_id"]
    assert item.foreign_keys == (ForeignKey(("shop_id",), "shop", ("id",)),)
    assert [column.primary_key for column in schema.table("shop").columns] == [True, False]


@pytest.mark.parametrize(
    ("text", "reason"), [("SELECT 1", "no CREATE TABLE"), ("CREATE TABLE a (b INT", "statement 1 .* does not parse")]
)
def test_a_text_without_a_schema_is_refused(text, reason):
    with pytest.raises(ValueError, match=reason):
        Schema.from_ddl(text, "sqlite")


def damaged(path):
    make(path)
    data = bytearray(path.read_bytes())
    data[100:400] = b"\xff" * 300
    path.write_bytes(data)


def with_log(path):
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.executescript("CREATE TABLE t (a); INSERT INTO t VALUES (1)")
    copy = path.with_name("copy.sqlite")
    copy.write_bytes(path.read_bytes())
    log = path.with_name(path.name + "-wal").read_bytes()
    connection.close()
    copy.replace(path)
    path.with_name(path.name + "-wal").write_bytes(log)


def test_the_remedy_for_changes_in_a_log_works_from_any_folder(tmp_path, monkeypatch):
    (tmp_path / "my data").mkdir()
    path = tmp_path / "my data" / "it's.sqlite"
    with_log(path)
    with pytest.raises(ValueError, match="merge them with: ") as caught:
        introspect(path)
    program, named, statement = shlex.split(str(caught.value).partition("merge them with: ")[2])
    monkeypatch.chdir(tmp_path)
    with closing(sqlite3.connect(named)) as connection:
        assert program == "sqlite3" and connection.execute(statement).fetchone()[0] == 0
    assert [table.name for table in introspect(path).tables] == ["t"]


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: path.write_bytes(b"PK\3\4" * 50), "not a SQLite database"),
        (lambda path: make(path, "CREATE TABLE t (a); DROP TABLE t"), "no tables"),
        (lambda path: path.write_bytes(make(path).read_bytes()[:5000]), "cannot read the file"),
        (damaged, "cannot read the file"),
        (with_log, "not in the file yet"),
        (lambda path: None, "cannot be read"),
    ],
    ids=["empty", "other format", "no tables", "cut off", "damaged", "write-ahead log", "absent"],
)
def test_a_file_that_cannot_be_used_is_refused_with_the_reason(tmp_path, write, reason):
    path = tmp_path / "a.sqlite"
    write(path)
    with pytest.raises(ValueError, match=reason):
        introspect(path)
