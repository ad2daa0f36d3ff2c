"""The rules of the demo's markets.

A minute has four steps. A step's return is normal, with a standard deviation that follows the hour and a slow random
level. In PLANTED, a hidden direction of -1, 0 or 1 lasts DURATION minutes on average, and moves the price by DRIFT
standard deviations a minute. NULL has the same volatility, volumes and random numbers, and no direction: a martingale.
So volatility can be predicted in both, and the sign of a move in PLANTED alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.domains.market.compiling import compiled

MINUTES = 150_000
DRIFT = 0.28  # of the hidden direction, in standard deviations a minute
DURATION = 120.0  # minutes on average
SIGMA = 2.5e-4  # of a minute's return at the usual level
LEVEL_KEPT, LEVEL_MOVED = 0.998, 0.02  # of the logarithm of the volatility, an AR(1) process
STEPS = 4
PRICE, TICK = 4_000.0, 0.25
NAMES = ("PLANTED", "NULL")


@dataclass(frozen=True, eq=False)
class World:
    """One market. `open`, `high`, `low`, `close`, `volume`: float64 [n]; `direction` int8 [n] and `level` float64 [n]:
    the hidden state during a minute."""

    open: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    volume: np.ndarray
    direction: np.ndarray
    level: np.ndarray


def by_hour(minute: np.ndarray) -> np.ndarray:
    """Volatility relative to the usual, by minute since 1970 (UTC): busy from 13:30 to 20:00, quiet at night."""
    hour = (minute % 1_440) / 60
    return 0.7 + 0.8 * np.exp(-(((hour - 14.5) / 1.5) ** 2)) + 0.5 * np.exp(-(((hour - 19.5) / 1.5) ** 2))


def make(minute: np.ndarray, seed: int, has_direction: bool) -> World:
    """The bars of a market that is open at `minute` (int64 [n], minutes since 1970)."""
    random = np.random.default_rng([seed, 0x3A6B])  # the same numbers with and without a direction
    count = len(minute)
    normal = random.standard_normal((count, STEPS))
    level = levels(random.standard_normal(count))
    direction = directions(random.random(count), random.integers(-1, 2, count))
    noise = random.standard_normal(count)
    if not has_direction:
        direction = np.zeros_like(direction)
    sigma = SIGMA * by_hour(minute) * np.exp(level)
    steps = sigma[:, None] * (normal / np.sqrt(STEPS) + DRIFT / STEPS * direction[:, None])
    path = np.log(PRICE) + np.cumsum(steps.ravel()).reshape(count, STEPS)
    before = np.concatenate([[np.log(PRICE)], path[:-1, -1]])
    points = np.round(np.exp(np.column_stack([before, path])) / TICK) * TICK
    volume = np.round(200 * by_hour(minute) * np.exp(0.5 * level + 0.4 * noise)) + 1
    return World(points[:, 0], points.max(1), points.min(1), points[:, -1], volume, direction, level)


@compiled
def levels(normal):
    """The logarithm of the volatility level: float64 [n]."""
    out = np.empty(len(normal), np.float64)
    level = 0.0
    for i in range(len(normal)):
        level = LEVEL_KEPT * level + LEVEL_MOVED * normal[i]
        out[i] = level
    return out


@compiled
def directions(uniform, choice):
    """The hidden direction: int8 [n]. It is drawn again with probability 1 / DURATION in each minute."""
    out = np.empty(len(uniform), np.int8)
    direction = choice[0]
    for i in range(len(uniform)):
        if uniform[i] < 1.0 / DURATION:
            direction = choice[i]
        out[i] = direction
    return out
