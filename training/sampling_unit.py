"""The sampling unit of a domain's data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Unit:
    """The samples that belong together because they are alike. Different units are statistically independent: a
    bootstrap draws complete units, and a split never divides one."""

    one: str  # "row"
    many: str  # "rows"

    def of(self, count: int) -> str:
        """A number of units in words: "1 row", "12 rows"."""
        return f"{count:,} {self.one if count == 1 else self.many}"


UNIT = Unit("row", "rows")
