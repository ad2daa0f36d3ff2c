"""How many steps fit into the time that is left, so that the learning-rate schedule ends within the budget."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from training.engine.loop.progress import OUT_OF_BUDGET, OUT_OF_TIME

MEASURED = 5  # steps that must be timed before their mean is used
RECENT = 200  # steps that the mean is taken over
TOLERATED = 0.01  # of the steps still to do: a smaller change of the number of steps is ignored


@dataclass(frozen=True)
class Allowance:
    """The time that a run may use."""

    left: Callable[[], float]  # seconds of training still allowed, read at every step
    limit: float  # seconds of the budget; a larger one continues a run that a smaller one ended
    reason: Callable[[], str] = lambda: OUT_OF_BUDGET  # why a run that it ends has ended, for Progress.finished


def within(allowance: Allowance, seconds: float, spent: float) -> Allowance:
    """`allowance`, but at most `seconds` for a run of which `spent` are over, from now on."""
    began = time.monotonic()

    def own() -> float:
        return seconds - spent - (time.monotonic() - began)

    return Allowance(
        lambda: min(allowance.left(), own()), allowance.limit,
        lambda: OUT_OF_TIME if own() < allowance.left() else allowance.reason(),
    )  # fmt: skip


class Pace:
    """Measures how long a step, an evaluation and a save take, and computes how many steps fit into the allowance.

    The length of a run therefore depends on the host; the number of steps decided on is saved in its checkpoints.
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
        """Mean of the recent steps; None while fewer than MEASURED were timed."""
        return sum(self._steps) / len(self._steps) if len(self._steps) >= MEASURED else None

    def fitting(self, step: int, total: int, planned: int) -> int:
        """The steps of the run for which there is time, at most `planned`. `step`: steps done; `total`: the last plan.

        The time for the last evaluation and the last save is kept. A result below `step + 1` means: end now.
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
