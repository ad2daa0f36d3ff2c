"""The unit of a domain's data: what is independent of its like."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Unit:
    """What is independent of its like: bootstraps draw it, splits keep it together."""

    one: str  # "row"
    many: str  # "rows"

    def of(self, count: int) -> str:
        """ "1 row", "12 rows"."""
        return f"{count:,} {self.one if count == 1 else self.many}"


UNIT = Unit("row", "rows")
