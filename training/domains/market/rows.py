"""The schema of a manifest row: the decisions of one symbol on one trading day.

A row refers to a part of the file of its symbol's decisions. `begin` and `end` are the time from its first decision to
the end of its last label, in seconds: the core refuses held-out rows whose time overlaps a training row's.
"""

from __future__ import annotations

from typing import Any

from training.data.schema import Key, PathKey, Schema, text

DECISIONS_PATH = "decisions_path"


def _count(name: str) -> Key:
    """A key that holds a whole number from 0 up."""

    def check(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ValueError(f"`{name}` should be a whole number from 0 up; it is {value!r}")
        return value

    return Key(check)


SCHEMA = Schema(
    place="training.domains.market.rows:SCHEMA",
    paths=(PathKey(DECISIONS_PATH, folder="data/decisions"),),
    keys={
        "symbol": text("symbol"),
        "first": _count("first"),  # index of the day's first decision in the file
        "last": _count("last"),  # index after its last
    },
    required=("symbol", "first", "last"),
    spans={DECISIONS_PATH: ("begin", "end")},
    group="day",  # "MES 2024-03-05": a trading day is in one split
    example='{"decisions_path": ..., "symbol": "MES", "first": 0, "last": 264, "begin": ..., "end": ..., "day": ...}',
)
