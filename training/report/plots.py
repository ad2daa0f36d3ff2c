"""Geometry of the page's charts: paths in a square of 1000 x 1000 and labels in percent, so that a chart can be
stretched to any screen while its text keeps its size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

SIDE = 1000
MOST_POINTS = 400
WIDE = 30.0  # ratio of the largest to the smallest value above which an axis is logarithmic


@dataclass(frozen=True)
class Tick:
    at: float  # percent from the left, or from the top
    label: str


@dataclass(frozen=True)
class Line:
    name: str
    path: str  # of an SVG path element
    last: str  # newest value, formatted
    dots: tuple[tuple[float, float], ...] = ()  # percent; only where there are few points


@dataclass(frozen=True)
class Chart:
    title: str
    lines: tuple[Line, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    mark: float | None = None  # percent from the left: the best step
    logarithmic: bool = False
    description: str = ""  # the chart in a sentence, for screen readers


@dataclass(frozen=True)
class Bar:
    """A value between its bounds, on the axis of its metric. Percent."""

    at: float
    low: float
    high: float


@dataclass
class Axis:
    """A linear axis over all `values`, with a margin; it begins or ends at zero where zero is near."""

    values: Sequence[float]
    low: float = field(init=False)
    high: float = field(init=False)

    def __post_init__(self) -> None:
        low, high = min(self.values), max(self.values)
        if low > 0 and low < 0.6 * high:
            low = 0.0
        if high < 0 and high > 0.6 * low:
            high = 0.0
        margin = 0.06 * (high - low) or 0.5 * abs(high) or 0.5
        self.low = low if low == 0 else low - margin
        self.high = high if high == 0 and low < 0 else high + margin  # all zero: an axis has a length all the same

    def percent(self, value: float) -> float:
        return round(100 * (value - self.low) / (self.high - self.low), 2)


def chart(
    title: str, series: Sequence[tuple[str, Sequence[float], Sequence[float]]], mark: float | None = None
) -> Chart | None:
    """A chart of lines over steps. `series`: (name, steps, values) of each line; values that are not finite are left
    out. `mark`: a step to mark. None if no point is left."""
    kept = []
    for name, steps, values in series:
        x, y = np.asarray(steps, np.float64), np.asarray(values, np.float64)
        good = np.isfinite(x) & np.isfinite(y)
        if good.any():
            kept.append((name, *thinned(x[good], y[good])))
    if not kept:
        return None
    across = np.concatenate([x for _, x, _ in kept])
    up = np.concatenate([y for _, _, y in kept])
    logarithmic = bool(up.min() > 0 and up.max() / up.min() > WIDE)
    left, right = float(across.min()), float(across.max())
    if left == right:
        left, right = left - 1, right + 1
    height = np.log10 if logarithmic else np.asarray
    low, high = (float(v) for v in (height(up.min()), height(up.max())))
    margin = 0.06 * (high - low) or 0.5 * abs(high) or 0.5
    low, high = low - margin, high + margin

    def place(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return (x - left) / (right - left), 1 - (height(y) - low) / (high - low)

    lines = []
    for name, x, y in kept:
        px, py = place(x, y)
        points = " ".join(f"{a * SIDE:.1f},{b * SIDE:.1f}" for a, b in zip(px, py, strict=True))
        dots = tuple((round(100 * a, 2), round(100 * b, 2)) for a, b in zip(px, py, strict=True))
        lines.append(Line(name, f"M{points}", number(float(y[-1])), dots if len(dots) <= 12 else ()))
    marks = 10.0 ** np.arange(math.ceil(low), math.floor(high) + 1) if logarithmic else nice(low, high)
    if logarithmic and len(marks) < 2:
        marks = 10 ** np.linspace(low + margin, high - margin, 3)
    _, at = place(np.full(len(marks), left), np.asarray(marks, np.float64))
    description = "; ".join(
        f"{name} goes from {number(float(y[0]))} to {number(float(y[-1]))}, lowest {number(float(y.min()))}"
        for name, _, y in kept
    )
    return Chart(
        title, tuple(lines),
        tuple(
            Tick(round(100 * (s - left) / (right - left), 2), f"{s:,.0f}") for s in nice(left, right, 4, integral=True)
        ),
        tuple(Tick(round(100 * float(y), 2), number(float(v), 3)) for v, y in zip(marks, at, strict=True)),
        None if mark is None else round(100 * (mark - left) / (right - left), 2), logarithmic, description,
    )  # fmt: skip


def thinned(x: np.ndarray, y: np.ndarray, most: int = MOST_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """At most `most` points: the means of neighbours; the last point stays as it is."""
    if len(x) <= most:
        return x, y
    parts = np.array_split(np.arange(len(x) - 1), most - 1)
    mean = np.array([(x[p].mean(), y[p].mean()) for p in parts])
    return np.append(mean[:, 0], x[-1]), np.append(mean[:, 1], y[-1])


def nice(low: float, high: float, about: int = 4, *, integral: bool = False) -> list[float]:
    """About `about` round numbers between `low` and `high`, for the ticks of an axis."""
    step = 10 ** math.floor(math.log10((high - low) / about))
    step = next(step * k for k in (1, 2, 5, 10, 20) if (high - low) / (step * k) <= about)
    if integral:
        step = max(1.0, step)
    first = math.ceil(low / step)
    return [k * step for k in range(first, math.floor(high / step) + 1)]


def number(value: float, digits: int = 4) -> str:
    """`value` with `digits` significant digits."""
    if not math.isfinite(value):
        return "not finite"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    if size < 1e-3:
        return f"{value:.1e}"
    text = f"{value:.{max(0, digits - 1 - math.floor(math.log10(size)))}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
