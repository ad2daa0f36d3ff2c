"""Linear decoding: ridge regression from the voxels some seconds after a moment to the features of that moment. It is
the beginning of the network, and the baseline that it is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from training.domains.brain.encoding.warm_start import normalisers_of
from training.domains.brain.material import Material, stretches
from training.domains.brain.regression import dual
from training.errors import DataError

if TYPE_CHECKING:
    from training.data.rows import Row

EARLIEST, LATEST = 2.0, 8.0  # seconds after a moment at which its response is looked for; it peaks at 5 s
ROLL = 0.5  # of a run, by which the features are rolled for the null


def delays_of(tr: float) -> tuple[int, ...]:
    """Volumes after a moment in which its response is measured: those that begin 2 to 8 s later, or the one nearest to
    5 s."""
    found = tuple(lag for lag in range(1, int(LATEST / tr + 1e-6) + 1) if lag * tr >= EARLIEST - 1e-6)
    return found or (max(1, round(5.0 / tr)),)


def delayed(values_TV: np.ndarray, delays: Sequence[int]) -> list[np.ndarray]:
    """The values at t + each delay, for all t that have all of them: float32 [T - last delay, V] each."""
    count = len(values_TV) - max(delays)
    return [values_TV[delay : delay + count] for delay in delays]


@dataclass(frozen=True, eq=False)
class Spans:
    """The moments of a subject's training rows whose later volumes are training rows, too."""

    parts: list[np.ndarray]  # float32 [n, V] of each delay
    targets: np.ndarray  # float32 [n, F]
    lengths: list[int]


def spans_of(material: Material, subject: str, delays: Sequence[int], features: Mapping[str, np.ndarray]) -> Spans:
    """Raises DataError if no stretch of the subject's training rows is longer than the delays."""
    parts, targets, lengths = [], [], []
    for name, run in material.train.runs.items():
        for begin, end in stretches(run.spans.get(subject, ())):
            count = end - begin - max(delays)
            if count > 0:
                parts.append(delayed(material.bold(material.train, subject, name, begin, end), delays))
                targets.append(features[name][begin : begin + count])
                lengths.append(count)
    if not lengths:
        raise DataError(f"subject {subject} has no {max(delays) + 1} training volumes in a row: name longer runs.")
    joined = [np.concatenate(of_delay) for of_delay in zip(*parts, strict=True)]
    return Spans(joined, np.concatenate(targets), lengths)


@dataclass(frozen=True, eq=False)
class LinearDecoder:
    """Weights by subject: the features of a moment from the voxels at each delay after it."""

    delays: tuple[int, ...]
    weights: Mapping[str, np.ndarray]  # subject -> float32 [D, V, F]

    def decode(self, subject: str, bold_TV: np.ndarray) -> np.ndarray:
        """float32 [T - last delay, F], from standardised BOLD."""
        parts = delayed(bold_TV, self.delays)
        return sum(part @ of for part, of in zip(parts, self.weights[subject], strict=True))


def ridge(material: Material, rolled: bool = False) -> LinearDecoder:
    """Ridge of each subject, with a penalty for each feature. `rolled`: the null, on features of another time."""
    features = dict(material.features)
    if rolled:
        features = {name: np.roll(of, int(ROLL * len(of)), 0) for name, of in features.items()}
    delays, weights = delays_of(_tr(material)), {}
    for subject in material.train.subjects:
        spans = spans_of(material, subject, delays, features)
        weights[subject] = dual.fit(dual.gram(spans.parts), spans.targets, spans.lengths).weights(spans.parts)
    return LinearDecoder(delays, weights)


def _tr(material: Material) -> float:
    return next(iter(material.train.runs.values())).tr


def constants_of(rows: Sequence[Row], rank: int) -> dict[str, np.ndarray]:
    """Features of the bank, and, for S subjects, R runs, C cosines, V voxels, F features and D delays, float32 but the
    delays:

    drift [S, R, C, V] and spread [S, R, V]; delays int64 [D]; maps [S, D, V, rank]; readout [rank, F].

    The maps and the readout are those of ridge of every subject, reduced to the directions that its predictions of all
    subjects' training rows share (Izenman 1975), each of spread 1.
    """
    material = Material.of(rows)
    delays, features = delays_of(_tr(material)), material.features
    found = {}
    for subject in material.train.subjects:
        spans = spans_of(material, subject, delays, features)
        found[subject] = dual.fit(dual.gram(spans.parts), spans.targets, spans.lengths)
    fitted = np.concatenate([one.fitted for one in found.values()]).astype(np.float64)
    value, vector = np.linalg.eigh(fitted.T @ fitted / len(fitted))
    own = min(rank, len(value))
    axes = vector[:, ::-1][:, :own]
    largest = axes[np.abs(axes).argmax(0), np.arange(own)]
    axes = axes * np.where(largest < 0, -1, 1)
    size = np.sqrt(np.maximum(value[::-1][:own], 1e-9))
    first = rows[0].values
    subjects, voxels = int(first["subjects"]), len(material.train.voxels)
    number = {row.values["subject"]: int(row.values["subject_number"]) - 1 for row in rows}
    maps = np.zeros((subjects, len(delays), voxels, rank), np.float32)
    for subject, one in found.items():
        parts = spans_of(material, subject, delays, features).parts  # made again: those of all would fill the memory
        reduced = (one.coefficients @ axes / size).astype(np.float32)
        for place, part in enumerate(parts):
            maps[number[subject], place, :, :own] = part.T @ reduced
    readout = np.zeros((rank, len(value)), np.float32)
    readout[:own] = (axes * size).T
    drift, spread = normalisers_of(material, rows)
    return material.bank.arrays() | {
        "drift": drift, "spread": spread, "delays": np.array(delays), "maps": maps, "readout": readout,
    }  # fmt: skip
