"""Small random decisions, and rows of a manifest that name them, for tests of models."""

from __future__ import annotations

import numpy as np

from training.data.rows import Row
from training.domains.market.decisions import Decisions
from training.domains.market.features.declared import UNDIRECTED
from training.domains.market.rows import DECISIONS_PATH

BARS = 40  # decisions in a trading day
MINUTE = 60_000_000_000


def some_decisions(days: int = 30, features: int = 6, seed: int = 0) -> Decisions:
    """`days` trading days of BARS decisions. The label depends on the first two features; one feature is rounded, so
    that many values lie on thresholds; one has many zeros. Every day is a contiguous stretch."""
    random = np.random.default_rng(seed)
    count = days * BARS
    x = random.standard_normal((count, features)).astype(np.float32)
    x[:, 1] = np.round(x[:, 1] * 2) / 2
    x[:, 2] = np.where(random.random(count) < 0.5, 0, x[:, 2])
    score = x[:, 0] + x[:, 1] + 0.5 * random.standard_normal(count)
    day, bar = np.divmod(np.arange(count), BARS)
    decided = (day * 1440 + 800 + bar * 5) * MINUTE
    ones = np.ones(count, np.float32)
    names = (*(f"f{number}" for number in range(features - 1)), min(UNDIRECTED))  # the volatility-only model needs one
    return Decisions(
        names, x, np.digitize(score, [-0.7, 0.7]).astype(np.int8),
        decided, decided + MINUTE, decided + 30 * MINUTE, random.uniform(0.2, 1, count).astype(np.float32),
        *[score.astype(np.float32)] * 2, 1.5 * ones, ones, 0.1 * ones, day.astype(np.int32), day.astype(np.int32),
    )  # fmt: skip


def rows_of(decisions: Decisions, days: range, path: str = "/x/data/decisions/X.decisions") -> list[Row]:
    """One row for each of the trading days."""
    arrays = decisions.arrays()
    return [
        Row({DECISIONS_PATH: path, "symbol": "X", "first": day * BARS, "last": (day + 1) * BARS, "id": f"X {day}"},
            "m:1", {DECISIONS_PATH: arrays})
        for day in days
    ]  # fmt: skip


def splits(decisions: Decisions, root: str = "/x") -> dict[str, list[Row]]:
    """The first 2/3 of the days to train, the others to validate."""
    days = int(decisions.day.max()) + 1
    cut, path = days * 2 // 3, f"{root}/data/decisions/X.decisions"
    return {"train": rows_of(decisions, range(cut), path), "val": rows_of(decisions, range(cut, days), path)}
