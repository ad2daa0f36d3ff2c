"""Reads a training's metrics.jsonl and settings.yaml, possibly while they are being written, from
runs/<family>/<run-id>/ or runs/<family>/<item>/<run-id>/."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from training.engine.loop.stopping import Merit
from training.settings import EarlyStopping
from training.workspace import Workspace

METRICS, SETTINGS = "metrics.jsonl", "settings.yaml"
RANKING = ("monitor", "direction", "constraint")  # of training.early_stopping: by which evaluations are ranked
RECENT = 50  # newest records over which the current speed is taken


@dataclass(frozen=True)
class RunLog:
    """The records of one run so far."""

    folder: Path
    changed: float  # seconds since 1970: when metrics.jsonl was last written
    train: Sequence[dict[str, Any]] = ()
    validation: Sequence[dict[str, Any]] = ()
    ranking: EarlyStopping = field(default_factory=EarlyStopping)  # by which evaluations are ranked
    problem: str = ""  # why settings.yaml cannot be read; the ranking is then the default

    @property
    def step(self) -> int:
        return max((int(r["step"]) for r in (*self.train[-1:], *self.validation[-1:])), default=0)

    @property
    def total(self) -> int | None:
        """Steps planned; None in logs that do not record it."""
        return next((int(r["total_steps"]) for r in reversed(self.train) if "total_steps" in r), None)

    @property
    def seconds_left(self) -> float | None:
        found = self.train[-1].get("seconds_left") if self.train else None
        return float(found) if isinstance(found, int | float) and math.isfinite(found) else None

    @property
    def monitor(self) -> str:
        return self.ranking.monitor

    @property
    def best(self) -> dict[str, Any] | None:
        """The validation by which the exported weights are chosen."""
        named = {self.ranking.monitor, self.ranking.constraint.metric} - {None}
        judged = [r for r in self.validation if all(_finite(r.get(name)) for name in named)]
        merits = [(merit.violation, merit.value) for merit in (Merit.of(r, self.ranking) for r in judged)]
        return judged[merits.index(min(merits))] if judged else None

    @property
    def overfitting(self) -> dict[str, Any] | None:
        """The evaluation with the lowest val_loss, if that has risen in the newest two while the training loss fell
        since; else None."""
        losses = [r for r in self.validation if _finite(r.get("val_loss"))]
        if len(losses) < 3 or not losses[-3]["val_loss"] < losses[-2]["val_loss"] < losses[-1]["val_loss"]:
            return None
        began = losses[-3]["step"]
        before = [float(r["loss"]) for r in self.train if r["step"] <= began and _finite(r.get("loss"))][-RECENT:]
        after = [float(r["loss"]) for r in self.train if r["step"] > began and _finite(r.get("loss"))]
        if not before or not after or statistics.median(after) >= statistics.median(before):
            return None
        return min(losses, key=lambda record: record["val_loss"])

    def typical(self, name: str) -> float | None:
        """The median of a training record's number over the newest records."""
        values = [float(r[name]) for r in self.train[-RECENT:] if _finite(r.get(name))]
        return statistics.median(values) if values else None


def names(workspace: Workspace) -> set[str]:
    """The names of all trainings that have a log: "family", or "family/item"."""
    root = workspace.root / "runs"
    logs = [*root.glob(f"*/*/{METRICS}"), *root.glob(f"*/*/*/{METRICS}")]
    return {path.parent.parent.relative_to(root).as_posix() for path in logs}


def newest(workspace: Workspace, name: str) -> RunLog | None:
    """The run of this name that was written last; None if there is none."""
    found = [(path.stat().st_mtime, path) for path in workspace.runs(name).glob(f"*/{METRICS}")]
    return read(max(found)[1].parent) if found else None


def read(folder: Path) -> RunLog:
    """The run in `folder`. A line that is being written, or was cut short by a kill, is left out."""
    kinds: dict[str, list[dict[str, Any]]] = {"train": [], "validation": []}
    path = folder / METRICS
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(text)
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int) and record.get("kind") in kinds:
            kinds[record["kind"]].append(record)
    ranking, problem = EarlyStopping(), ""
    try:
        ranking = _ranking(folder / SETTINGS)
    except (ValueError, yaml.YAMLError) as error:  # pydantic's and a decoder's are ValueErrors
        problem = f"{folder.name}/{SETTINGS} cannot be read: {' '.join(str(error).split())[:200]}"
    return RunLog(folder, path.stat().st_mtime, kinds["train"], kinds["validation"], ranking, problem)


def _ranking(path: Path) -> EarlyStopping:
    """What a run's settings say of it; the default without a file. Raises ValueError or YAMLError for a damaged one."""
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return EarlyStopping()
    known = settings
    for key in ("training", "early_stopping"):
        known = known.get(key, {}) if isinstance(known, dict) else None
    if not isinstance(known, dict):
        raise ValueError("`training.early_stopping` is no mapping")
    return EarlyStopping.model_validate({key: known[key] for key in RANKING if key in known})


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
