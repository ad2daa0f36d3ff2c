"""A family that fans out has one model per item: its items are in one table, the worst first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from training.registry import family_of, item_of
from training.report.family import Family
from training.report.reading import objects, read_json
from training.workspace import Workspace

QUARANTINED = "quarantined.json"  # under runs/
WORST = 3  # items that are shown in detail
LISTED = 30  # items that are shown at once; the rest is collapsed
#: CSS class of a verdict -> its place in the table: the worst first, items without a verdict after the bad ones.
ORDER = {"failed": 1, "weak": 2, "none": 3, "learnt": 4}


@dataclass(frozen=True)
class Item:
    """A row of the table."""

    name: str
    state: str
    word: str  # of the verdict; empty: not judged
    look: str
    figure: str  # the key metric's value and bounds
    reason: str = ""  # why it is quarantined


@dataclass(frozen=True)
class Group:
    name: str
    title: str
    figure: str  # name of the key metric
    counts: list[tuple[str, int]]  # (verdict's word, or "quarantined" or "not judged"; number of items)
    items: list[Item]  # the worst first
    worst: list[Family] = field(default_factory=list)
    files: list[dict[str, str]] = field(default_factory=list)  # exported, of all items

    @property
    def listed(self) -> list[Item]:
        return self.items[:LISTED]

    @property
    def rest(self) -> list[Item]:
        return self.items[LISTED:]


@dataclass(frozen=True)
class Quarantined:
    reason: str
    text: str  # "quarantined in train (exit 5)"


def quarantined(workspace: Workspace) -> dict[str, Quarantined]:
    """Name of a run -> why a fan-out continued without it. Raises ValueError for a damaged file, OSError."""
    path = workspace.root / "runs" / QUARANTINED
    return {name: _quarantined(about) for name, about in objects(read_json(path) or {})}


def _quarantined(about: Mapping[str, Any]) -> Quarantined:
    stage, code = about.get("stage"), about.get("exit")
    where = f" in {stage}" if stage else ""
    return Quarantined(str(about.get("reason") or ""), f"quarantined{where}" + (f" (exit {code})" if code else ""))


def group(families: Sequence[Family], titles: Mapping[str, str], out: Mapping[str, Quarantined]) -> list[Group]:
    """One group for each family that fans out: its items among `families` (runs named family/item), and those of `out`
    that never ran. `titles`: the families' titles by name."""
    by_family: dict[str, dict[str, Family | None]] = {}
    for one in families:
        if item_of(one.name):
            by_family.setdefault(family_of(one.name), {})[one.name] = one
    for name in out:
        if item_of(name):
            by_family.setdefault(family_of(name), {}).setdefault(name, None)
    return [_group(name, titles.get(name, name), items, out) for name, items in by_family.items()]


def _group(name: str, title: str, items: Mapping[str, Family | None], out: Mapping[str, Quarantined]) -> Group:
    figure = next((one.metrics[0].name for one in items.values() if one and one.metrics), "")
    ordered = sorted(items, key=lambda run: (_badness(items[run], run in out), run))
    counts: dict[str, int] = {}
    for run in ordered:
        label = "quarantined" if run in out else (items[run].word if items[run] else "") or "not judged"
        counts[label] = counts.get(label, 0) + 1
    listed = [_item(run, items[run], out.get(run), figure) for run in ordered]
    judged = [items[run] for run in ordered if items[run] is not None and items[run].word]
    files = [
        file | {"name": file["name"], "item": item_of(one.name)}
        for one in items.values()
        if one is not None
        for file in one.files
    ]
    return Group(name, title, figure, list(counts.items()), listed, judged[:WORST], files)


def _badness(one: Family | None, is_out: bool) -> tuple[int, float]:
    """Sort key that puts the worst first: by verdict, then by the key metric."""
    if is_out or one is None:
        return 0, 0.0
    metric = one.metrics[0] if one.metrics else None
    value = metric.value if metric and math.isfinite(metric.value) else 0.0
    return ORDER.get(one.look, 3), value if metric and metric.better == "higher" else -value


def _item(run: str, one: Family | None, out: Quarantined | None, figure: str) -> Item:
    metric = next((m for m in one.metrics if m.name == figure), None) if one else None
    model = next((row for row in metric.rows if row.is_model), None) if metric else None
    value = f"{model.value}{f' ({model.bounds})' if model.bounds else ''}" if model else ""
    return Item(
        item_of(run),
        out.text if out else one.state if one else "",
        one.word if one and not out else "",
        "failed" if out else one.look if one else "none",
        value,
        out.reason if out else "",
    )
