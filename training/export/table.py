"""Files as a table for people."""

from __future__ import annotations

from collections.abc import Iterable


def megabytes(count: int) -> str:
    """`21.3 MB`, `4.1 kB`."""
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"


def table(rows: Iterable[tuple[str, int, str]]) -> str:
    """(name, bytes, what is told of it) -> aligned lines."""
    listed = [(name, megabytes(count), told) for name, count, told in rows]
    wide = max((len(name) for name, _, _ in listed), default=0)
    return "\n".join(f"  {name:<{wide}}  {amount:>9}  {told}".rstrip() for name, amount, told in listed)
