"""What the page shows of one training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from training.report.measures import Metric
from training.report.plots import Chart
from training.sampling_unit import UNIT, Unit


@dataclass
class Family:
    """A training: of a family, or of an item of one."""

    name: str  # "family", or "family/item"
    title: str
    state: str  # for people
    running: bool = False
    synthetic: bool = False
    word: str = ""  # the verdict
    look: str = "none"  # CSS class of the verdict: learnt, weak, failed or none
    why: list[str] = field(default_factory=list)
    caveat: str = ""  # to the verdict
    judged_on: str = ""  # "36 held-out rows; 144 were trained on"
    unit: Unit = UNIT
    share: float | None = None  # of the steps, while it trains
    numbers: list[tuple[str, str]] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    small: list[Chart] = field(default_factory=list)
    validations: list[dict[str, str]] = field(default_factory=list)
    overfitting: str = ""  # a sentence, if the newest evaluations show it
    metrics: list[Metric] = field(default_factory=list)
    receipt: Mapping[str, Any] | None = None
    files: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
