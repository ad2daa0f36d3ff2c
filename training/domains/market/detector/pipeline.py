"""What is examined: how features are computed and how decisions are divided. A test replaces a part by a faulty one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from training.domains.market.bars.cleaning import Minutes
from training.domains.market.features.computing import Computed, compute
from training.domains.market.splits.purging import Fold, Spans, folds

PARTS = 5


def purged(spans: Spans) -> list[Fold]:
    """The folds of the families of trees."""
    return folds(spans, PARTS)


@dataclass(frozen=True)
class Pipeline:
    features: Callable[[Minutes], Computed] = compute
    folds: Callable[[Spans], list[Fold]] = purged
