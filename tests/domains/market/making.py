"""Makes small markets for the tests: random walks with the hours of a futures exchange."""

from __future__ import annotations

import numpy as np

from training.domains.market.bars.cleaning import Minutes, clean
from training.domains.market.bars.times import MINUTE

MONDAY = 19_723 * 1_440  # minutes from 1970 to 2024-01-01, a Monday


def open_minutes(count: int, start: int = MONDAY) -> np.ndarray:
    """The first `count` minutes (int64, since 1970) from `start` of a market that is open from Monday 0:00 to Friday
    22:00, except from 22:00 to 23:00."""
    minute = start + np.arange(count * 2 + 10_080)
    of_week, of_day = (minute - 4 * 1_440) % 10_080, minute % 1_440
    shut = (of_week >= 4 * 1_440 + 1_320) | (of_day // 60 == 22)
    return minute[~shut][:count]


def raw_bars(count: int, seed: int = 0, sigma: float = 2e-4, start: int = MONDAY) -> dict[str, np.ndarray]:
    """Arrays as `reading.decode` returns them: a random walk around 4,000."""
    random = np.random.default_rng(seed)
    moves = sigma * random.standard_normal((count, 4)) / 2
    path = np.log(4_000) + np.cumsum(moves.ravel()).reshape(count, 4)
    first = np.concatenate([[np.log(4_000)], path[:-1, -1]]) + sigma / 10 * random.standard_normal(count)
    points = np.exp(np.column_stack([first, path]))
    return {
        "time": open_minutes(count, start) * MINUTE,
        "open": points[:, 0], "high": points.max(1), "low": points.min(1), "close": points[:, -1],
        "volume": random.integers(1, 500, count).astype(np.float64),
        "naive": np.zeros(1, np.uint8), "first_line": np.array([2]),
    }  # fmt: skip


def minutes(count: int, seed: int = 0, **more: float) -> Minutes:
    """The same, cleaned."""
    return clean("MES", raw_bars(count, seed, **more))[0]
