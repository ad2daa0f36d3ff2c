"""A ridge that knows nothing but the time. If it predicts held-out volumes, they are copies of training volumes in
time: volumes were drawn at random, or blocks have no gaps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.domains.brain.regression.ridge import correlations, solve

LEAK = 0.1  # r above which the split leaks
_WIDTH = 2.0  # volumes, of the bumps in time
_ALPHA = 1.0


@dataclass(frozen=True)
class ClockCheck:
    """The mean correlation of the clock's predictions with held-out volumes."""

    r: float

    @property
    def leaks(self) -> bool:
        return self.r > LEAK

    def sentence(self) -> str:
        if not self.leaks:
            return f"split: a ridge on the clock alone predicts nothing (r {self.r:.3f})"
        return (
            f"the split leaks: a ridge that knows only the time predicts held-out volumes with r {self.r:.2f}. Split "
            "in blocks with gaps of 20 s and more, as prepare does"
        )


def clock_check(bold_TV: np.ndarray, train: np.ndarray, held_out: np.ndarray) -> ClockCheck:
    """Fit on the rows `train` (int64) of a run's BOLD and predict the rows `held_out`. Costs little: one bump for every
    second volume."""
    volumes = len(bold_TV)
    centres = np.arange(0, volumes, _WIDTH)
    bumps = np.exp(-0.5 * ((np.arange(volumes)[:, None] - centres) / _WIDTH) ** 2)
    targets = bold_TV.astype(np.float32)
    mean = targets[train].mean(0)
    weights = solve(bumps[train], targets[train] - mean, [_ALPHA])[0]
    predicted = bumps[held_out].astype(np.float32) @ weights
    return ClockCheck(float(correlations(predicted, targets[held_out]).mean()))
