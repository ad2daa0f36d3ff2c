"""Does it copy? The longest run of notes that a piece shares with any of the training songs, in whatever key.

A voice (the notes of one instrument, drums excepted) is a line of steps: how far the next note lies above the one
before, and how much later, in 1/128 of a bar. A run of n equal steps is n + 1 equal notes. All runs of all pieces are
looked up at once in a suffix array of the training voices, built by prefix doubling (Manber and Myers 1993, "Suffix
arrays: a new method for on-line string searches"), whose ranks also give the lengths of common prefixes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.domains.music.midi import tokens
from training.domains.music.midi.score import Score

GRID = 128  # of a bar
FARTHEST = 1 << 12  # of GRID: a longer wait counts as this one


def voices(score: Score) -> list[np.ndarray]:
    """The steps of each voice, int64 >= 0 (a voice of n notes has n - 1)."""
    notes = score.notes[~score.notes["drum"]]
    out = []
    for program in np.unique(notes["program"]):
        voice = notes[notes["program"] == program]
        place = np.rint((voice["bar"] + voice["position"]) * GRID).astype(np.int64)
        pitch = voice["pitch"].astype(np.int64)
        order = np.lexsort((pitch, place))
        later = np.clip(np.diff(place[order]), 0, FARTHEST - 1)
        out.append((np.diff(pitch[order]) + 128) * FARTHEST + later)
    return out


def longest_runs(pieces: Sequence[np.ndarray], known: Sequence[np.ndarray]) -> np.ndarray:
    """Pieces and training songs (arrays of token ids) -> notes in each piece's longest run that any song has too:
    int64 [pieces]; 0 where a piece has no voice of two notes, 1 where not even one step is shared."""
    songs = [voice for ids in known for voice in voices(tokens.decode(ids))]
    asked = [(number, voice) for number, ids in enumerate(pieces) for voice in voices(tokens.decode(ids)) if len(voice)]
    out = np.zeros(len(pieces), np.int64)
    for number, length in zip([n for n, _ in asked], longest_shared([v for _, v in asked], songs), strict=True):
        out[number] = max(out[number], length + 1)
    return out


def longest_shared(asked: Sequence[np.ndarray], known: Sequence[np.ndarray]) -> list[int]:
    """For each sequence of `asked` (ints >= 0), the length of its longest stretch that stands in one of `known`."""
    if not asked:
        return []
    # One text; behind each sequence a mark of its own, so that no stretch goes on over an end.
    every = [*known, *asked]
    text = np.concatenate([np.append(one, -1 - number) for number, one in enumerate(every)])
    starts = np.cumsum([0, *(len(one) + 1 for one in every)])
    of_asked = starts[len(known)]
    ranks = _ranks(text)
    order = np.argsort(ranks[-1], kind="stable")
    # Among all suffixes in order, the one nearest in content is next to it: the last known one before, the first after.
    is_known = order < of_asked
    place = np.arange(len(text))
    before = np.maximum.accumulate(np.where(is_known, place, -1))
    after = np.minimum.accumulate(np.where(is_known, place, len(text))[::-1])[::-1]
    where = np.empty_like(order)
    where[order] = place
    mine = np.arange(of_asked, len(text))
    best = np.zeros(len(mine), np.int64)
    for neighbour, exists in ((before, before >= 0), (after, after < len(text))):
        has = exists[where[mine]]
        other = order[neighbour[where[mine[has]]]]
        best[has] = np.maximum(best[has], _common(ranks, mine[has], other))
    return np.maximum.reduceat(best, starts[len(known) : -1] - of_asked).tolist()


def _ranks(text: np.ndarray) -> list[np.ndarray]:
    """ranks[k][i]: the place of text[i : i + 2**k] among all stretches of that length, equal ones alike; until all
    differ."""
    out = [np.unique(text, return_inverse=True)[1].astype(np.int64)]
    length = 1
    while out[-1].max() + 1 < len(text):
        behind = np.zeros_like(out[-1])
        behind[:-length] = out[-1][length:] + 1
        out.append(np.unique(out[-1] * (len(text) + 1) + behind, return_inverse=True)[1].astype(np.int64))
        length *= 2
    return out


def _common(ranks: Sequence[np.ndarray], a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Lengths of the common prefixes of the suffixes that begin at a and b."""
    count, length = len(ranks[0]), np.zeros(len(a), np.int64)
    for level in range(len(ranks) - 1, -1, -1):
        inside = (a + length < count) & (b + length < count)
        i, j = np.where(inside, a + length, 0), np.where(inside, b + length, 0)
        length += np.where(inside & (ranks[level][i] == ranks[level][j]), 1 << level, 0)
    return length
