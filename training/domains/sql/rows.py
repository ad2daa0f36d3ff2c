"""The schema of a manifest row: a question, its SQL, and the database that it is about."""

from __future__ import annotations

from typing import Any, get_args

from training.data.schema import ID, Key, PathKey, Schema, text
from training.domains.sql.databases.schema import Dialect
from training.domains.sql.queries.hardness import Hardness

DATABASE_PATH = "database_path"
STRATA = ("new database", "new template", "seen template", "new wording", "seen wording", "new composition")
JUDGED = ("execution", "text")  # by executing the answer, or by its text alone: the database has no rows


def _one_of(name: str, choices: tuple[str, ...]) -> Key:
    def check(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"`{name}` should be one of {', '.join(choices)}; it is {value!r}")
        return value

    return Key(check)


def _any_text(name: str) -> Key:
    """A key that holds a text, which may be empty."""

    def check(value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError(f"`{name}` should be a text; it is {value!r}")
        return value

    return Key(check)


SCHEMA = Schema(
    place="training.domains.sql.rows:SCHEMA",
    # a file of a folder that the user names, or of the workspace where a schema is all that is known of a database
    paths=(PathKey(DATABASE_PATH, root="databases", folder="data/databases", shared=True),),
    keys={
        "question": text("question"),
        "sql": text("sql"),
        "database": text("database"),
        "database_url": text("database_url"),  # of a PostgreSQL database, without a password
        "dialect": _one_of("dialect", get_args(Dialect)),
        "evidence": _any_text("evidence"),
        "template": _any_text("template"),
        "hardness": _one_of("hardness", get_args(Hardness)),
        "stratum": _one_of("stratum", STRATA),
        "judged": _one_of("judged", JUDGED),
        "kind": _any_text("kind"),  # of query, and of wording: the demo's
        "wording": _any_text("wording"),
    },
    required=("question", "sql", "database", "dialect"),
    names=(ID, "database_url", "hardness", "stratum", "kind", "wording", "template", "group"),
    defaults={"evidence": "", "template": "", "judged": "execution", "kind": "", "wording": ""},
    group="group",
    example='{"question": ..., "sql": ..., "database": ..., "database_path": ..., "dialect": "sqlite"}',
)
