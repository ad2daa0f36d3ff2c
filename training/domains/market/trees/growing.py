"""What a library does here: it grows a few rounds of trees on margins that are known, and they become a Forest.

A chunk of rounds begins from the margins of all trees before it and from a seed that is a function of (seed, model,
round). Nothing of the library's own state is continued: that is what makes a run that was killed equal to one that was
not, though none of the libraries can save its random numbers (xgboost issues 10324, 11982 and 6711; LightGBM issue
6610; catboost issue 2736).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from training.domains.market.trees.forest import Forest
from training.domains.market.trees.settings import Trees


@dataclass(frozen=True)
class Chunk:
    """Which rounds are grown, and how."""

    first: int  # rounds done before
    rounds: int
    seed: int  # below 2**31
    threads: int


class Library(Protocol):
    """One library. `table` is whatever holds the binned features; it is made once and reused in every chunk."""

    def table(self, features: np.ndarray, label: np.ndarray, weight: np.ndarray, trees: Trees, threads: int) -> Any:
        """features float32 [N, F], finite; label int [N]; weight float32 [N], of mean 1."""

    def grow(self, table: Any, margins: np.ndarray, chunk: Chunk, trees: Trees) -> Any:
        """A model of the library with `chunk.rounds` rounds that begin at `margins` (float64 [N, C])."""

    def forest(self, model: Any) -> Forest:
        """The trees of that model."""


def seed_of(seed: int, model: int, first: int) -> int:
    """The seed of a chunk: a function of the run's seed, the number of the model, and the rounds done before."""
    return int(np.random.SeedSequence([seed, model, first]).generate_state(1)[0]) >> 1
