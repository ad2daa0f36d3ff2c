"""The table of docs/performance.md, from the results of `python -m benchmarks` and `python -m benchmarks.gpu`:

    python -m benchmarks.table docs/performance.md benchmarks/results.json [benchmarks/results-gpu.json]

Every bar has a line, measured or not; if a row is in two files, that which was measured later is used.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.pages import fill

PLACE = "measured"  # name of the page's markers: see pages.fill
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
    "12": "SQL fine-tuning, against TRL's SFTTrainer",
    "13": "Market",
    "B": "Budgets",
    "E": "Estimates",
}


def refresh(page: Path, results: Sequence[Mapping[str, Any]]) -> None:
    """Put the table between the page's markers. Raises ValueError if it has none, or if a result has small sizes."""
    if any(result["small"] for result in results):
        raise ValueError("The table is for results of full sizes, not of --small.")
    fill(page, PLACE, render(results))


def render(results: Sequence[Mapping[str, Any]], bars: Mapping[str, str] = BARS) -> str:
    """Markdown: one line per row, bar by bar, and the machine of each file, in the order of time."""
    results = sorted(results, key=lambda result: str(result["at"]))
    rows = {(row["bar"], row["what"]): row for result in results for row in result["rows"]}
    lines = [
        "",
        "| # | measured | ours | reference | result | wanted | | remarks |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for bar, title in bars.items():
        own = [row for row in rows.values() if _bar(row["bar"]) == bar]
        lines.append(f"| **{bar}** | **{title}** | | | | | {'' if own else 'not measured'} | |")
        lines += [_markdown(row) for row in own]
    lines += [_markdown(row) for row in rows.values() if not row["bar"]]  # subjects that failed
    counts = [verdict(row) for row in rows.values()]
    kinds = ("met", "missed", "stated", "not measured", "failed")
    figures = ", ".join(f"{counts.count(kind)} {kind}" for kind in kinds)
    return "\n".join([*lines, "", f"Figures: {figures}.", "", *map(_place, results), ""])


def verdict(row: Mapping[str, Any]) -> str:
    """met, missed, stated (a figure without a bar), not measured, or failed."""
    if row["met"] is None:
        return "failed" if row["note"].startswith("failed: ") else "not measured"
    return ("stated" if row["wanted"] == "stated" else "met") if row["met"] else "missed"


def line(row: Mapping[str, Any]) -> str:
    """A row, for the terminal."""
    word = verdict(row)
    if row["met"] is None:
        return f"{word.upper():12} {row['bar']:4} {row['what']}; {row['note']}"
    reference = "" if row["reference"] is None else f" against {number(row['reference'])}"
    return (
        f"{word if row['met'] else word.upper():12} {row['bar']:4} {row['what']}: {_result(row)} "
        f"(wanted {row['wanted']}); {number(row['ours'])}{reference} {row['unit']}"
        + (f"; {row['note']}" if row["note"] else "")
    )


def number(value: float) -> str:
    """`value` with three significant digits; without decimals from 1,000 on."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _bar(name: str) -> str:
    """ "10a" -> "10", "E2" -> "E"."""
    found = re.match(r"\d+|[A-Z]", name)
    return found[0] if found else ""


def _result(row: Mapping[str, Any]) -> str:
    """The result in the unit of `wanted`: ">= 40x" -> 52x."""
    found = re.fullmatch(r"[<>=]+ ?[\d.,]+( ?\D*)", row["wanted"])
    return number(row["ratio"]) + (found[1] if found else "")


def _markdown(row: Mapping[str, Any]) -> str:
    ours = f"{number(row['ours'])} {row['unit']}" if row["ours"] is not None else ""
    reference = f"{number(row['reference'])} {row['unit']}" if row["reference"] is not None else ""
    word = verdict(row)
    shown = word if word in ("met", "stated", "not measured") else f"**{word}**"
    note = row["note"].removeprefix("not measured: ").removeprefix("failed: ")
    cells = (
        row["bar"],
        row["what"],
        ours,
        reference,
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
