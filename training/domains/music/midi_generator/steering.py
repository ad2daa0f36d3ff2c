"""Measures whether generated pieces follow the emotion: pieces for an emotion should differ from the others as the
training music of that emotion does, and a classifier fitted on real music should recognise it."""

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

VERSION = 1  # of the stored styles; raised when the computation changes
NAMES = style.MEASURED
MOST_SONGS = 2000  # songs that are measured, spread evenly over the corpus
#: Share of the features' total variance that is added to the variance within emotions, which few songs underestimate.
SHRINKAGE = 0.1


def classes(emotions: Sequence[np.ndarray]) -> np.ndarray:
    """Index in emotion.BASES of each vector's nearest emotion; -1 if that is not a base emotion (calm, neutral ...)."""
    named = [emotion.classify(vector.tolist()) for vector in emotions]
    return np.array([emotion.BASES.index(name) if name in emotion.BASES else -1 for name in named], np.int64)


def spread(songs: Songs) -> np.ndarray:
    """Up to MOST_SONGS of the songs, evenly spaced: int [n]."""
    return np.unique(np.linspace(0, len(songs) - 1, min(MOST_SONGS, len(songs))).round().astype(int))


def request_vectors(bases: Sequence[int], songs: Songs) -> np.ndarray:
    """The emotion vector with which to request a piece of each base emotion (index in emotion.BASES): f32 [n, 64]. It
    is the songs' label of that emotion that is nearest to the lexicon's vector, or that vector if no song has the
    emotion. A model follows the labels that it was trained with; manual labels differ from the lexicon's vectors."""
    known = np.unique(np.stack([songs.emotion(song) for song in spread(songs)]), axis=0)
    label = classes(list(known))
    out = []
    for base in bases:
        word, own = emotion_vector(emotion.vector(emotion.BASES[base])), known[label == base]
        out.append(own[np.linalg.norm(own - word, axis=1).argmin()] if len(own) else word)
    return np.stack(out)


def styles_of(rows: Sequence[Row]) -> np.ndarray:
    """`styles` of these rows' songs, cached with their index: computed by `prepare`, read by a training."""
    return np.array(cached(rows, f"styles {VERSION}", lambda: styles(Songs(rows))))


def styles(songs: Songs) -> np.ndarray:
    """The style of the training music of each base emotion: f32 [3, 6, 6].

    Row 0: the mean style of each emotion's songs; row 1: the variance within emotions, shared by all (diagonal
    Gaussians: linear discriminant analysis); row 2: [emotion, 0] the number of songs.
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
    """Styles f64 [n, 6] -> index in emotion.BASES of the most probable emotion in `known` (from `styles`)."""
    distance = ((measured[:, None] - known[0]) ** 2 / known[1]).sum(-1)
    return np.where(known[2, :, 0] > 0, distance, np.inf).argmin(axis=1)


def means(measured: np.ndarray, asked: np.ndarray, bases: np.ndarray) -> np.ndarray:
    """The mean style of the pieces of each emotion of `bases` minus the mean over emotions: f64 [bases, 6]."""
    number = np.stack([asked == base for base in bases]).astype(np.float64)
    found = number @ measured / number.sum(axis=1, keepdims=True)
    return found - found.mean(axis=0)


def differs(known: np.ndarray) -> np.ndarray:
    """bool [6]: the features in which the training music of some emotion differs from the mean by more than twice its
    standard error; only these can be steered."""
    bases = np.flatnonzero(known[2, :, 0])
    real = known[0, bases].astype(np.float64)
    error = np.sqrt(known[1, bases] / known[2, bases, :1])
    return (np.abs(real - real.mean(axis=0)) > 2 * error).any(axis=0)


def reached(measured: np.ndarray, asked: np.ndarray, known: np.ndarray) -> np.ndarray:
    """By feature, the slope of a regression of the pieces' differences between emotions on those of the training music:
    f64 [6]; 1: the same differences; 0: none."""
    bases = np.unique(asked)
    real = known[0, bases].astype(np.float64)
    real = real - real.mean(axis=0)
    return (means(measured, asked, bases) * real).sum(axis=0) / np.maximum((real**2).sum(axis=0), 1e-12)


def agreement(measured: np.ndarray, asked: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The correlation, over emotions, of a feature's mean in the pieces with its mean in the training music: f64 [6],
    NaN if there are fewer than three emotions or nothing varies."""
    bases = np.unique(asked)
    made, real = means(measured, asked, bases), known[0, bases].astype(np.float64)
    real = real - real.mean(axis=0)
    scale = np.sqrt((made**2).sum(axis=0) * (real**2).sum(axis=0))
    enough = (scale > 1e-12) & (len(bases) > 2)
    return np.where(enough, (made * real).sum(axis=0) / np.where(enough, scale, 1.0), np.nan)
