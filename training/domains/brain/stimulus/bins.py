"""The stimulus of a run in the bins of its volumes: row t covers [onset + t TR, onset + (t + 1) TR) of the film.

It is stored once for all subjects, as one safetensors file a run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.data.encode import Encoder
from training.data.files import write_atomic
from training.domains.brain.stimulus.film import LEVELS, PICTURES

CELLS = (3, 4)  # of the picture in which motion is measured, down and across
BANDS = ("pixels", "motion", "sound", "words")  # of the film; others are the user's own
_TIMING, _VOCABULARY = "timing", "vocabulary"
RESERVED = (*BANDS, _TIMING, _VOCABULARY)


@dataclass(frozen=True, eq=False)
class Stimulus:
    """T bins of a run. A band that the stimulus has no source for is missing: no words without annotations."""

    tr: float  # seconds
    onset: float  # seconds of the film at the first volume
    bands: Mapping[str, np.ndarray]  # name -> float32 [T, F]
    vocabulary: tuple[str, ...] = ()  # of the band `words`

    def __len__(self) -> int:
        return len(next(iter(self.bands.values())))


def ordered(bands: Iterable[str]) -> tuple[str, ...]:
    """Names of bands: those of the film first, then the user's own."""
    names = set(bands)
    return (*(band for band in BANDS if band in names), *sorted(names - set(BANDS)))


def available(film: Mapping[str, np.ndarray] | None, onset: float, tr: float) -> int | None:
    """Volumes for which the film lasts; None without a film."""
    if film is None:
        return None
    lasts = float(film["seconds"].max())
    return max(0, int((lasts - onset) / tr + 1e-6))


def binned(
    film: Mapping[str, np.ndarray] | None, words: Sequence[tuple[float, str]], vocabulary: Sequence[str],
    *, volumes: int, tr: float, onset: float,
) -> Stimulus:  # fmt: skip
    """The stimulus of a run of `volumes`. `film`: arrays of stimulus/film.py; `words`: (seconds, word)."""
    bands: dict[str, np.ndarray] = {}
    if film is not None and len(film["pictures"]):
        pictures = film["pictures"].reshape(len(film["pictures"]), -1).astype(np.float32)
        bands["pixels"] = _means(pictures, PICTURES, volumes, tr, onset)
        bands["motion"] = _means(motion(film["pictures"]), PICTURES, volumes, tr, onset)
    if film is not None and len(film["levels"]):
        bands["sound"] = _means(film["levels"].astype(np.float32), LEVELS, volumes, tr, onset)
    if vocabulary:
        bands["words"] = _counts(words, vocabulary, volumes, tr, onset)
    return Stimulus(tr, onset, bands, tuple(vocabulary))


def motion(pictures: np.ndarray) -> np.ndarray:
    """The logarithm of the mean absolute difference to the picture before, in each cell: float32 [n, cells]."""
    count, height, width, _ = pictures.shape
    down, across = CELLS
    change = np.zeros((count, height, width), np.float32)
    for begin in range(1, count, 512):  # of a long film, so that no copy of all pictures is made
        part = pictures[begin - 1 : begin + 512].astype(np.float32)
        change[begin : begin + len(part) - 1] = np.abs(np.diff(part, axis=0)).mean(-1)
    cells = change.reshape(count, down, height // down, across, width // across).mean((2, 4))
    return np.log1p(cells.reshape(count, -1))


def _means(values: np.ndarray, rate: int, volumes: int, tr: float, onset: float) -> np.ndarray:
    """Means over the bins, float32 [T, F]. Samples are weighted by their overlap with a bin. Where the film has no
    sample (before its begin, after its end), the nearest one counts."""
    edges = (onset + tr * np.arange(volumes + 1)) * rate
    cumulated = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, 0, dtype=np.float64)])
    place = np.clip(edges, 0, len(values))
    low = np.floor(place).astype(int)
    share = (place - low)[:, None]
    high = np.minimum(low + 1, len(values))
    integral = cumulated[low] * (1 - share) + cumulated[high] * share
    lengths = np.diff(place)
    out = np.diff(integral, axis=0) / np.maximum(lengths, 1e-9)[:, None]
    for row in np.flatnonzero(lengths < 1e-6):
        out[row] = values[int(np.clip(edges[row], 0, len(values) - 1))]
    return out.astype(np.float32)


def _counts(
    words: Sequence[tuple[float, str]], vocabulary: Sequence[str], volumes: int, tr: float, onset: float
) -> np.ndarray:
    """How often each word of the vocabulary begins in each bin, float32 [T, W]."""
    number = {word: index for index, word in enumerate(vocabulary)}
    out = np.zeros((volumes, len(vocabulary)), np.float32)
    for at, word in words:
        row = int(np.floor((at - onset) / tr + 1e-9))
        if 0 <= row < volumes:
            out[row, number[word]] += 1
    return out


# -- the file ----------------------------------------------------------------------------------------------------------


def write(path: Path, stimulus: Stimulus) -> bool:
    """Write the file atomically; returns False if it already had this content."""
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(values, np.float32) for name, values in stimulus.bands.items()}
    arrays[_TIMING] = np.array([stimulus.tr, stimulus.onset])
    arrays[_VOCABULARY] = np.frombuffer(json.dumps(stimulus.vocabulary, ensure_ascii=False).encode(), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_atomic(path, save(arrays))


def decode(path: Path) -> dict[str, np.ndarray]:
    """The arrays of the file. Raises ValueError if it is no such file."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(path.read_bytes())
    except SafetensorError as error:
        raise ValueError(f"is no stimulus of a run: {error}. Run prepare again") from None
    if not {_TIMING, _VOCABULARY} < set(arrays):
        raise ValueError("is no stimulus of a run. Run prepare again")
    return arrays


def of(arrays: Mapping[str, np.ndarray]) -> Stimulus:
    """The stimulus in the arrays of `decode`."""
    tr, onset = map(float, arrays[_TIMING])
    bands = {name: np.asarray(arrays[name]) for name in ordered(set(arrays) - {_TIMING, _VOCABULARY})}
    return Stimulus(tr, onset, bands, tuple(json.loads(np.asarray(arrays[_VOCABULARY]).tobytes())))


ENCODER = Encoder("stimulus", "stimulus 1", decode, seconds=60.0, processor=30.0, bytes_per_second=20e6, megabytes=4096,
                  imports=("safetensors.numpy",))  # fmt: skip
