"""The net for leaks by construction: they are seen in the data that a decision uses, however little they earn.

- No span of a fitted decision overlaps one of a held-out decision, in any split.
- A feature is the same when the file ends at the decision. It is not, if it uses what comes later: a bar that is not
  complete, a centred average, a scaler fitted on everything.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from training.domains.market.bars.cleaning import Minutes
from training.domains.market.detector.pipeline import Pipeline
from training.domains.market.splits.purging import Fold, Spans, combinatorial, overlapping, walk_forward

CUTS = 12
COMPARED = 24  # decisions before each cut


@dataclass(frozen=True)
class Structure:
    """`overlaps`: split -> held-out decisions whose span overlaps a fitted one's. `cuts`: how many files that end
    earlier were tried, `differing`: in how many of them features differ; `features`: which, with the number of cuts."""

    overlaps: dict[str, int] = field(default_factory=dict)
    cuts: int = 0
    differing: int = 0
    features: dict[str, int] = field(default_factory=dict)

    @property
    def reasons(self) -> list[str]:
        """What is wrong, a sentence each; empty: nothing."""
        out = [
            f"{count:,} held-out labels of {split} overlap the time of fitted ones"
            for split, count in self.overlaps.items()
            if count
        ]
        if self.differing:
            names = sorted(self.features, key=lambda name: -self.features[name])[:5]
            out.append(
                f"features change when the file ends at the decision, in {self.differing} of {self.cuts} cuts: "
                f"{', '.join(names)}"
            )
        return out


def examine(minutes: Minutes, spans: Spans, pipeline: Pipeline, names: tuple[str, ...], seed: int) -> Structure:
    """Examine the splits of decisions and the features of bars. `names`: of the features."""
    overlaps = {
        "the folds": _overlaps(spans, pipeline.folds(spans)),
        "walk-forward": _overlaps(spans, walk_forward(spans, 5)),
        "combinatorial cross-validation": _overlaps(spans, combinatorial(spans)),
    }
    differing, features = _cut(minutes, pipeline, names, seed)
    return Structure(overlaps, CUTS, differing, features)


def _overlaps(spans: Spans, splits: Iterable[Fold]) -> int:
    return sum(overlapping(spans.take(fit), spans.take(held)) for fit, held in splits)


def _cut(minutes: Minutes, pipeline: Pipeline, names: tuple[str, ...], seed: int) -> tuple[int, dict[str, int]]:
    complete = pipeline.features(minutes)
    random = np.random.default_rng([seed, 0xC07])
    differing, features = 0, dict.fromkeys(names, 0)
    for last in random.integers(len(minutes) * 2 // 3, len(minutes), CUTS).tolist():
        cut = pipeline.features(minutes.between(0, last))
        index = np.searchsorted(complete.decided, cut.decided[-COMPARED:])
        same = complete.values[index].view(np.uint32) == cut.values[-COMPARED:].view(np.uint32)
        differing += not same.all()
        for number in np.flatnonzero(~same.all(0)).tolist():
            features[names[number]] += 1
    return differing, {name: count for name, count in features.items() if count}
