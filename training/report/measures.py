"""exports/metrics.json as charts: the model's value of each metric beside its baselines, on one axis."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from training.report.plots import Axis, Bar, number

MODEL = "this model"
ROWS, ROWS_BEFORE = "rows", "songs"  # key of the row counts, and its name in files of older versions
#: From the interval of the paired difference between model and baseline (`gap`).
BETTER, WORSE, UNSURE = "model is better", "model is worse", "no certain difference"


@dataclass(frozen=True)
class Row:
    """A value of one metric: the model's, or a baseline's."""

    name: str
    value: str
    bounds: str
    bar: Bar
    is_model: bool
    against: str  # of a baseline: BETTER, WORSE, UNSURE, or empty if not compared


@dataclass(frozen=True)
class Metric:
    name: str  # for people
    meaning: str
    unit: str
    better: str  # lower, higher, or empty
    rows: list[Row]
    floor: str  # what is required; empty: nothing
    floor_at: float  # percent
    reason: str  # why less is required than usual, or nothing at all; empty: the usual is required
    value: float  # of the model


def other_weights(judged: Mapping[str, Any], entry: Mapping[str, Any] | None) -> bool:
    """Whether the evaluated weights are others than those that were exported (`entry`, of the receipt)."""
    measured = (judged.get("subject") or {}).get("checkpoint_sha256")
    exported = ((entry or {}).get("checkpoint") or {}).get("sha256")
    return bool(measured and exported and measured != exported)


def row_counts(judged: Mapping[str, Any]) -> Mapping[str, int]:
    """How many rows were trained on and held out: {"train": n, "held_out": m}. Reads files of older versions too."""
    found = judged.get(ROWS) or judged.get(ROWS_BEFORE)
    return found if isinstance(found, Mapping) else {}


def metrics(judged: Mapping[str, Any]) -> list[Metric]:
    """The metrics that have a value, in the order of the file: the most important ones first."""
    found = (_metric(key, about) for key, about in (judged.get("metrics") or {}).items())
    return [metric for metric in found if metric]


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _metric(name: str, about: Mapping[str, Any]) -> Metric | None:
    """None where the model has no finite value."""
    values = {MODEL: about.get("model") or {}, **(about.get("baselines") or {})}
    values = {key: v for key, v in values.items() if isinstance(v, Mapping) and math.isfinite(_number(v.get("value")))}
    if MODEL not in values:
        return None
    better, floor = str(about.get("better") or ""), _number(about.get("floor"))
    estimated = bool(about.get("estimated", True))  # False: of too few units for an interval
    ends = {
        key: tuple(
            e if estimated and math.isfinite(e := _number(v.get(end))) else float(v["value"]) for end in ("low", "high")
        )
        for key, v in values.items()
    }
    required = [floor] if math.isfinite(floor) and floor else []  # a floor of 0 is no requirement
    axis = Axis([e for pair in ends.values() for e in pair] + [float(v["value"]) for v in values.values()] + required)
    rows = []
    for key, v in values.items():
        low, high = ends[key]
        bounds = f"{number(low, 3)} to {number(high, 3)}" if low < high else ""
        bar = Bar(axis.percent(float(v["value"])), axis.percent(low), axis.percent(high))
        against = _against(v.get("gap"), better) if estimated else ""
        rows.append(Row(key.replace("_", " "), number(float(v["value"]), 3), bounds, bar, key == MODEL, against))
    title = str(about.get("title") or name.replace("_", " "))
    return Metric(
        title, str(about.get("meaning") or ""), str(about.get("unit") or ""), better, rows,
        number(floor, 3) if required else "", axis.percent(floor) if required else 0.0,
        str(about.get("floor_reason") or ""), float(values[MODEL]["value"]),
    )  # fmt: skip


def _against(gap: Any, better: str) -> str:
    """BETTER, WORSE or UNSURE. `gap`: the difference model minus baseline on the same units, with its interval."""
    low, high = (_number((gap or {}).get(end)) for end in ("low", "high"))
    if better not in ("lower", "higher") or math.isnan(low) or math.isnan(high):
        return ""
    if low <= 0 <= high:
        return UNSURE
    if low == high:  # for example with a single unit: the uncertainty is unknown
        return ""
    return BETTER if (high < 0) == (better == "lower") else WORSE
