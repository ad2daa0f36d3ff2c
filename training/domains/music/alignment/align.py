"""Aligns a recording with a score: a path over coarse frames, refined to hop frames, and the simplest map that fits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from training.domains.music.alignment import features, paths
from training.domains.music.alignment.features import FRAME, SCALE
from training.domains.music.alignment.timemap import TimeMap, candidates

UNIT = SCALE * SCALE  # the similarity of a vector of length 1 with itself

_COARSE, _FINER = 8, 8  # hop frames of a coarse one; the ratio between two resolutions
_MOST_COARSE = 1600  # coarse frames of a song; longer songs have longer coarse frames
_LEAST, _BEND = 0.25, 0.1  # of UNIT: see paths.py
_STRUCK = 3  # frames from the onset of a note that are compared under a map
_GAIN = 0.05  # in mean similarity, that a map must bring to be used
ENOUGH = 4  # scores of other songs, at least, that a recording is compared with
#: A score that fits the pair's own score this much as well as that score fits itself is of the same music: another
#: arrangement, a copy with changes, an exercise on the same scale. It tells nothing.
_ALIKE = 0.6
_CERTAIN = 0.75  # strength from which no other song is compared: those reach 0.4
#: Below that, a recording certainly is of its score's song if it fits the score by this much more than others on
#: average, or by so many times as the best of them.
_ABOVE, _TIMES = 0.23, 1.75
_MARGIN = 3  # frames of the coarser resolution to either side of its path


@dataclass(frozen=True)
class Path:
    cells: np.ndarray  # int64 [k, 2]: (score frame, recording frame)
    strength: float  # the path's sum of similarity, for each frame of the shorter of the two; about 0 to 1.5


@dataclass(frozen=True)
class Aligned:
    """The result for one pair."""

    map: TimeMap  # from times of the score to times of the recording
    strength: float  # of the pair's coarse path
    others: np.ndarray  # float64 [n]: the same with scores of other music; empty if they were not read

    @property
    def other_song(self) -> bool:
        """Whether the recording fits its score no better than the best of those of other songs. (How much better a
        recording of people fits than other songs do is not known, so that any lead counts.)"""
        return len(self.others) >= ENOUGH and self.strength <= self.others.max()

    @property
    def same_song(self) -> bool:
        """Whether the recording certainly is of the same song. If not, its map means nothing: a path that bends enough
        makes any two pieces similar."""
        if self.strength >= _CERTAIN:
            return True
        if len(self.others) < ENOUGH:
            return False
        return self.strength >= min(self.others.mean() + _ABOVE, _TIMES * self.others.max())


def align(logmel: np.ndarray, notes: np.ndarray, others: Iterable[np.ndarray] = ()) -> Aligned:
    """Align a recording, log-mel [T, 128], with the notes of its score. `others`: the notes of other songs' scores;
    they are not read if the recording fits its score so well that no other song would."""
    sound, score = features.of_sound(logmel), features.of_score(notes, frames_of(notes))
    guide, factor = search(score, sound)
    path = refine(score, sound, guide, factor)
    found = fit(score, sound, path, notes)
    strengths = []
    coarse_sound, own = features.coarse(sound, factor), features.coarse(score, factor)
    itself = over(own, own).strength
    for other in others if guide.strength < _CERTAIN else ():
        begun = other[other["onset"] < max(len(score) * FRAME, other["onset"][0] + FRAME)]
        of_other = features.of_score(begun, min(frames_of(begun), len(score)))
        coarse_other = features.coarse(of_other, factor)
        if over(coarse_other, own).strength < _ALIKE * itself:
            strengths.append(over(coarse_other, coarse_sound).strength)
    return Aligned(found, guide.strength, np.array(strengths))


def frames_of(notes: np.ndarray) -> int:
    """The number of hop frames that notes last."""
    return int(np.ceil(float((notes["onset"] + notes["duration"]).max()) / FRAME)) + 2


def search(score: np.ndarray, sound: np.ndarray) -> tuple[Path, int]:
    """The best path over coarse frames, and the number of hop frames of one."""
    factor = max(_COARSE, -(-max(len(score), len(sound)) // _MOST_COARSE))
    return over(features.coarse(score, factor), features.coarse(sound, factor)), factor


def over(score: np.ndarray, sound: np.ndarray) -> Path:
    """The best of all paths, over features of the same resolution."""
    similarity = np.ascontiguousarray(score @ sound.T)
    return _path(*paths.full(similarity, round(_LEAST * UNIT), round(_BEND * UNIT)), score, sound)


def refine(score: np.ndarray, sound: np.ndarray, path: Path, factor: int) -> Path:
    """The best path over hop frames near a path over frames of `factor` hop frames."""
    while factor > 1:
        finer = max(1, factor // _FINER)
        ratio = factor / finer
        fine_score = features.coarse(score, finer) if finer > 1 else score
        fine_sound = features.coarse(sound, finer) if finer > 1 else sound
        centre = extended((path.cells + 0.5) * ratio - 0.5, np.arange(len(fine_score)))
        margin = int(np.ceil(_MARGIN * ratio))
        first = np.rint(centre).astype(np.int64) - margin
        similarity = paths.band(fine_score, fine_sound, first, 2 * margin + 1)
        found = paths.banded(similarity, first, round(_LEAST * UNIT), round(_BEND * UNIT))
        path, factor = _path(*found, fine_score, fine_sound), finer
    return path


def fit(score: np.ndarray, sound: np.ndarray, path: Path, notes: np.ndarray) -> TimeMap:
    """The simplest map near a path over hop frames; a less simple one must gain similarity."""
    onset = np.unique(np.rint(notes["onset"] / FRAME)).astype(np.int64)
    begin, end = path.cells[0, 0], path.cells[-1, 0]
    onset = onset[(onset >= begin) & (onset <= end)]
    if len(onset) < 2:
        return TimeMap.identity()
    heard = extended(path.cells.astype(np.float64), onset)
    struck = np.unique(np.minimum(onset[:, None] + np.arange(_STRUCK), len(score) - 1))
    chosen, best = TimeMap.identity(), similarity(score, sound, struck, TimeMap.identity())
    for candidate in candidates(onset * FRAME, heard * FRAME):
        value = similarity(score, sound, struck, candidate)
        if value >= best + _GAIN:
            chosen, best = candidate, value
    return chosen


def similarity(score: np.ndarray, sound: np.ndarray, frames: np.ndarray, by: TimeMap) -> float:
    """The mean similarity of some frames of the score to the recording under a map; outside of it, it is 0."""
    at = np.rint(by(frames * FRAME) / FRAME).astype(np.int64)
    values = paths.band(np.ascontiguousarray(score[frames]), sound, at - 1, 3).max(axis=1)
    return float(np.where(values < paths.OUTSIDE, 0, values).mean() / UNIT)


def extended(cells: np.ndarray, at: np.ndarray) -> np.ndarray:
    """A path [k, 2] at score frames `at`, continued beyond its ends at the rate 1."""
    x, y = cells[:, 0], cells[:, 1]
    out = np.where(at < x[0], y[0] + at - x[0], np.interp(at, x, y))
    return np.where(at > x[-1], y[-1] + at - x[-1], out)


def _path(total: int, cells: np.ndarray, score: np.ndarray, sound: np.ndarray) -> Path:
    return Path(cells, total / UNIT / 2 / min(len(score), len(sound)))
