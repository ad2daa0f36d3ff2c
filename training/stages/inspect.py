"""`inspect`: what a domain reads from files of the user, as text or as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from training.data.files import printable
from training.domain import Domain, Inspected, Job
from training.errors import DataError


def inspect(
    domain: Domain, job: Job, paths: Sequence[Path], *, as_json: bool = False, say: Callable[[str], None] = print
) -> None:
    """Print what `domain` reads from each of the files. Raises DataError, after all have been printed, if one is
    refused; UsageError for a domain that does not support it; HostError."""
    found: list[Inspected | str] = [_read(domain, job, path) for path in paths]
    if as_json:
        say(json.dumps([_plain(path, one) for path, one in zip(paths, found, strict=True)], indent=1))
    else:
        for path, one in zip(paths, found, strict=True):
            say("\n".join(_text(path, one)))
    refused = [path for path, one in zip(paths, found, strict=True) if isinstance(one, str)]
    if refused:
        raise DataError(f"{len(refused)} of {len(paths)} files cannot be used: the first is {printable(refused[0])}.")


def _read(domain: Domain, job: Job, path: Path) -> Inspected | str:
    """What is read from a file, or why it is refused."""
    if not path.exists():
        return "does not exist"
    try:
        return domain.inspect(job, path)
    except ValueError as error:
        return str(error)


def _plain(path: Path, one: Inspected | str) -> dict[str, Any]:
    return {"path": str(path)} | ({"refused": one} if isinstance(one, str) else asdict(one))


def _text(path: Path, one: Inspected | str) -> list[str]:
    if isinstance(one, str):
        first, *rest = one.splitlines() or [""]  # a reason may list the lines that are at fault
        return [f"{printable(path)}: refused: {printable(first)}", *map(printable, rest)]
    lines = [f"{printable(path)}: {one.kind}"]
    wide = max(map(len, one.facts), default=0)
    lines += [f"  {name:<{wide}}  {_cell(value)}" for name, value in one.facts.items()]
    for title, rows in one.tables.items():
        lines += [f"  {title}", *(f"    {line}" for line in _table(rows))]
    return [*lines, *(f"  remark: {printable(remark)}" for remark in one.remarks)]


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Aligned columns under their names; numbers to the right."""
    if not rows:
        return ["none"]
    names = list(rows[0])
    cells = [names, *([_cell(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    right = [all(isinstance(row[name], int | float) or row[name] is None for row in rows) for name in names]
    return [
        "  ".join(cell.rjust(width) if is_right else cell.ljust(width)
                  for cell, width, is_right in zip(line, widths, right, strict=True)).rstrip()
        for line in cells
    ]  # fmt: skip


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.3f}".rstrip("0").rstrip(".")
    return f"{value:,}" if isinstance(value, int) else printable(str(value))
