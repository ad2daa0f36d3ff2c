"""What the options of a command mean together. Imports nothing heavy: it is used while a command is planned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

from training.data.files import printable
from training.errors import UsageError


def dialect_of(options: Mapping[str, Any]) -> Literal["sqlite", "postgres"]:
    """The dialect of the SQL: the option's, else that of the databases. Raises UsageError if the two differ, or for a
    URL that cannot be used."""
    url, dialect = options.get("database_url"), options.get("dialect")
    if url:
        _check_url(url)
        if options.get("databases") is not None:
            raise UsageError("Both --databases and --database-url are given: name one of them.")
        if dialect == "sqlite":
            raise UsageError("--dialect sqlite does not fit --database-url, which names a PostgreSQL database.")
        return "postgres"
    if dialect == "postgres" and options.get("databases") is not None:
        raise UsageError("--dialect postgres needs --database-url: the files of --databases are SQLite's.")
    return dialect or "sqlite"


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UsageError(f"--database-url is no URL: {error}") from None
    if parts.scheme not in ("postgresql", "postgres"):
        raise UsageError(f"--database-url begins with postgresql://; this one begins with {printable(url[:12])!r}.")
    if parts.password is not None or "password=" in parts.query:
        raise UsageError(
            "--database-url holds a password, which every user of this host could read in the list of processes, and "
            "which would be written into the manifests. Set PGPASSWORD, or write it into ~/.pgpass."
        )
