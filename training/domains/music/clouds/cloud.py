"""The renderer: notes in a window and an emotion -> the cloud of 1,200 particles that shows them.

The same notes, start and emotion give the same bytes on any machine: times are integer samples, sums are over integers
or in a fixed order, exp and powers come from exact.py, results are rounded to multiples of 2^-16.
A window is cut into SUBFRAMES equal parts; each draws PER_SUBFRAME particles, particle `k * PER_SUBFRAME + i` being the
i-th of PATTERN in sub-frame k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.domains.music.audio import HOP, SAMPLE_RATE, WINDOW_FRAMES
from training.domains.music.clouds.anchors import ANCHOR_CHARGE, ANCHOR_NAMED, ANCHOR_VALUES, ANCHORS, PARAMETERS, z_of
from training.domains.music.clouds.constants import COOLWARM, PATTERN
from training.domains.music.clouds.exact import exp, power
from training.domains.music.clouds.roughness import roughness

SUBFRAMES = 8
PER_SUBFRAME = len(PATTERN)
PARTICLES = SUBFRAMES * PER_SUBFRAME

SPAN_SAMPLES = WINDOW_FRAMES * HOP  # what a window shows: 1.486 s
SUBFRAME_SAMPLES = SPAN_SAMPLES // SUBFRAMES
SUBFRAME_SECONDS = SUBFRAME_SAMPLES / SAMPLE_RATE

#: A note sounds in a sub-frame if they overlap by this much (23 ms) or by half of the note: a tail of a few samples is
#: inaudible, and would make range and roughness jump.
AUDIBLE_SAMPLES = 1024
#: Onsets closer than this (23 ms) are one onset: the notes of a chord as a player strikes them.
CHORD_SAMPLES = 1024

SPREAD_X = 0.045
SILENT_SPREAD = 0.02
REST_Y = 0.5  # y of a window in which nothing sounds
ACTING = 5  # anchors that charge a sub-frame
STRUCK = 3  # anchors that lightning hits
SIMILARITY_WIDTH = 0.2
GLOW_WIDTH = 0.16
GLOW_WHITENS = 0.5  # how far full glow takes a colour to white
GRAIN = 65536  # results are multiples of 1 / GRAIN

#: Description of a sub-frame. First the musical parameters in [0, 1]; in a silent sub-frame they are 0, but for pitch.
LIFELINE = np.dtype(
    [
        ("pitch", "f4"),  # loudness-weighted mean pitch, (mean - 36) / 52
        ("range", "f4"),  # (highest - lowest) / 36
        ("velocity", "f4"),  # (mean - 20) / 100
        ("density", "f4"),  # distinct onsets per second over it and its neighbours, / 10
        ("tension", "f4"),  # roughness, 1 at the 95th percentile of a corpus
        ("silent", "?"),  # nothing sounds
        ("x", "f4"), ("y", "f4"), ("z", "f4"),  # centre of its particles
        ("sx", "f4"), ("sy", "f4"), ("sz", "f4"),  # their standard deviations
        ("energy", "f4"),  # added to the storm by the acting anchors
        ("charge", "f4"),  # of the storm after this energy was added, before any discharge
        ("lightning", "?"),  # the storm discharges in this sub-frame
        ("size", "f4"), ("alpha", "f4"),  # of all its particles
    ]
)  # fmt: skip


@dataclass(frozen=True)
class Cloud:
    """The cloud of one window. Particle order: sub-frame * PER_SUBFRAME + index into PATTERN."""

    positions: np.ndarray  # float32 [1200, 3]: x (time), y (pitch), z (energy of the music); not clipped
    colors: np.ndarray  # float32 [1200, 4]: r, g, b, alpha in [0, 1]
    properties: np.ndarray  # float32 [1200, 3]: size, glow, depth in [0, 1]
    lifeline: np.ndarray  # LIFELINE [8]


def active_notes(notes: np.ndarray, start: float, end: float, longest: float | None = None) -> np.ndarray:
    """The notes of a song (NOTE, sorted by onset) that may sound in [start, end), as a copy, in order.

    `longest`: the longest duration in `notes` in seconds, if the caller knows it (saves a pass over the song).
    """
    if len(notes) == 0:
        return notes
    onsets = notes["onset"]
    reach = float(notes["duration"].max()) if longest is None else longest
    first, last = np.searchsorted(onsets, (start - reach, end))
    near = notes[first:last]
    return near[near["onset"] + near["duration"] > start]


def window_notes(notes: np.ndarray, start: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The notes of a song that sound in the window from `start` seconds; their onsets (from the window's beginning) and
    their durations in samples: int64, onset < SPAN_SAMPLES, onset + duration > 0, duration >= 1."""
    near = active_notes(notes, start - 0.001, start + SPAN_SAMPLES / SAMPLE_RATE + 0.001)
    onset = np.rint(near["onset"] * SAMPLE_RATE).astype(np.int64) - round(start * SAMPLE_RATE)
    length = np.maximum(np.rint(near["duration"] * SAMPLE_RATE).astype(np.int64), 1)
    inside = (onset < SPAN_SAMPLES) & (onset + length > 0)
    return near[inside], onset[inside], length[inside]


def as_emotion(emotion: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Valence and arousal in [-1, 1] of a vector of 3 or 64, in multiples of 1/4096, so that float32 and float64 inputs
    give the same cloud.

    Raises ValueError for another length, or for numbers that are not finite.
    """
    vector = np.asarray(emotion, np.float64)
    if vector.shape not in ((3,), (64,)):
        raise ValueError(f"emotion has 3 or 64 numbers (valence, arousal, intensity, ...), not shape {vector.shape}")
    if not np.isfinite(vector).all():
        raise ValueError("emotion holds numbers that are not finite")
    valence, arousal = np.rint(np.clip(vector[:2], -1, 1) * 4096) / 4096
    return float(valence), float(arousal)


def coolwarm(valence: float) -> np.ndarray:
    """float64 [3], r g b in [0, 1]: blue at valence -1, grey at 0, red at +1, linear between control points."""
    place = (valence + 1) / 2 * (len(COOLWARM) - 1)
    low = min(int(place), len(COOLWARM) - 2)
    part = place - low
    return COOLWARM[low] * (1 - part) + COOLWARM[low + 1] * part


def place(centre: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Positions [1200, 3] of the particles: `centre[k] + spread[k] * PATTERN[i]`, before rounding.

    centre, spread: [8, 3] in x, y, z. The model's decoder predicts both and applies the same formula.
    """
    return (centre[:, None, :] + spread[:, None, :] * PATTERN[None, :, :]).reshape(PARTICLES, 3)


def lifeline(notes: np.ndarray, start: float, emotion: Sequence[float] | np.ndarray = (0.0, 0.0, 0.0)) -> np.ndarray:
    """The LIFELINE [8] of a window, without drawing its particles.

    notes: NOTE, a complete song or a slice that covers the window. start: seconds. The parameters, y, z, sx and size do
    not depend on the emotion.
    """
    return _lifeline(notes, start, as_emotion(emotion)[1])[0]


def render(notes: np.ndarray, start: float, emotion: Sequence[float] | np.ndarray) -> Cloud:
    """Draw the window of 1.486 s that begins at `start` seconds of a song.

    notes: NOTE, a complete song or a slice that covers the window. emotion: [valence, arousal, intensity] or 64 values.
    """
    valence, arousal = as_emotion(emotion)
    line, acting, struck = _lifeline(notes, start, arousal)
    centre, spread = (np.stack([line[name] for name in names], 1).astype(np.float64) for names in (_CENTRE, _SPREAD))
    positions = _rounded(place(centre, spread))

    by_subframe = positions[:, 1:].astype(np.float64).reshape(SUBFRAMES, PER_SUBFRAME, 2)
    sounding = ~line["silent"][:, None]
    near = _nearness(by_subframe, ANCHORS[acting]) * sounding
    bolt = np.zeros_like(near)
    hit = line["lightning"]
    if hit.any():
        bolt[hit] = _nearness(by_subframe[hit], ANCHORS[struck[hit]])
    glow = np.minimum(0.65 * near + 0.6 * bolt, 1.0).reshape(PARTICLES, 1)

    base = coolwarm(valence)
    colors = np.empty((PARTICLES, 4))
    colors[:, :3] = base + (1 - base) * (GLOW_WHITENS * glow)
    colors[:, 3] = np.repeat(line["alpha"].astype(np.float64), PER_SUBFRAME)
    height = np.clip(positions[:, 2].astype(np.float64), 0.0, 1.0)
    properties = np.empty((PARTICLES, 3))
    properties[:, 0] = np.repeat(line["size"].astype(np.float64), PER_SUBFRAME)
    properties[:, 1] = glow[:, 0]
    properties[:, 2] = 0.3 + 0.7 * (height * np.sqrt(height))
    return Cloud(positions, _rounded(colors), _rounded(properties), line)


_CENTRE, _SPREAD = ("x", "y", "z"), ("sx", "sy", "sz")


def _rounded(x: np.ndarray) -> np.ndarray:
    return (np.rint(x * GRAIN) / GRAIN).astype(np.float32)


def _nearness(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """[K, 150, 2] points, [K, n, 2] centres in (y, z) -> [K, 150]: 1 at the nearest centre, falling as a Gaussian."""
    dy = points[:, :, None, 0] - centres[:, None, :, 0]
    dz = points[:, :, None, 1] - centres[:, None, :, 1]
    return exp((dy * dy + dz * dz).min(axis=2) * (-0.5 / (GLOW_WIDTH * GLOW_WIDTH)))


def subframe_parameters(notes: np.ndarray, start: float) -> tuple[np.ndarray, np.ndarray]:
    """Parameters float64 [8, 5] in the order of PARAMETERS, and silent bool [8]. All times in samples from `start`."""
    near, onset, length = window_notes(notes, start)
    drum, velocity, pitch = near["drum"], near["velocity"].astype(np.int64), near["pitch"].astype(np.int64)

    left = np.arange(SUBFRAMES)[:, None] * SUBFRAME_SAMPLES
    right = left + SUBFRAME_SAMPLES
    overlap = np.clip(np.minimum(onset + length, right) - np.maximum(onset, left), 0, None)  # [8, notes]
    tone = (overlap >= np.minimum(AUDIBLE_SAMPLES, (length + 1) // 2)) & ~drum
    hit = (onset >= left) & (onset < right) & drum  # a drum sounds only where it is struck; its length is ignored
    sounds = tone | hit
    silent, toneless = ~sounds.any(axis=1), ~tone.any(axis=1)

    loudness = np.where(tone, overlap * velocity, 0)
    mean_pitch = (loudness * pitch).sum(axis=1) / np.maximum(loudness.sum(axis=1), 1)
    highest = np.where(tone, pitch, 0).max(axis=1, initial=0)
    lowest = np.where(tone, pitch, 127).min(axis=1, initial=127)
    mean_velocity = np.where(sounds, velocity, 0).sum(axis=1) / np.maximum(sounds.sum(axis=1), 1)
    amplitudes = np.zeros((SUBFRAMES, 128), np.int64)
    for k, i in zip(*np.nonzero(tone), strict=True):
        amplitudes[k, pitch[i]] = max(amplitudes[k, pitch[i]], velocity[i])

    parameters = np.stack(
        [
            np.where(toneless, 0.0, (mean_pitch - 36) / 52),
            np.where(toneless, 0.0, (highest - lowest) / 36),
            (mean_velocity - 20) / 100,
            _onset_rate(onset) / 10,
            power(roughness(amplitudes) / 0.25, 0.7),
        ],
        axis=1,
    )
    parameters = np.clip(parameters, 0.0, 1.0)
    parameters[silent] = 0.0
    _carry(parameters[:, 0], toneless)
    return parameters, silent


def _onset_rate(onset: np.ndarray) -> np.ndarray:
    """Distinct onsets per second, [8]: over each sub-frame and its neighbours within the window."""
    inside = np.sort(onset[(onset >= 0) & (onset < SPAN_SAMPLES)])
    distinct = inside[np.diff(inside, prepend=-SPAN_SAMPLES) > CHORD_SAMPLES]
    each = np.bincount(distinct // SUBFRAME_SAMPLES, minlength=SUBFRAMES)
    total = np.convolve(each, (1, 1, 1), "same")
    parts = np.convolve(np.ones(SUBFRAMES, np.int64), (1, 1, 1), "same")
    return total / (parts * SUBFRAME_SECONDS)


def _carry(pitch: np.ndarray, toneless: np.ndarray) -> None:
    """Fill sub-frames without a tone, in place: with the previous pitch, else the first one, else REST_Y."""
    heard = np.flatnonzero(~toneless)
    if len(heard) == 0:
        pitch[:] = REST_Y
        return
    last = np.searchsorted(heard, np.arange(len(pitch)), side="right") - 1
    pitch[:] = pitch[heard[np.maximum(last, 0)]]


def _lifeline(notes: np.ndarray, start: float, arousal: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """LIFELINE [8], the anchors that act on each sub-frame [8, 5] and those that lightning would strike [8, 3]."""
    p, silent = subframe_parameters(notes, start)
    pitch, range_, velocity, density, tension = p.T
    excited = max(0.0, arousal)
    t = (np.arange(SUBFRAMES) + 0.5) / SUBFRAMES
    z = np.where(silent, 0.0, z_of(p))
    sz = 0.3 * (0.16 + 0.22 * t) * (1 + 0.5 * excited)
    sy = sz * (0.35 + 2.2 * range_)

    squares = np.zeros((SUBFRAMES, len(ANCHORS)))
    for column in range(len(PARAMETERS)):
        off = (p[:, column, None] - ANCHOR_VALUES[:, column]) * ANCHOR_NAMED[:, column]
        squares += off * off
    acting = np.argsort(squares, axis=1, kind="stable")[:, :ACTING]
    similarity = exp(np.take_along_axis(squares, acting, 1) * (-0.5 / (SIMILARITY_WIDTH * SIMILARITY_WIDTH)))
    drawn = np.cumsum(similarity * ANCHOR_CHARGE[acting], axis=1)[:, -1]
    force = 0.15 + 1.36 * (0.5 * velocity + 0.3 * tension + 0.2 * density)
    energy = np.where(silent, 0.0, drawn * (0.35 + 0.95 * excited) * force)
    charge, lightning = _storm(energy)
    dy, dz = pitch[:, None] - ANCHORS[:, 0], z[:, None] - ANCHORS[:, 1]
    struck = np.argsort(dy * dy + dz * dz, axis=1, kind="stable")[:, :STRUCK]

    line = np.zeros(SUBFRAMES, LIFELINE)
    alpha = np.where(silent, 0.0, np.clip(0.25 + 0.55 * charge + 0.2 * excited, 0.0, 1.0))
    columns = dict(zip(PARAMETERS, p.T, strict=True))
    columns |= {"x": t, "y": pitch, "z": z, "energy": energy, "charge": charge, "alpha": alpha}
    columns |= {"sx": np.full(SUBFRAMES, SPREAD_X), "sy": sy, "sz": sz, "size": 0.15 + 0.85 * velocity}
    for name in _SPREAD:
        columns[name] = np.where(silent, SILENT_SPREAD, columns[name])
    for name, column in columns.items():
        line[name] = _rounded(column)
    line["silent"], line["lightning"] = silent, lightning & ~silent
    return line, acting, struck


def _storm(energy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A leaky integrator of the sub-frames' energies [8] -> its charge at each, and where it discharged (above 1)."""
    level = 4 * 0.05 * (float(np.cumsum(energy)[-1]) / SUBFRAMES)
    charge, lightning = np.zeros(SUBFRAMES), np.zeros(SUBFRAMES, bool)
    for k in range(SUBFRAMES):
        level = 0.94 * level + 0.05 * float(energy[k])
        charge[k] = level
        if level > 1:
            lightning[k] = True
            level *= 0.45
    return charge, lightning
