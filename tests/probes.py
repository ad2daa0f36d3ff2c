"""The measurement of a host's speed, shortened: every command that a test runs measures it twice, for an eighth of a
second each time."""

from training.budget import reserve

SHORT = (7, 4_000, reserve.PROBE[2] / 100)
