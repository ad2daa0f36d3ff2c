"""The models that a network is compared with, fitted on the same training rows in the same run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.domains.brain.material import Material, index_of
from training.domains.brain.regression import banded, ridge

MEAN, ROLLED, RIDGE, BANDED, REDUCED, ORACLE = "mean", "rolled", "ridge", "banded_ridge", "reduced_rank", "oracle"
TITLES = {
    MEAN: "the mean of the training rows", ROLLED: "a ridge on the stimulus of another time", RIDGE: "ridge regression",
    BANDED: "banded ridge regression", REDUCED: "ridge regression of reduced rank",
    ORACLE: "a ridge on the true drives",
}  # fmt: skip
RANK = 32
ROLL = 0.5  # of a run, by which the stimulus is rolled for the null


@dataclass(frozen=True, eq=False)
class Linear:
    """Weights by subject on the convolved features of each run."""

    weights: dict[str, np.ndarray]  # subject -> float32 [2 F, V]
    features: dict[str, np.ndarray]  # run -> float32 [T, 2 F]

    def predict(self, subject: str, run: str, begin: int, end: int) -> np.ndarray:
        """float32 [t, V]."""
        return self.features[run][begin:end] @ self.weights[subject]


def plain_ridge(material: Material, features: dict[str, np.ndarray] | None = None) -> Linear:
    """Ridge with an alpha for each voxel. `features`: of each run, instead of the convolved ones of the stimulus."""
    used = material.responses if features is None else features
    weights = {}
    for subject in material.train.subjects:
        x, y, lengths = material.fitting(subject)
        if features is not None:
            x = _rows_of(material, subject, features)
        weights[subject] = ridge.fit(x, y, lengths).weights
    return Linear(weights, used)


def _rows_of(material: Material, subject: str, features: dict[str, np.ndarray]) -> np.ndarray:
    parts = [
        features[name][index_of(run.spans[subject])]
        for name, run in material.train.runs.items()
        if subject in run.spans
    ]
    return np.concatenate(parts)


def rolled(material: Material) -> Linear:
    """The null: each run's stimulus is rolled by half of the run, so that it has the same distribution and
    autocorrelation but nothing to do with the BOLD."""
    moved = {name: np.roll(of, int(ROLL * len(of)), 0) for name, of in material.responses.items()}
    return plain_ridge(material, moved)


def banded_ridge(material: Material, seed: int, device: str = "cpu", searches: int = banded.SEARCHES) -> Linear:
    """Banded ridge: pixels, motion, sound and words have separate penalties for each voxel."""
    slices = material.slices()
    order = np.concatenate([np.array(of) for of in slices.values()])
    weights = {}
    for subject in material.train.subjects:
        x, y, lengths = material.fitting(subject)
        parts = [x[:, of] for of in slices.values()]
        found = banded.fit(parts, y, lengths, seed, device=device, searches=searches)
        own = np.zeros_like(found)
        own[order] = found
        weights[subject] = own
    return Linear(weights, material.responses)


def reduced_rank(material: Material, linear: Linear, rank: int = RANK) -> tuple[Linear, ridge.Factors]:
    """The nearest map with one bottleneck for all subjects, and its factors: heads side by side in their order."""
    subjects = material.train.subjects
    x = np.concatenate([_union(material, name) for name in material.responses])
    joint = np.concatenate([linear.weights[subject] for subject in subjects], 1)
    factors = ridge.reduced(x, joint, rank)
    heads = np.split(factors.heads, len(subjects), axis=1)
    weights = {subject: factors.bottleneck @ head for subject, head in zip(subjects, heads, strict=True)}
    return Linear(weights, material.responses), factors


def _union(material: Material, run: str) -> np.ndarray:
    """Features of the volumes of a run that any subject is trained on."""
    spans = material.train.runs[run].spans.values()
    return material.responses[run][np.unique(np.concatenate([index_of(of) for of in spans]))]
