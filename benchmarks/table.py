"""The table of docs/performance.md, from what `python -m benchmarks` and `python -m benchmarks.gpu` wrote:

    python -m benchmarks.table docs/performance.md benchmarks/results.json [benchmarks/results-gpu.json]

Every bar has a line, measured or not; where a row is in two files, the later one counts.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.pages import fill

PLACE = "measured"  # of the page: see pages.fill
BARS = {
    "1": "MIDI ingest",
    "2": "Audio ingest",
    "3": "Chamfer distance",
    "4": "Training step, and what the engine costs",
    "5": "Input wait, checkpoints, and what is never on the hot path",
    "6": "Generation",
    "7": "Spectocloud in real time",
    "8": "Start-up",
    "9": "Scale",
    "10": "On a GPU",
    "11": "On a shared host",
    "E": "Estimates",
}


def refresh(page: Path, results: Sequence[Mapping[str, Any]]) -> None:
    """Put the table between the page's two markers. Raises ValueError where it has none, or a result is of small
    sizes."""
    if any(result["small"] for result in results):
        raise ValueError("The table takes full sizes, not --small.")
    fill(page, PLACE, render(results))


def render(results: Sequence[Mapping[str, Any]], bars: Mapping[str, str] = BARS) -> str:
    """Markdown: a line a row, bar by bar, and where each file was measured."""
    rows = {(row["bar"], row["what"]): row for result in results for row in result["rows"]}
    lines = [
        "",
        "| # | measured | ours | the rival | result | wanted | | remarks |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for bar, title in bars.items():
        own = [row for row in rows.values() if _bar(row["bar"]) == bar]
        lines.append(f"| **{bar}** | **{title}** | | | | | {'' if own else 'not measured'} | |")
        lines += [_markdown(row) for row in own]
    lines += [_markdown(row) for row in rows.values() if not row["bar"]]  # subjects that failed
    counts = [verdict(row) for row in rows.values()]
    told = ", ".join(f"{counts.count(kind)} {kind}" for kind in ("met", "missed", "stated", "not measured", "failed"))
    return "\n".join([*lines, "", f"Figures: {told}.", "", *map(_place, results), ""])


def verdict(row: Mapping[str, Any]) -> str:
    """met, missed, stated (there is no bar, and it is as it should be), not measured, or failed."""
    if row["met"] is None:
        return "failed" if row["note"].startswith("failed: ") else "not measured"
    return ("stated" if row["wanted"] == "stated" else "met") if row["met"] else "missed"


def line(row: Mapping[str, Any]) -> str:
    """A row, for the terminal."""
    told = verdict(row)
    if row["met"] is None:
        return f"{told.upper():12} {row['bar']:4} {row['what']}; {row['note']}"
    rival = "" if row["rival"] is None else f" against {number(row['rival'])}"
    return (
        f"{told if row['met'] else told.upper():12} {row['bar']:4} {row['what']}: {_result(row)} "
        f"(wanted {row['wanted']}); {number(row['ours'])}{rival} {row['unit']}"
        + (f"; {row['note']}" if row["note"] else "")
    )


def number(value: float) -> str:
    """As a person reads it, to three or four digits."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _bar(name: str) -> str:
    """ "10a" -> "10", "E2" -> "E"."""
    found = re.match(r"\d+|[A-Z]", name)
    return found[0] if found else ""


def _result(row: Mapping[str, Any]) -> str:
    """With the unit that `wanted` is told in: ">= 40x" -> 52x."""
    found = re.fullmatch(r"[<>=]+ ?[\d.,]+( ?\D*)", row["wanted"])
    return number(row["ratio"]) + (found[1] if found else "")


def _markdown(row: Mapping[str, Any]) -> str:
    ours = f"{number(row['ours'])} {row['unit']}" if row["ours"] is not None else ""
    rival = f"{number(row['rival'])} {row['unit']}" if row["rival"] is not None else ""
    told = verdict(row)
    shown = told if told in ("met", "stated", "not measured") else f"**{told}**"
    note = row["note"].removeprefix("not measured: ").removeprefix("failed: ")
    cells = (
        row["bar"],
        row["what"],
        ours,
        rival,
        _result(row) if row["ratio"] is not None else "",
        row["wanted"],
        shown,
        note,
    )
    return "| " + " | ".join(cell.strip().replace("|", "\\|") for cell in cells) + " |"


def _place(result: Mapping[str, Any]) -> str:
    libraries = ", ".join(f"{name} {version}" for name, version in result["libraries"].items() if version)
    device = f"{result['device']}; " if result.get("device") else ""
    return (
        f"Measured {result['at']} by `{result['command']}`: {device}{result['processor']}, {result['cores']} cores, "
        f"{result['memory']}, load {result['load']} at its start; Python {result['python']}, {libraries}.\n"
    )


if __name__ == "__main__":
    try:
        refresh(Path(sys.argv[1]), [json.loads(Path(name).read_text(encoding="utf-8")) for name in sys.argv[2:]])
    except (IndexError, OSError, ValueError) as error:
        sys.exit(f"error: {error}\n{__doc__}")
