"""SQL's checks of the data and of the host for `doctor`."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator

from training.domain import Finding, Job
from training.domains.sql.bases import hub
from training.domains.sql.bases.wanted import wanted_of
from training.domains.sql.questions.reading import databases_in, further_down
from training.errors import AthanorError, DataError
from training.units import size

STORE_SHARE = 0.001  # bytes in the store (a schema) per byte of a database
STORE_LEAST = 8_000  # bytes of a schema


def checks(job: Job) -> Iterator[Finding]:
    """The folder of the databases, the base on the Hub, and the package that PostgreSQL needs."""
    folder = job.path("databases")
    if folder is not None and folder.is_dir():
        try:
            count = len(databases_in(folder))
        except DataError as error:
            yield Finding("fails", "databases", str(error), "Leave one file for each database.",
                          error.exit_code)  # fmt: skip
        else:
            if count:
                yield Finding("ok", "databases", f"{count} in {folder}")
            else:
                yield Finding(
                    "fails", "databases", f"{folder} holds none.{further_down(folder)}",
                    "Name a folder of <id>.sqlite or <id>/<id>.sqlite.", DataError.exit_code,
                )  # fmt: skip
    if job.options.get("download"):
        yield _download(job, job.options["download"])
    if job.options.get("database_url"):
        if importlib.util.find_spec("psycopg") is None:
            yield Finding(
                "fails", "psycopg", "missing, and --database-url names a PostgreSQL database",
                "pip install 'psycopg[binary]'",
            )  # fmt: skip
        else:
            yield Finding("ok", "psycopg", "installed")


def _download(job: Job, text: str) -> Finding:
    """Whether the base can be downloaded, before anything else is done."""
    try:
        wanted = wanted_of(text)
        folder = hub.here(job.workspace.cache, wanted)
        if folder is not None:
            return Finding("ok", "base", f"{wanted} is in {folder}")
        remote = hub.look(wanted)
    except AthanorError as error:
        return Finding("fails", "base", str(error), exit_code=error.exit_code)
    return Finding("ok", "base", f"{wanted}: {size(remote.bytes)}, licence: {remote.licence}; commit {remote.commit}")


def store_bytes(job: Job) -> int:
    """Expected size of the stores of all databases."""
    folder = job.path("databases")
    if folder is None or not folder.is_dir():
        return 0
    try:
        found = databases_in(folder).values()
    except DataError:
        return 0  # `checks` reports it
    return sum(STORE_LEAST + int(os.stat(path).st_size * STORE_SHARE) for path in found)  # noqa: PTH116
