"""The effect of emotions on the music that a model generates, from metrics.json."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from training.report.plots import number


@dataclass(frozen=True)
class Shift:
    """One trait of the music: for each emotion, its difference from the mean of all emotions, in the model's pieces and
    in the training music."""

    trait: str
    unit: str
    cells: list[tuple[str, str]]


def shifts(judged: Mapping[str, Any]) -> tuple[list[str], list[Shift]]:
    """(emotions, one row per trait)."""
    listed = judged.get("shifts") or {}
    emotions = list(dict.fromkeys(name for about in listed.values() for name in about.get("emotions") or {}))
    rows = []
    for trait, about in listed.items():
        of = about.get("emotions") or {}
        cells = [
            (_signed((of.get(name) or {}).get("model")), _signed((of.get(name) or {}).get("training_music")))
            for name in emotions
        ]
        rows.append(Shift(trait.replace("_", " "), str(about.get("unit") or ""), cells))
    return emotions, rows


def _signed(value: Any) -> str:
    if not isinstance(value, int | float) or isinstance(value, bool) or math.isnan(value):
        return ""
    return ("+" if value > 0 else "") + number(float(value), 2)
