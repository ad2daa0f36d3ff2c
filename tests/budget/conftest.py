"""A clock that is moved by hand, and a host without a GPU."""

from __future__ import annotations

import pytest

from training.budget import account as accounts
from training.budget import book as books
from training.budget import ledger as ledgers
from training.budget import limit as limits


class Clock:
    """A monotonic clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    for module in (books, ledgers):
        monkeypatch.setattr(module.time, "monotonic", made)
    monkeypatch.setattr(ledgers, "TICK", 1e6)
    monkeypatch.setattr(accounts, "slowness", lambda: 1.0)
    monkeypatch.delenv("ATHANOR_RUNNER", raising=False)
    return made


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(limits, "gpus", list)
