"""Does the emotion steer what is written? Measured on the notes: pieces generated for an emotion should differ from the
others as the training music of that emotion does, and a classifier fitted on real music should name it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from training.data.index import cached
from training.domains.music import emotion
from training.domains.music.midi import style
from training.domains.music.midi.style import measure
from training.domains.music.midi_generator.data import Songs, emotion_vector

if TYPE_CHECKING:
    from training.data.rows import Row

VERSION = 1  # raised when the styles of the same songs may be others
NAMES = style.MEASURED
MOST_SONGS = 2000  # that are measured, spread evenly over the corpus
#: Of the features' own spread, added to what songs of one emotion spread: a few songs a class must not look exact.
SHRINKAGE = 0.1


def classes(emotions: Sequence[np.ndarray]) -> np.ndarray:
    """Index in emotion.BASES of each vector's nearest emotion, -1 where that is none of them (calm, neutral ...)."""
    named = [emotion.classify(vector.tolist()) for vector in emotions]
    return np.array([emotion.BASES.index(name) if name in emotion.BASES else -1 for name in named], np.int64)


def spread(songs: Songs) -> np.ndarray:
    """Up to MOST_SONGS of the songs, evenly spaced: int [n]."""
    return np.unique(np.linspace(0, len(songs) - 1, min(MOST_SONGS, len(songs))).round().astype(int))


def asked_for(bases: Sequence[int], songs: Songs) -> np.ndarray:
    """How a piece of each base emotion (index in emotion.BASES) is asked for, f32 [n, 64]: as the songs are labelled
    that have it, by the label nearest to the lexicon's word; by the word where none has it. A model follows labels that
    it was taught; hand-written ones lie elsewhere than the words do."""
    known = np.unique(np.stack([songs.emotion(song) for song in spread(songs)]), axis=0)
    label = classes(list(known))
    out = []
    for base in bases:
        word, own = emotion_vector(emotion.vector(emotion.BASES[base])), known[label == base]
        out.append(own[np.linalg.norm(own - word, axis=1).argmin()] if len(own) else word)
    return np.stack(out)


def styles_of(rows: Sequence[Row]) -> np.ndarray:
    """`styles` of these rows' songs, kept beside their index: `prepare` finds them out, a training has them at once."""
    return np.array(cached(rows, f"styles {VERSION}", lambda: styles(Songs(rows))))


def styles(songs: Songs) -> np.ndarray:
    """What the training music of each base emotion is like: f32 [3, 6, 6].

    Row 0: the mean style of each emotion's songs; row 1: the variance within emotions, the same for all (a diagonal
    Gaussian each: linear discriminants); row 2: [emotion, 0] how many songs there are.
    """
    out = np.zeros((3, len(emotion.BASES), len(NAMES)), np.float32)
    which = spread(songs)
    label = classes([songs.emotion(song) for song in which])
    which, label = which[label >= 0], label[label >= 0]
    if not len(which):
        return out
    measured = np.stack([measure(songs.ids(song)) for song in which])
    residual = measured.copy()
    for base in np.unique(label):
        out[0, base] = measured[label == base].mean(axis=0)
        out[2, base, 0] = (label == base).sum()
        residual[label == base] -= measured[label == base].mean(axis=0)
    out[1] = residual.var(axis=0) + SHRINKAGE * measured.var(axis=0) + 1e-6
    return out


def name(measured: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Styles f64 [n, 6] -> index in emotion.BASES of the likeliest among those that `known` (from `styles`) has."""
    distance = ((measured[:, None] - known[0]) ** 2 / known[1]).sum(-1)
    return np.where(known[2, :, 0] > 0, distance, np.inf).argmin(axis=1)


def means(measured: np.ndarray, asked: np.ndarray, bases: np.ndarray) -> np.ndarray:
    """The mean style of the pieces of each emotion of `bases` less the mean over emotions: f64 [bases, 6]."""
    number = np.stack([asked == base for base in bases]).astype(np.float64)
    found = number @ measured / number.sum(axis=1, keepdims=True)
    return found - found.mean(axis=0)


def differs(known: np.ndarray) -> np.ndarray:
    """bool [6]: the features in which the training music of some emotion is surely not like the others' (beyond twice
    its standard error); only these can be steered."""
    bases = np.flatnonzero(known[2, :, 0])
    real = known[0, bases].astype(np.float64)
    error = np.sqrt(known[1, bases] / known[2, bases, :1])
    return (np.abs(real - real.mean(axis=0)) > 2 * error).any(axis=0)


def reached(measured: np.ndarray, asked: np.ndarray, known: np.ndarray) -> np.ndarray:
    """How far pieces shift from emotion to emotion as the training music does, by feature: f64 [6]; 1: as far, in the
    same direction; 0: not at all (the slope of the pieces' shifts on the music's)."""
    bases = np.unique(asked)
    real = known[0, bases].astype(np.float64)
    real = real - real.mean(axis=0)
    return (means(measured, asked, bases) * real).sum(axis=0) / np.maximum((real**2).sum(axis=0), 1e-12)


def agreement(measured: np.ndarray, asked: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The correlation, over emotions, of a feature's mean in the pieces with its mean in the training music: f64 [6],
    nan where there are fewer than three emotions or nothing varies."""
    bases = np.unique(asked)
    made, real = means(measured, asked, bases), known[0, bases].astype(np.float64)
    real = real - real.mean(axis=0)
    scale = np.sqrt((made**2).sum(axis=0) * (real**2).sum(axis=0))
    enough = (scale > 1e-12) & (len(bases) > 2)
    return np.where(enough, (made * real).sum(axis=0) / np.where(enough, scale, 1.0), np.nan)
