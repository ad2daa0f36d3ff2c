"""A simulated film, and the BOLD signal of subjects who watch it, with a known ceiling.

A few drives (colours of the scenes, the speed of a blob, levels of tones, topics of words) determine both the film and,
through the haemodynamic response, a part of the voxels. All else is autocorrelated noise and drift. So how well any
model can predict a voxel is known exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.domains.brain.features.haemodynamics import convolve, kernel

FPS = 4  # frames a second of the film
TONES = (250.0, 600.0, 1_400.0, 3_000.0)  # Hz
TOPICS = {
    "sea": ("boat", "wave", "harbour", "anchor"),
    "kitchen": ("bread", "kettle", "spoon", "flour"),
    "forest": ("tree", "moss", "river", "owl"),
    "city": ("tram", "window", "street", "crowd"),
    "night": ("star", "lamp", "shadow", "clock"),
}
GROUPS = {"colour": 3, "speed": 1, "tone": len(TONES), "topic": len(TOPICS)}  # group -> number of its drives
AUTOCORRELATION = 0.45  # of the noise of neighbouring volumes
RESPONSIVE = 0.4  # share of the voxels that depend on the drives
CEILING = (0.20, 0.56)  # of a responsive voxel: uniform between these
SHIFTS = (-0.6, 0.0, 0.6)  # seconds by which the response of a voxel is later
_ROTATION = 0.15  # of the drives, between subjects
_DRIFT_PERIOD = 300.0  # seconds, the shortest


@dataclass(frozen=True, eq=False)
class Film:
    """What is seen and heard, by frame; N frames."""

    colour: np.ndarray  # float64 [N, 3], 0 to 1
    blob: np.ndarray  # float64 [N, 2], position, 0 to 1
    speed: np.ndarray  # float64 [N], widths a second
    tone: np.ndarray  # float64 [N, tones], level, 0 to 1
    words: list[tuple[float, float, str]]  # onset and duration in seconds, word


@dataclass(frozen=True, eq=False)
class World:
    """The film, and S subjects of V voxels for T volumes."""

    tr: float
    film: Film
    drives_TD: np.ndarray  # float64, standardised
    bold_STV: np.ndarray  # float32, raw values as of a scanner
    ceiling_SV: np.ndarray  # float64: correlation of a voxel's signal with its signal and noise; 0: not responsive
    mask: np.ndarray  # bool [X, Y, Z] with V voxels, in the order of np.flatnonzero


def simulate(volumes: int, subjects: int, seed: int, *, tr: float = 1.5, side: int = 17, null: bool = False) -> World:
    """A world of an approximately round brain of `side` voxels in diameter (17: about 2,000 voxels). `null`: the
    subjects saw another film, so nothing can be predicted, while all distributions are the same."""
    film = _film(volumes * tr, np.random.default_rng([seed, 1]))
    drives = _drives(film, volumes, tr)
    seen = drives if not null else _drives(_film(volumes * tr, np.random.default_rng([seed, 2])), volumes, tr)
    mask = _brain(side)
    random = np.random.default_rng([seed, 3])
    weights, ceiling, late = _map(mask, random)
    bold, ceilings = [], []
    for number in range(subjects):
        own = np.random.default_rng([seed, 4, number])
        bold.append(_subject(seen, weights @ _rotation(own), ceiling, late, tr, own))
        ceilings.append(np.zeros_like(ceiling) if null else ceiling)
    return World(tr, film, drives, np.stack(bold), np.stack(ceilings), mask)


# -- the film ----------------------------------------------------------------------------------------------------------


def _film(seconds: float, random: np.random.Generator) -> Film:
    frames = int(np.ceil(seconds * FPS))
    scene = _stretches(frames, 6 * FPS, 20 * FPS, random)
    scenes = scene[-1] + 1
    colour = random.uniform(0.1, 0.9, (scenes, 3))[scene]
    speeds = random.gamma(1.5, 0.12, frames)
    speed = speeds[_stretches(frames, 2 * FPS, 8 * FPS, random)]
    angle = np.cumsum(random.normal(0, 0.15, frames))
    blob = np.cumsum(speed[:, None] / FPS * np.stack([np.cos(angle), np.sin(angle)], 1), 0)
    blob = np.abs((blob + 0.5) % 2 - 1)  # it is reflected at the edges
    tone = np.zeros((frames, len(TONES)))
    for number in range(len(TONES)):
        part = _stretches(frames, 2 * FPS, 9 * FPS, random)
        levels = random.uniform(0.1, 1, part[-1] + 1) * (random.random(part[-1] + 1) < 0.55)
        tone[:, number] = levels[part]
    topics = random.integers(0, len(TOPICS), scenes)
    return Film(colour, blob, speed, tone, _words(scene, topics, seconds, random))


def _stretches(length: int, shortest: int, longest: int, random: np.random.Generator) -> np.ndarray:
    """The number of the stretch that each frame belongs to, int64 [length]; stretches have random lengths."""
    lengths = random.integers(shortest, longest + 1, length // shortest + 1)
    return np.repeat(np.arange(len(lengths)), lengths)[:length]


def _words(
    scene: np.ndarray, topics: np.ndarray, seconds: float, random: np.random.Generator
) -> list[tuple[float, float, str]]:
    vocabulary = list(TOPICS.values())
    found, at = [], 0.3
    while at < seconds - 0.5:
        topic = topics[scene[int(at * FPS)]]
        found.append((round(at, 3), 0.3, str(random.choice(vocabulary[topic]))))
        pause = random.random() < 0.08
        at += random.uniform(3, 8) if pause else random.uniform(0.3, 0.9)
    return found


def _drives(film: Film, volumes: int, tr: float) -> np.ndarray:
    """The drives by volume, standardised: float64 [T, D]."""
    bins = np.minimum((np.arange(len(film.speed)) / FPS / tr).astype(int), volumes - 1)
    columns = np.concatenate([film.colour, film.speed[:, None], film.tone], 1)
    sums = np.zeros((volumes, columns.shape[1]))
    np.add.at(sums, bins, columns)
    means = sums / np.maximum(np.bincount(bins, minlength=volumes), 1)[:, None]
    counts = np.zeros((volumes, len(TOPICS)))
    topic_of = {word: number for number, words in enumerate(TOPICS.values()) for word in words}
    for onset, _, word in film.words:
        counts[min(int(onset / tr), volumes - 1), topic_of[word]] += 1
    out = np.concatenate([means, counts], 1)
    return (out - out.mean(0)) / (out.std(0) + 1e-9)


# -- the subjects ------------------------------------------------------------------------------------------------------


def _brain(side: int) -> np.ndarray:
    """An ellipsoid in a grid with a border: bool [side + 2, side, side - 2]."""
    shape = (side + 2, side, side - 2)
    axes = [(np.arange(length) - (length - 1) / 2) / ((length - 2) / 2) for length in shape]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    return x**2 + y**2 + z**2 <= 1


def _map(mask: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights float64 [V, D], ceilings float64 [V] and the shift of the response (an index of SHIFTS) of each voxel. A
    voxel depends on one group of drives, by its place: groups have centres."""
    places = np.argwhere(mask)
    centres = places[random.choice(len(places), 2 * len(GROUPS), replace=False)]
    group = np.argmin(((places[:, None] - centres) ** 2).sum(-1), 1) % len(GROUPS)
    ends = np.cumsum(list(GROUPS.values()))
    weights = random.standard_normal((len(places), ends[-1]))
    column = np.arange(ends[-1])
    first = ends - list(GROUPS.values())
    weights *= (column >= first[group][:, None]) & (column < ends[group][:, None])
    responsive = random.random(len(places)) < RESPONSIVE
    ceiling = np.where(responsive, random.uniform(*CEILING, len(places)), 0.0)
    return weights, ceiling, random.integers(0, len(SHIFTS), len(places))


def _rotation(random: np.random.Generator) -> np.ndarray:
    """A random rotation near the identity, float64 [D, D]."""
    from scipy.linalg import expm

    size = sum(GROUPS.values())
    skew = np.triu(random.normal(0, _ROTATION, (size, size)), 1)
    return expm(skew - skew.T)


def _subject(
    drives: np.ndarray, weights: np.ndarray, ceiling: np.ndarray, late: np.ndarray, tr: float,
    random: np.random.Generator,
) -> np.ndarray:  # fmt: skip
    """The values of one subject, float32 [T, V]."""
    volumes, voxels = len(drives), len(weights)
    own_shift = random.normal(0, 0.4)
    signal = np.zeros((volumes, voxels))
    for number, shift in enumerate(SHIFTS):
        chosen = late == number
        response = convolve(drives.astype(np.float32), kernel(tr, own_shift + shift))
        signal[:, chosen] = response @ weights[chosen].T
    signal -= signal.mean(0)
    # a ceiling of c is a signal with the variance c^2 / (1 - c^2) beside noise of variance 1
    signal *= ceiling / np.sqrt(1 - ceiling**2) / (signal.std(0) + 1e-12)
    noise = random.standard_normal((volumes, voxels))
    for at in range(1, volumes):
        noise[at] = AUTOCORRELATION * noise[at - 1] + np.sqrt(1 - AUTOCORRELATION**2) * noise[at]
    seconds = tr * np.arange(volumes)
    slow = np.arange(1, max(2, int(2 * volumes * tr / _DRIFT_PERIOD)))
    drift = np.cos(np.pi * np.outer(seconds / (volumes * tr), slow)) @ (
        random.standard_normal((len(slow), voxels)) / slow[:, None]
    )
    base = random.uniform(700, 900, voxels)
    return (base + 10 * (signal + noise + drift)).astype(np.float32)
