"""Formats durations, sizes and rates for people. Uses the standard library only, and is cheap to import."""

from __future__ import annotations

import math


def duration(seconds: float) -> str:
    """`1:02:03`: hours, minutes, seconds. Hours are always shown, since `2:03` would be ambiguous. Infinity is "no
    limit"."""
    if not math.isfinite(seconds):
        return "no limit"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def size(count: float) -> str:
    """Bytes in decimal units, three digits: `4.1 kB`, `21.3 MB`, `1.5 GB`."""
    unit, scale = ("GB", 1e9) if count >= 1e9 else ("MB", 1e6) if count >= 1e6 else ("kB", 1e3)
    return f"{count / scale:,.3g} {unit}" if count < 1000 * scale else f"{count / scale:,.0f} {unit}"


def counted(count: int, noun: str) -> str:
    """A number and its noun, whose plural ends in s: "1 file", "1,204 files"."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def rate(step: float) -> str:
    """The pace of steps that take `step` seconds each: `8.3 steps/s`, or `2.1 s a step`."""
    return f"{1 / step:.3g} steps/s" if step < 1 else f"{step:.3g} s a step"
