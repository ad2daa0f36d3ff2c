"""A subject who was left out of training: what the shared part of a model, which knows the others alone, is worth for a
new brain. Its head is fitted by ridge regression on some minutes of its training blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from training.domains.brain.evaluation.judging import Held, held_of
from training.domains.brain.evaluation.measures import BlockEstimate
from training.domains.brain.material import Material, Rows, stretches
from training.domains.brain.regression import ridge

if TYPE_CHECKING:
    from training.data.rows import Row

MINUTES = (5.0, 10.0, 20.0)  # of the subject's training blocks on which its head is fitted; then all of them
ROLL = 0.5  # of a run, by which the bottleneck is rolled for the null
SHARED, OWN, NULL = "shared", "own", "null"

#: Run -> the bottleneck after the response, float32 [T, K].
Latent = Callable[[str], np.ndarray]


@dataclass(frozen=True, eq=False)
class Head:
    """Ridge from features to a subject's voxels, with what standardises the features."""

    mean: np.ndarray  # float32 [F]
    spread: np.ndarray  # float32 [F]
    weights: np.ndarray  # float32 [F, V]

    @classmethod
    def fitted(cls, x: np.ndarray, y: np.ndarray, lengths: Sequence[int]) -> Head:
        mean, spread = x.mean(0), np.maximum(x.std(0), 1e-6)
        return cls(mean, spread, ridge.fit((x - mean) / spread, y - y.mean(0), lengths).weights)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """float32 [t, V], but for a constant."""
        return ((x - self.mean) / self.spread) @ self.weights


def judge_unseen(
    latent: Latent, material: Material, train: Sequence[Row], held_out: Sequence[Row]
) -> list[dict[str, Any]]:
    """Of each subject of the rows `train` and `held_out`, who is in none of `material`: {"subject", "blocks", "of": for
    each number of minutes {"minutes", "shared", "own", "null", "gap"}}, correlations over all voxels with intervals.

    shared: by a head from the model's bottleneck; own: by ridge on the features, which is what could be done without
    the others; null: by a head from the bottleneck of another time; gap: shared - own, block by block. Drift and spread
    are those of all training blocks of the subject.
    """
    out = []
    for subject in Rows.of(train).subjects:
        own = Material(Rows.of([row for row in train if row.values["subject"] == subject]), material.bank)
        held = held_of(own, Rows.of([row for row in held_out if row.values["subject"] == subject]))
        latents = {name: latent(name) for name in own.train.runs}
        rolled = {name: np.roll(of, int(ROLL * len(of)), 0) for name, of in latents.items()}
        tables = {SHARED: latents, OWN: own.responses, NULL: rolled}
        _, y, lengths = own.fitting(subject)
        found = []
        for volumes, minutes in _amounts(len(y), next(iter(own.train.runs.values())).tr):
            few = _first(lengths, volumes)
            draws = {name: _draws(own, subject, table, y[:volumes], few, held)
                     for name, table in tables.items()}  # fmt: skip
            entry = {name: _plain(one) for name, one in draws.items()}
            found.append({"minutes": minutes, **entry, "gap": _plain(draws[SHARED] - draws[OWN])})
        out.append({"subject": subject, "blocks": len(held.units), "of": found})
    return out


def _amounts(volumes: int, tr: float) -> list[tuple[int, float]]:
    """(volumes, minutes): those of MINUTES that there are, and all."""
    some = [(round(60 * minutes / tr), minutes) for minutes in MINUTES]
    return [*((count, minutes) for count, minutes in some if count < volumes), (volumes, round(volumes * tr / 60, 1))]


def _first(lengths: Sequence[int], volumes: int) -> list[int]:
    """The lengths of the stretches of the first volumes."""
    edges = np.minimum(np.cumsum([0, *lengths]), volumes)
    return [int(length) for length in np.diff(edges) if length]


def _draws(
    own: Material, subject: str, table: dict[str, np.ndarray], y: np.ndarray, lengths: Sequence[int], held: Held,
) -> BlockEstimate:  # fmt: skip
    x = np.concatenate([
        table[name][begin:end] for name, run in own.train.runs.items()
        for begin, end in stretches(run.spans.get(subject, ()))
    ])  # fmt: skip
    head = Head.fitted(x[: len(y)], y, lengths)
    predicted = {subject: [head.predict(table[name][begin:end]) for name, begin, end in held.blocks]}
    return held.moments(predicted).mean_of()


def _plain(draws: BlockEstimate) -> dict[str, Any]:
    interval = draws.interval()
    return {"r": interval.value, "low": interval.low, "high": interval.high, "estimated": draws.estimated}


def sentence(entry: dict[str, Any]) -> str:
    """What the shared part is worth for a subject, for the verdict."""
    texts = []
    for one in entry["of"]:
        gap = one["gap"]
        word = "no better than" if not gap["estimated"] or gap["low"] <= 0 <= gap["high"] else \
            "better than" if gap["low"] > 0 else "worse than"  # fmt: skip
        own = f"{word} a separate ridge ({one[OWN]['r']:.3g})"
        texts.append(f"{one['minutes']:g} minutes {one[SHARED]['r']:.3g}, {own}")
    return (
        f"Subject {entry['subject']} was left out of training. With a head fitted on some of its training blocks, its "
        f"held-out correlation is: {'; '.join(texts)}."
    )
