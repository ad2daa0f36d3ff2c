"""The list of all rows. A new module with rows must be added to MODULES. Those about one domain are in a folder of its
name."""

from __future__ import annotations

import importlib

from soak.harness import Mutant, Row

#: Modules of this folder, each with `ROWS: tuple[Row, ...]`.
MODULES: tuple[str, ...] = (
    "kills",
    "adapters",
    "numbers",
    "ranks",
    "orphans",
    "saves",
    "disks",
    "pairs",
    "stops",
    "workers",
    "media",
    "manifests",
    "configs",
    "stale",
    "planted",
    "trackers",
    "containers",
    "stores",
    "market.folds",
    "brain.regressions",
    "amp.captures",
)


def rows() -> list[Row]:
    """Every row, by number."""
    found = [row for name in MODULES for row in importlib.import_module(f"soak.{name}").ROWS]
    return sorted(found, key=lambda row: row.number)


def find_mutant(name: str) -> Mutant:
    """The mutant called "7:no clean-up"."""
    number, _, title = name.partition(":")
    return next(m for row in rows() if row.number == int(number) for m in row.mutants if m.name == title)
