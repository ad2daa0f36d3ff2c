"""How many steps fit into the time that is left, so that the schedule ends with the money and not beyond it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

MEASURED = 5  # steps whose mean is trusted
RECENT = 200  # steps that the mean is taken over
TOLERATED = 0.01  # of the steps still to do: a smaller change of the plan is left alone


@dataclass(frozen=True)
class Allowance:
    """What a run may use."""

    left: Callable[[], float]  # seconds of training still allowed, read at every step
    limit: float  # seconds of the job's budget; a larger one continues a run that a smaller one ended


class Pace:
    """Seconds a step, an evaluation and a save take here, and how many steps that leaves.

    Deciding by the clock makes a run's length differ from host to host; what was decided is part of the checkpoint.
    """

    def __init__(self, allowance: Allowance, steps_per_evaluation: int):
        self.allowance = allowance
        self.steps_per_evaluation = steps_per_evaluation
        self.evaluation = 0.0  # seconds of the newest one
        self.saving = 0.0  # seconds of a save that is waited for
        self.reported = False
        self._steps: deque[float] = deque(maxlen=RECENT)
        self._since: float | None = None

    def stepped(self) -> None:
        """One step is done. The first of a process, which compiles and warms up, is not measured."""
        now = time.monotonic()
        if self._since is not None:
            self._steps.append(now - self._since)
        self._since = now

    def restart_timer(self) -> None:
        """Restart the step timer, after an evaluation or a save."""
        if self._since is not None:
            self._since = time.monotonic()

    @property
    def seconds_per_step(self) -> float | None:
        """Mean of the recent ones; None while too few are known."""
        return sum(self._steps) / len(self._steps) if len(self._steps) >= MEASURED else None

    def fitting(self, step: int, total: int, planned: int) -> int:
        """Steps of the run that fit, given that `step` are done and `total` were planned before; `planned` is the most.

        The last evaluation and the last save are inside the time. Less than `step + 1` means: end now.
        """
        left = self.allowance.left() - self.evaluation - self.saving
        if left <= 0:
            return max(1, step)  # one step is always done: without it there is nothing to evaluate
        each = self.seconds_per_step
        if each is None:
            return total
        each += self.evaluation / self.steps_per_evaluation
        fitting = max(1, min(planned, step + int(left / each)))
        return total if abs(fitting - total) <= TOLERATED * (total - step) else fitting
