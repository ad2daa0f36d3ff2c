"""Writes the table of docs/reliability.md from the results of `python -m soak --output FILE`:

    python -m soak.table docs/reliability.md FILE...

Several files may each have some of the rows; if a row is in more than one, the last file is used.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.pages import fill

PLACE = "counted"  # name of the page's markers: see pages.fill


def refresh(page: Path, results: Sequence[dict[str, Any]]) -> None:
    """Put the table between the page's two markers. Raises ValueError if it has none, or a result was made with
    --small."""
    if any(result["small"] for result in results):
        raise ValueError("The table requires results with all trials, not those of --small.")
    fill(page, PLACE, render(results))


def render(results: Sequence[dict[str, Any]]) -> str:
    """The Markdown table, in the order of the rows' numbers, and the host on which the trials ran."""
    rows = {row["row"]: row for result in results for row in result["rows"]}
    lines = ["", "| # | fault | what must hold | tried | held | mutants caught |", "|---|---|---|---|---|---|"]
    for number in sorted(rows):
        row = rows[number]
        mutants = f"{sum(m['caught'] for m in row['mutants'])} of {len(row['mutants'])}: " + "; ".join(
            m["name"] + ("" if m["caught"] else " (NOT caught)") for m in row["mutants"]
        )
        tried = f"not run: {row['not_run']}" if row["not_run"] else row["tried"]
        note = f" ({row['note']})" if row["note"] else ""
        held = row["held"] if row["held"] == row["tried"] else f"**{row['held']}**"
        lines.append(f"| {number} | {row['fault']}{note} | {row['bar']} | {tried} | {held} | {mutants} |")
    place = results[-1]
    libraries = place["libraries"]
    counted = (
        f"{place['at']}, {place['processor']}, {place['cores']} cores, {'as root' if place['root'] else 'as a user'}, "
        f"Python {place['python']}, torch {libraries['torch']}, seed {place['seed']}"
    )
    return "\n".join([*lines, "", f"Counted: {counted}.", ""])


if __name__ == "__main__":
    refresh(Path(sys.argv[1]), [json.loads(Path(name).read_text(encoding="utf-8")) for name in sys.argv[2:]])
