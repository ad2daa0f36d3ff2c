"""Label audit: finds songs whose notes contradict their emotion label.

Six traits of every song are measured: tempo, note density, loudness, register, mode and articulation. A trait's
expected value for a label is the median of the label's other songs (a median is robust to a few wrong labels), shrunk
towards the label's production rules, which have the weight of RULES_WEIGHT songs. A song is suspect if another label of
the corpus explains its notes much better than its own label.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.domains.music import emotion
from training.domains.music.midi import style

RULES_WEIGHT = 2.0  # weight of a label's production rules, in songs
LEAST_SONGS = 2  # other songs that a label needs to be considered for a song
DEGREES = 4.0  # degrees of freedom of Student's t-distribution: heavy tails, so that one odd trait is not enough
SUSPECT = 0.05  # a song is listed if the probability of its label is this or less
MAJOR = ("ionian", "lydian", "mixolydian")
MODE_STEP = 0.4  # of `majorness` between a piece in major and one in minor
NAMES = style.MEASURED

WORDS = {
    "tempo": ("tempo", "beats a minute"),
    "density": ("note density", "onsets a second"),
    "velocity": ("loudness", "of 127"),
    "pitch": ("register", "mean MIDI pitch"),
    "majorness": ("mode", "above 0 major, below minor"),
    "articulation": ("articulation", "0.4 staccato, 1 legato"),
}


@dataclass(frozen=True)
class Suspect:
    """A song whose notes contradict its label."""

    song: str
    label: str
    likelier: str  # the label that explains its notes best
    probability: float  # of its label, relative to the labels of the corpus
    why: tuple[str, ...]  # sentences, the most important first


def rule_style(name: str) -> np.ndarray:
    """The style expected from an emotion's production rules: f64 [6] in the order and units of style.measure. Only
    differences between emotions are meaningful: the rules' density is that of a melody, not of a piece."""
    rules = emotion.rules(name)
    major = sum(weight for mode, weight in rules.modes.items() if mode in MAJOR) / sum(rules.modes.values())
    return np.array(
        [
            np.log(np.mean(rules.density)),
            np.mean(rules.velocity),
            np.mean(rules.pitches),
            MODE_STEP * (major - 0.5),
            np.mean(rules.articulation),
            np.log(np.mean(rules.tempo)),
        ]
    )


def suspects(songs: Sequence[str], labels: Sequence[str], measured: np.ndarray) -> list[Suspect]:
    """Songs (ids), the emotion that each is labelled with, and their styles f64 [n, 6] (style.measure) -> those whose
    label is doubtful, the most doubtful first."""
    names, which = np.unique(np.asarray(labels), return_inverse=True)
    if len(names) < 2:
        return []
    rules = np.stack([rule_style(name) for name in names])
    usual = np.stack([np.median(measured[which == label], axis=0) for label in range(len(names))])
    rules = rules - rules.mean(axis=0) + usual.mean(axis=0)  # shifted to the corpus's mean style
    spread = _spread(measured, usual[which])
    counts = np.bincount(which)
    found = []
    for song in range(len(songs)):
        own = which[song]
        others = counts - (np.arange(len(names)) == own)
        centre = usual.copy()
        if others[own]:
            left = which == own
            left[song] = False
            centre[own] = np.median(measured[left], axis=0)
        weight = (others / (others + RULES_WEIGHT))[:, None]
        centre = weight * centre + (1 - weight) * rules
        traits = _log_likelihood((measured[song] - centre) / spread)
        total = traits.sum(axis=1)
        eligible = (others >= LEAST_SONGS) | (np.arange(len(names)) == own)
        total = np.where(eligible, total, -np.inf)
        probability = float(np.exp(total[own] - total.max()) / np.exp(total - total.max()).sum())
        best = int(total.argmax())
        if best != own and probability <= SUSPECT:
            why = _reasons(measured, which, song, own, best, names, traits[best] - traits[own])
            found.append(Suspect(songs[song], str(names[own]), str(names[best]), probability, why))
    return sorted(found, key=lambda suspect: (suspect.probability, suspect.song))


def _spread(measured: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """Robust standard deviation of songs around the median of their label: f64 [6]; not below a tenth of the corpus's
    standard deviation, nor below a small constant."""
    within = 1.4826 * np.median(np.abs(measured - usual), axis=0)
    least = np.maximum(0.1 * measured.std(axis=0), [0.1, 2.0, 1.0, 0.05, 0.05, 0.05])
    return np.maximum(within, least)


def _log_likelihood(away: np.ndarray) -> np.ndarray:
    """Log-density of Student's t-distribution, up to a constant."""
    return -(DEGREES + 1) / 2 * np.log1p(away**2 / DEGREES)


def _reasons(
    measured: np.ndarray, which: np.ndarray, song: int, own: int, best: int, names: np.ndarray, gain: np.ndarray
) -> tuple[str, ...]:
    """Why `best` explains the song better than `own`, as sentences about the traits, the most important first."""
    out = []
    for column in np.argsort(-gain):
        if gain[column] < 0.5 and out:
            break
        trait, unit = WORDS[NAMES[column]]
        ranges = []
        for label in (own, best):
            rest = which == label
            rest[song] = False
            low, high = np.quantile(measured[rest, column], (0.25, 0.75)) if rest.any() else (math.nan, math.nan)
            ranges.append((_shown(column, low), _shown(column, high)))
        (a, b), (c, d) = ranges
        usual = f"half of the {names[own]} songs lie at {a} to {b}" if a != "nan" else f"no other song is {names[own]}"
        here = _shown(column, measured[song, column])
        out.append(f"{trait} {here} ({unit}): {usual}, of the {names[best]} ones at {c} to {d}")
    return tuple(out)


def _shown(column: int, value: float) -> str:
    if NAMES[column] == "density":
        return f"{math.exp(value) - style.LEAST_DENSITY:.1f}"
    if NAMES[column] == "tempo":
        return f"{math.exp(value):.0f}"
    return f"{value:+.2f}" if NAMES[column] == "majorness" else f"{value:.2f}" if value < 2 else f"{value:.0f}"
