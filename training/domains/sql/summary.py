"""The summary of `prepare`: its content for summary.json, and its printed form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from training.data.files import printable
from training.units import counted

#: How questions are held out -> how the summary words it.
SPLIT_BY = {
    "database": "no database is on both sides",
    "template": "no form of a query (its SQL with names and values blank) is on both sides",
    "files": "held out by the user's own files",
}


@dataclass
class Summary:
    """The result of prepare, also stored in `manifests/summary.json`; nothing in it depends on the clock."""

    synthetic: bool
    seed: int
    val_split: float
    dialect: str
    split_by: str = ""  # a key of SPLIT_BY
    questions: dict[str, int] = field(default_factory=dict)  # split -> rows
    read: int = 0  # rows of the files
    doubles: int = 0  # questions left out because an equal one is used
    empty: int = 0  # golds that return no rows
    by_text: int = 0  # questions that are judged by their text alone: there is no database, or the gold writes
    databases: dict[str, dict[str, Any]] = field(default_factory=dict)  # id -> file, tables, columns, rows, questions
    hardness: dict[str, dict[str, int]] = field(default_factory=dict)  # split -> level -> questions
    clauses: dict[str, dict[str, int]] = field(default_factory=dict)  # split -> clause -> questions
    strata: dict[str, dict[str, int]] = field(default_factory=dict)  # held-out split -> stratum -> questions
    leakage: list[dict[str, Any]] = field(default_factory=list)  # questions/leakage.py
    templates: int = 0  # different ones in training
    reasons: dict[str, int] = field(default_factory=dict)  # why questions were refused, in short -> how many
    quarantined: list[dict[str, str]] = field(default_factory=list)
    digest: str = ""  # of the data: questions, SQL and the content of the databases; the same on every host
    manifests: list[str] = field(default_factory=list)  # file names of this run's manifests
    up_to_date: bool = field(default=False, compare=False)  # nothing had to be written


def report(summary: Summary, folder: str, say: Callable[[str], None]) -> None:
    """Print the summary; `folder`: of the manifests, as it should be shown."""
    if summary.synthetic:
        say("  synthetic: true (questions and databases made by rules)")
    databases = counted(len(summary.databases), "database")
    say(f"  {counted(summary.read, 'question')} read, about {databases} ({summary.dialect})")
    parts = [f"{counted(summary.questions['train'], 'question')} to train on"]
    parts += [f"{count:,} held out ({split})" for split, count in summary.questions.items() if split != "train"]
    say(f"  {', '.join(parts)}; {SPLIT_BY[summary.split_by]}")
    for split, levels in summary.hardness.items():
        say(f"  hardness, {split}: {_counts(levels)}")
    for split, strata in summary.strata.items():
        say(f"  {split}: {_counts(strata)}")
    for row in summary.leakage:
        if row["count"] and row["alike"] != "template":
            say(f"  {row['split']}: {row['count']} of {row['of']} have a {row['alike']} that training has too")
    if summary.doubles:
        say(f"  {counted(summary.doubles, 'question')} left out: equal to another one")
    if summary.empty:
        say(f"  {counted(summary.empty, 'gold')} without rows: a wrong answer may return none either")
    if summary.by_text:
        say(f"  {counted(summary.by_text, 'question')} judged by text: a schema without rows, or a gold that writes")
    if summary.quarantined:
        say(f"  quarantined: {_counts(summary.reasons)}")
    _list(say, [f"{item['place'] or item['path']}: {item['reason']}" for item in summary.quarantined])
    say(f"  data digest {summary.digest[:16]}, manifests in {folder}")
    if summary.up_to_date:
        say("  up to date: nothing has changed")


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def _list(say: Callable[[str], None], items: Sequence[str], most: int = 5) -> None:
    for item in items[:most]:
        say(f"    {printable(item)}")
    if len(items) > most:
        say(f"    ... and {len(items) - most} more (see quarantine.jsonl)")
