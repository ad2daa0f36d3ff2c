"""Non-finite steps are skipped, counted and logged; above a limit the run has diverged."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

IN_A_ROW = 10  # skipped steps that count as divergence
SHARE = 0.05  # of the run's steps may be skipped
AT_LEAST = 50  # skipped steps are allowed in a short run, though they are more than SHARE


class Diverged(Exception):
    """Too many steps were not finite. Raised on all ranks at the same step."""


class NonFinite:
    """Counts the steps whose loss or gradient norm was not finite. Their update was not applied."""

    def __init__(self, total_steps: int, say: Callable[[str], None], skipped: int = 0, before_rollback: int = 0):
        self.limit = max(AT_LEAST, round(SHARE * total_steps))
        self.say = say
        self.skipped = skipped  # in this run, over all its processes
        self.in_a_row = 0
        self._allowed = before_rollback + self.limit  # of those before the newest rollback none counts against it

    def consider(self, step: int, loss: float, norm: float, samples: Sequence[int]) -> bool:
        """Whether the step was finite. `samples`: ids for the log. Raises Diverged above a limit."""
        if math.isfinite(loss) and math.isfinite(norm):
            self.in_a_row = 0
            return True
        self.skipped += 1
        self.in_a_row += 1
        shown = ", ".join(map(str, samples[:16])) + (f" and {len(samples) - 16} more" if len(samples) > 16 else "")
        self.say(f"step {step}: skipped, loss {loss:.4g}, gradient norm {norm:.4g}; samples {shown}")
        if self.in_a_row >= IN_A_ROW or self.skipped > self._allowed:
            raise Diverged(
                f"Step {step}: the loss or its gradient was not finite {self.in_a_row} times in a row, {self.skipped} "
                "times in this run."
            )
        return False

    def reset(self) -> None:
        """The learning rate was lowered: count from zero again."""
        self.in_a_row = 0
        self._allowed = self.skipped + self.limit
