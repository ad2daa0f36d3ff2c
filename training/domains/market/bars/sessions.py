"""When a market is open: the minutes of the week that are present in at least half of the weeks.

The session of a symbol is found once and kept: a new file of the same symbol is read with it, so that trading days do
not depend on where a file begins or ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from training.domains.market.bars.times import MINUTE

DAY_MINUTES = 1_440
WEEK_MINUTES = 7 * DAY_MINUTES
EPOCH_WEEK = 4 * DAY_MINUTES  # 1970-01-05 was the first Monday
MOST_MISSING = 5  # minutes of a session that a window or a label may cross


@dataclass(frozen=True)
class Session:
    """A market's hours, in UTC. `open_minutes`: bool [10080], by minute of the week from Monday 0:00. `day_start`: the
    minute of the day at which a trading day begins."""

    open_minutes: np.ndarray
    day_start: int

    @cached_property
    def _before(self) -> np.ndarray:
        """Open minutes of a week before each minute: int64 [10081]."""
        return np.concatenate([[0], np.cumsum(self.open_minutes)]).astype(np.int64)

    def elapsed(self, time: np.ndarray) -> np.ndarray:
        """Open minutes from a fixed Monday to each time (int64 nanoseconds UTC): int64."""
        minute = time // MINUTE - EPOCH_WEEK
        weeks, rest = np.divmod(minute, WEEK_MINUTES)
        return weeks * self._before[-1] + self._before[rest]

    def missing(self, time: np.ndarray) -> np.ndarray:
        """Open minutes between each bar and the one before it that have no bar: int64 [n], the first is 0."""
        if not len(time):
            return np.zeros(0, np.int64)
        gaps = self.elapsed(time[1:]) - self.elapsed(time[:-1] + MINUTE)
        return np.concatenate([[0], gaps])

    def days(self, time: np.ndarray) -> np.ndarray:
        """The number of the trading day of each time, int32: days since 1970-01-01 of the day on which most of it
        lies."""
        return ((time // MINUTE - self._shift) // DAY_MINUTES).astype(np.int32)

    def covers(self, time: np.ndarray) -> np.ndarray:
        """Whether each time (int64 nanoseconds UTC) lies in the session: bool."""
        return self.open_minutes[(time // MINUTE - EPOCH_WEEK) % WEEK_MINUTES]

    @cached_property
    def _shift(self) -> int:
        """When a trading day begins, in minutes after midnight of the date that names it; often negative."""
        after = (np.flatnonzero(self.open_minutes) - self.day_start) % DAY_MINUTES
        middle = self.day_start + (np.median(after) if len(after) else 0)
        return self.day_start - DAY_MINUTES * int(middle // DAY_MINUTES)

    def plain(self) -> dict[str, Any]:
        """As JSON: the open minutes as [first, after the last] pairs."""
        edges = np.flatnonzero(np.diff(np.concatenate([[0], self.open_minutes.astype(np.int8), [0]])))
        return {"open": edges.reshape(-1, 2).tolist(), "day_start": self.day_start}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Session:
        """The inverse of `plain`."""
        minutes = np.zeros(WEEK_MINUTES, bool)
        for first, last in plain["open"]:
            minutes[first:last] = True
        return cls(minutes, int(plain["day_start"]))


def find_session(time: np.ndarray) -> Session:
    """The session of bars that open at `time` (int64 [n], nanoseconds UTC, ascending, not empty)."""
    minute = time // MINUTE - EPOCH_WEEK
    weeks, of_week = np.divmod(minute, WEEK_MINUTES)
    first, last = minute[0], minute[-1]
    # how often each minute of the week lies between the first and the last bar
    every = np.arange(WEEK_MINUTES)
    possible = (last - every) // WEEK_MINUTES - (first - 1 - every) // WEEK_MINUTES
    seen = np.bincount(np.unique(np.stack([weeks, of_week]), axis=1)[1], minlength=WEEK_MINUTES)
    is_open = (possible > 0) & (2 * seen >= possible)
    return Session(is_open, _day_start(is_open))


def _day_start(is_open: np.ndarray) -> int:
    """The first minute after the longest daily pause; midnight for a market that has none."""
    # Only the days on which the market is open at all count, so that weekends are no part of the pause.
    by_day = is_open.reshape(7, DAY_MINUTES)
    by_day = by_day[by_day.any(1)]
    shut = by_day.mean(0) < 0.5 if len(by_day) else np.zeros(DAY_MINUTES, bool)
    if not shut.any() or shut.all():
        return 0
    # the pause may cross midnight: look at two days in a row
    doubled = np.concatenate([shut, shut]).astype(np.int8)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], doubled, [0]]))).reshape(-1, 2)
    longest = edges[np.argmax(edges[:, 1] - edges[:, 0])]
    return int(longest[1] % DAY_MINUTES)
