"""The hand-made features of a stimulus: components of the picture, motion, sound and words, fitted on training rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from training.domains.brain.stimulus.bins import BANDS, Stimulus, ordered

COMPONENTS = 24  # of the picture
WORDS = 64  # the most frequent ones, at most
WIDEST = 128  # columns of the user's own band; of a wider one, as many components
LEAST_COUNT = 3  # of a word in the training rows
_TINY = 1e-6  # spread below which a column is constant


def bands_of(arrays: Iterable[str]) -> tuple[str, ...]:
    """The bands of `Bank.arrays`, by their names; other names are ignored."""
    return ordered(name.removeprefix("projection_") for name in arrays if name.startswith("projection_"))


@dataclass(frozen=True, eq=False)
class Bank:
    """Maps a band of a stimulus to its features: ((x - mean) @ projection - centre) / spread."""

    mean: Mapping[str, np.ndarray]  # float32 [F] by band
    projection: Mapping[str, np.ndarray]  # float32 [F, P] by band
    centre: Mapping[str, np.ndarray]  # float32 [P] by band
    spread: Mapping[str, np.ndarray]  # float32 [P] by band

    @property
    def bands(self) -> tuple[str, ...]:
        return ordered(self.projection)

    @property
    def widths(self) -> dict[str, int]:
        """Number of features by band."""
        return {band: self.projection[band].shape[1] for band in self.bands}

    @classmethod
    def fitted(cls, stimuli: Sequence[Stimulus], rows: Sequence[np.ndarray]) -> Bank:
        """Fit on the rows (int64 each) of the runs' stimuli. A band that one of them has not, or that never changes, is
        left out. Raises ValueError if no band is left."""
        parts: dict[str, tuple[np.ndarray, ...]] = {}
        for band in ordered(name for stimulus in stimuli for name in stimulus.bands):
            if not all(band in stimulus.bands for stimulus in stimuli):
                continue
            values = np.concatenate([stimulus.bands[band][own] for stimulus, own in zip(stimuli, rows, strict=True)])
            fitted = _fitted(band, values.astype(np.float64))
            if fitted is not None:
                parts[band] = fitted
        if not parts:
            raise ValueError(
                "nothing in the stimulus changes over the training rows, so nothing can be predicted from it"
            )
        mean, projection, centre, spread = (
            {band: part[number].astype(np.float32) for band, part in parts.items()} for number in range(4)
        )
        return cls(mean, projection, centre, spread)

    def __call__(self, stimulus: Stimulus) -> dict[str, np.ndarray]:
        """The features of every volume by band, float32 [T, P]: of mean 0 and spread 1 over the training rows."""
        return {
            band: ((stimulus.bands[band] - self.mean[band]) @ self.projection[band] - self.centre[band])
            / self.spread[band]
            for band in self.bands
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """As flat arrays, to be stored with a model."""
        names = ("mean", "projection", "centre", "spread")
        return {f"{name}_{band}": getattr(self, name)[band] for name in names for band in self.bands}

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> Bank:
        """The inverse of `arrays`; other keys are ignored."""
        bands = bands_of(arrays)
        return cls(*({band: arrays[f"{name}_{band}"] for band in bands} for name in
                     ("mean", "projection", "centre", "spread")))  # fmt: skip


def _fitted(band: str, values: np.ndarray) -> tuple[np.ndarray, ...] | None:
    """(mean, projection, centre, spread) of a band, float64 [n, F]; None if it is constant."""
    mean = values.mean(0)
    if band == "pixels":
        projection = principal(values - mean, COMPONENTS)
    elif band not in BANDS and values.shape[1] > WIDEST:
        projection = principal(values - mean, WIDEST)
    else:
        chosen = _frequent(values) if band == "words" else np.flatnonzero(values.std(0) > _TINY)
        projection = np.eye(values.shape[1])[:, chosen]
    projected = (values - mean) @ projection
    spread = projected.std(0)
    varies = spread > _TINY
    if not varies.any():
        return None
    return mean, projection[:, varies], projected.mean(0)[varies], spread[varies]


def _frequent(counts: np.ndarray) -> np.ndarray:
    """Columns of the most frequent words, in the order of the vocabulary."""
    total = counts.sum(0)
    order = np.lexsort((np.arange(len(total)), -total))[:WORDS]
    return np.sort(order[total[order] >= LEAST_COUNT])


def principal(centred: np.ndarray, components: int) -> np.ndarray:
    """The first principal axes of float64 [n, F], which is centred: [F, P]. The sign makes the largest loading of each
    positive, so that it does not depend on the linear algebra library."""
    count = min(components, *centred.shape)
    if centred.shape[0] < centred.shape[1]:
        value, vector = np.linalg.eigh(centred @ centred.T)
        axes = centred.T @ vector[:, ::-1][:, :count]
        axes /= np.maximum(np.linalg.norm(axes, axis=0), 1e-12)
    else:
        value, vector = np.linalg.eigh(centred.T @ centred)
        axes = vector[:, ::-1][:, :count]
    largest = axes[np.abs(axes).argmax(0), np.arange(count)]
    kept = value[::-1][:count] > 1e-9 * max(value[-1], 1e-30)
    return (axes * np.where(largest < 0, -1, 1))[:, kept]


def joined(features: Mapping[str, np.ndarray]) -> np.ndarray:
    """All bands side by side, float32 [T, sum of P]."""
    return np.concatenate([features[band] for band in ordered(features)], 1)
