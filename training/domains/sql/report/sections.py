"""The sections of the report: answers with their rows, right answers by kind, and the questions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from training.domain import Section
from training.report.reading import attempt, read_json
from training.workspace import Workspace

HERE = Path(__file__).parent
STYLE = HERE / "sql.css"
TITLES = {
    "hardness": "hardness (as Spider defines it)",
    "stratum": "what is new in the question",
    "database": "database",
    "kind": "kind of query",
}


def sections(workspace: Workspace) -> Iterator[Section]:
    """The sections of the job in `workspace`; those without data yet are left out."""
    metrics = attempt(lambda: read_json(workspace.exports / "metrics.json"), []) or {}
    judged = (metrics.get("families") or {}).get("text_to_sql") or {}
    found = judged.get("sql") or {}
    if found.get("answers"):
        yield Section("answers", "Answers", HERE / "answers.html.j2", {"answers": found["answers"]}, "after verdict",
                      style=STYLE)  # fmt: skip
    tables = [table for key, title in TITLES.items() if (table := _table(title, found.get(key) or []))]
    if tables:
        facts = {"tables": tables, "errors": found.get("errors") or [], "unjudged": found.get("unjudged") or 0}
        yield Section("right", "Right answers", HERE / "right.html.j2", facts, "after results", style=STYLE)
    summary = attempt(lambda: read_json(workspace.manifests / "summary.json"), [])
    if summary is not None:
        yield Section("questions", "Questions", HERE / "questions.html.j2", {"summary": summary}, "data", style=STYLE)


def _table(title: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Right answers of each predictor, a row for each group of questions."""
    if not rows:
        return None
    predictors = list(dict.fromkeys(name for row in rows for name in row["right"]))
    return {
        "title": title,
        "predictors": predictors,
        "rows": [
            {
                "name": row["name"],
                "questions": row["questions"],
                "cells": [_cell(row["right"].get(p)) for p in predictors],
            }
            for row in rows
        ],
    }


def _cell(value: float | None) -> dict[str, Any]:
    return {"text": "", "share": 0.0} if value is None else {"text": f"{value:.0f} %", "share": value}
