"""Computes the features of every decision."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from training.domains.market.bars.cleaning import Minutes
from training.domains.market.bars.sessions import DAY_MINUTES, EPOCH_WEEK, MOST_MISSING, WEEK_MINUTES, Session
from training.domains.market.bars.timeframes import BASE, TIMEFRAMES, Bars, bars_of, latest, stretches
from training.domains.market.bars.times import MINUTE
from training.domains.market.features.columns import columns
from training.domains.market.features.declared import FEATURES, Feature

NO_WEIGHTS = np.zeros(0)
TINY = 1e-30  # libraries of trees treat smaller values differently


@dataclass(frozen=True, eq=False)
class Computed:
    """Features of every decision, ascending. A decision is made at the completion of a bar of the base timeframe."""

    values: np.ndarray  # float32 [N, F]
    decided: np.ndarray  # int64 [N], nanoseconds UTC
    bar: np.ndarray  # int64 [N]: index of the base bar
    run: np.ndarray  # int32 [N]: contiguous stretch
    base: Bars


def compute(minutes: Minutes) -> Computed:
    """All features of all decisions at which all of them are defined."""
    bars = {timeframe: bars_of(minutes, timeframe) for timeframe in TIMEFRAMES}
    base = bars[BASE]
    parts, known = [], np.ones(len(base), bool)
    for timeframe, of in bars.items():
        own = [feature for feature in FEATURES if feature.timeframe == timeframe]
        table = of_bars(of, own)
        index = np.arange(len(base)) if timeframe == BASE else latest(of, base.complete, base.segment)
        rows = table[index] if len(of) else np.full((len(base), len(own)), np.nan, np.float32)
        known &= (index >= 0) & np.isfinite(rows).all(1)
        parts.append(rows)
    parts.append(of_time(base.complete, minutes.session))
    kept = np.flatnonzero(known)
    values = np.concatenate([part[kept] for part in parts], 1)
    return Computed(values, base.complete[kept], kept, stretches(minutes, base, MOST_MISSING)[kept], base)


def of_bars(bars: Bars, features: list[Feature]) -> np.ndarray:
    """The values of some features at every bar of their timeframe: float32 [n, F]; nan where there are too few bars
    since the beginning, a split or a roll."""
    out = np.full((len(bars), len(features)), np.nan, np.float32)
    if not len(bars):
        return out
    edges = np.concatenate([[0], np.flatnonzero(np.diff(bars.segment)) + 1, [len(bars)]])
    for first, last in pairwise(edges):
        x = columns(np.ascontiguousarray(bars.values[:, first:last]))
        for number, feature in enumerate(features):
            out[first:last, number] = _column(x, feature)
    return out


def _column(x: np.ndarray, feature: Feature) -> np.ndarray:
    values = np.full(x.shape[1], np.nan)
    weights = NO_WEIGHTS if feature.weights is None else feature.weights
    feature.kernel(x, feature.n, feature.p, weights, values)
    values[np.abs(values) < TINY] = 0.0
    return values


def of_time(decided: np.ndarray, session: Session) -> np.ndarray:
    """The time features of decisions: float32 [N, 5]; the last is in hours since the trading day began."""
    minute = decided // MINUTE - EPOCH_WEEK
    day, week = (2 * np.pi * (minute % length) / length for length in (DAY_MINUTES, WEEK_MINUTES))
    since = (minute - session.day_start) % DAY_MINUTES
    return np.stack([np.sin(day), np.cos(day), np.sin(week), np.cos(week), since / 60], 1).astype(np.float32)
