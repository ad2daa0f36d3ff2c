"""Aligns a recording with a score: from a search over coarse frames to a path over hop frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.domains.music.alignment import features, paths
from training.domains.music.alignment.features import FRAME, SCALE

UNIT = SCALE * SCALE  # the similarity of a vector of length 1 with itself

_COARSE = 8  # hop frames of a coarse one
_MOST_COARSE = 1600  # coarse frames of a song; longer songs have longer coarse frames
_LEAST, _BEND = 0.25, 0.1  # of UNIT: see paths.py
_MARGIN = 24  # hop frames to either side of the coarse path


@dataclass(frozen=True)
class Path:
    total: int
    cells: np.ndarray  # int64 [k, 2]: (score frame, recording frame)
    per_frame: float


def factor_for(frames: int) -> int:
    return max(_COARSE, -(-frames // _MOST_COARSE))


def coarse_path(score: np.ndarray, sound: np.ndarray) -> Path:
    """The best path over coarse features."""
    similarity = np.ascontiguousarray(score @ sound.T)
    total, cells = paths.full(similarity, round(_LEAST * UNIT), round(_BEND * UNIT))
    return Path(total, cells, total / UNIT / 2 / min(len(score), len(sound)))


def fine_path(score: np.ndarray, sound: np.ndarray, guide: Path, factor: int) -> Path:
    """The best path over hop frames near a path over coarse ones."""
    centre = extend(guide.cells.astype(np.float64) * factor + (factor - 1) / 2, np.arange(len(score)))
    margin = _MARGIN * factor // _COARSE
    first = np.rint(centre).astype(np.int64) - margin
    similarity = paths.band(score, sound, first, 2 * margin + 1)
    total, cells = paths.banded(similarity, first, round(_LEAST * UNIT), round(_BEND * UNIT))
    return Path(total, cells, total / UNIT / 2 / min(len(score), len(sound)))


def extend(cells: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The path [k, 2] at score frames `at`, continued beyond its ends with the rate 1."""
    x, y = cells[:, 0], cells[:, 1]
    out = np.interp(at, x, y)
    out = np.where(at < x[0], y[0] + at - x[0], out)
    return np.where(at > x[-1], y[-1] + at - x[-1], out)
