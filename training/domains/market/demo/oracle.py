"""What could be known at best: the probabilities of the labels given the hidden state, by simulation.

From the state at a decision, the market is simulated PATHS times with the rules of `world`. Every decision uses the
same random numbers, so the difference between two decisions is that of their states.
"""

from __future__ import annotations

from pathlib import Path

import numba
import numpy as np

from training.domains.market.bars.times import MINUTE
from training.domains.market.decisions import Decisions
from training.domains.market.demo import world
from training.domains.market.labels.costs import Barriers

PATHS = 128
EVERY = 6  # decisions; one of so many is simulated


def simulate(
    state: Path, decisions: Decisions, atr: np.ndarray, barriers: Barriers, seed: int
) -> dict[str, np.ndarray]:
    """The oracle's probabilities of one decision in EVERY.

    `state`: the file that the demo wrote. `atr`: float64 [N], relative to the price. Returns `decided` (int64 [m]) and
    `proba` (float32 [m, 3]).
    """
    with np.load(state) as hidden:
        time, direction, level = hidden["time"], hidden["direction"], hidden["level"]
    index = np.arange(0, len(decisions), EVERY)
    at = np.searchsorted(time, decisions.decided[index], side="left") - 1  # the last minute that is known
    length = 5 * barriers.bars
    minute = time // MINUTE
    # the hours of the minutes after each decision; the end of the file is repeated
    after = np.minimum(at[:, None] + 1 + np.arange(length), len(minute) - 1)
    by_hour = world.by_hour(minute[after])
    random = np.random.default_rng([seed, 0x0AC1])
    counts = _simulate(
        direction[at], level[at], by_hour, atr[index], decisions.up[index].astype(np.float64),
        decisions.down[index].astype(np.float64), random.standard_normal((PATHS, length, world.STEPS)),
        random.standard_normal((PATHS, length)), random.random((PATHS, length)),
        random.integers(-1, 2, (PATHS, length)), float(direction.any()),
    )  # fmt: skip
    proba = (counts + 1 / 3) / (PATHS + 1)
    return {"decided": decisions.decided[index], "proba": proba.astype(np.float32)}


@numba.njit(nogil=True)
def _simulate(direction, level, by_hour, atr, up, down, normal, moves, uniform, choice, moving):
    """How often each barrier is touched first: float64 [m, 3]."""
    counts = np.zeros((len(direction), 3), np.float64)
    root = np.sqrt(world.STEPS)
    for i in range(len(direction)):
        upper, lower = np.log1p(up[i] * atr[i]), np.log1p(-down[i] * atr[i])
        for path in range(normal.shape[0]):
            state, log_level, price, code = float(direction[i]), level[i], 0.0, 1
            for t in range(by_hour.shape[1]):
                log_level = world.LEVEL_KEPT * log_level + world.LEVEL_MOVED * moves[path, t]
                if uniform[path, t] < 1.0 / world.DURATION:
                    state = moving * choice[path, t]
                sigma = world.SIGMA * by_hour[i, t] * np.exp(log_level)
                for step in range(world.STEPS):
                    price += sigma * (normal[path, t, step] / root + world.DRIFT / world.STEPS * state)
                    if price <= lower:
                        code = 0
                        break
                    if price >= upper:
                        code = 2
                        break
                if code != 1:
                    break
            counts[i, code] += 1
    return counts
