"""Helpers: stages of a job that take a given time by the test's clock, and what the ledger recorded of them."""

from __future__ import annotations

from training.budget import book as books
from training.budget import reserve as reserves
from training.budget.account import counted, ledger_path
from training.budget.ending import Ending
from training.budget.limit import Limit

FAMILIES = ["one", "two"]


def work(workspace, clock, stage, seconds, families=(), limit=Limit(), error=None, **options):  # noqa: B008  frozen
    with counted(workspace, stage, families, limit, **options) as account:
        clock.advance(seconds)
        if error:
            raise error
    return account


def book_of(workspace):
    return books.read(ledger_path(workspace))


def spent(workspace):
    return book_of(workspace).job.used().seconds


def trained(workspace, family, megabytes=1.0):
    folder = workspace.checkpoints(family)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "last.pt").open("wb") as file:
        file.truncate(int(megabytes * 1e6))


def due(workspace, families):
    return reserves.due(workspace, dict.fromkeys(families, Ending()))


def expected(workspace, stage, families):
    return reserves.expected(stage, due(workspace, families).values())


def kept(workspace, families, sessions=(), history=()):
    return sum(reserves.reserves(due(workspace, families), 1.0, sessions, history).values())
