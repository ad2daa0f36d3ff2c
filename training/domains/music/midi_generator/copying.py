"""Copying metric: the longest run of notes that a piece shares with any of the training songs, in any key.

A voice (the notes of one instrument other than drums) is a sequence of steps: differences to the previous note in pitch
and in time, in 1/128 of a bar. A run of n equal steps is n + 1 equal notes. All runs of all pieces are looked up in a
suffix array of the training voices, built by prefix doubling (Manber and Myers 1993, "Suffix arrays: a new method for
on-line string searches"), whose ranks also give the lengths of common prefixes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.domains.music.midi import tokens
from training.domains.music.midi.score import Score

GRID = 128  # of a bar
FARTHEST = 1 << 12  # in units of 1/GRID; longer time differences are clipped to this


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
    """Pieces and training songs (arrays of token ids) -> the number of notes in each piece's longest run that occurs in
    a song: int64 [pieces]; 0 if the piece has no voice of two notes, 1 if no step is shared."""
    songs = [voice for ids in known for voice in voices(tokens.decode(ids))]
    wanted = [
        (number, voice) for number, ids in enumerate(pieces) for voice in voices(tokens.decode(ids)) if len(voice)
    ]
    out = np.zeros(len(pieces), np.int64)
    for number, length in zip([n for n, _ in wanted], longest_shared([v for _, v in wanted], songs), strict=True):
        out[number] = max(out[number], length + 1)
    return out


def longest_shared(wanted: Sequence[np.ndarray], known: Sequence[np.ndarray]) -> list[int]:
    """For each sequence of `wanted` (ints >= 0), the length of its longest substring that occurs in one of `known`."""
    if not wanted:
        return []
    # One text, with a unique separator after each sequence, so that no match crosses an end.
    every = [*known, *wanted]
    text = np.concatenate([np.append(one, -1 - number) for number, one in enumerate(every)])
    starts = np.cumsum([0, *(len(one) + 1 for one in every)])
    first_wanted = starts[len(known)]
    ranks = _ranks(text)
    order = np.argsort(ranks[-1], kind="stable")
    # In the order of all suffixes, the known suffix with the longest common prefix is the nearest known one before a
    # suffix, or the nearest after it.
    is_known = order < first_wanted
    place = np.arange(len(text))
    before = np.maximum.accumulate(np.where(is_known, place, -1))
    after = np.minimum.accumulate(np.where(is_known, place, len(text))[::-1])[::-1]
    where = np.empty_like(order)
    where[order] = place
    mine = np.arange(first_wanted, len(text))
    best = np.zeros(len(mine), np.int64)
    for neighbour, exists in ((before, before >= 0), (after, after < len(text))):
        has = exists[where[mine]]
        other = order[neighbour[where[mine[has]]]]
        best[has] = np.maximum(best[has], _common(ranks, mine[has], other))
    return np.maximum.reduceat(best, starts[len(known) : -1] - first_wanted).tolist()


def _ranks(text: np.ndarray) -> list[np.ndarray]:
    """ranks[k][i]: the rank of text[i : i + 2**k] among all substrings of that length; equal ones have equal ranks. The
    last k is the first for which all differ."""
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
