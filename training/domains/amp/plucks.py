"""Synthetic plucks of guitar strings, for jobs without recordings (Karplus and Strong 1983)."""

from __future__ import annotations

import numpy as np

_LOWEST, _HIGHEST = 40, 84  # MIDI notes: from the open E string to the 20th fret of the upper one

#: Semitones above the lowest note, and how often they are played.
_CHORDS = ((0,), (0, 7), (0, 7, 12), (0, 4, 7), (0, 3, 7, 10))
_SHARES = (0.5, 0.2, 0.15, 0.1, 0.05)


def pluck(note: float, seconds: float, rate: int, random: np.random.Generator) -> np.ndarray:
    """One string: float32 [n], full scale 1, peak 1. `note`: MIDI number, 69 is 440 Hz."""
    from scipy.signal import lfilter  # takes seconds to import, and few processes pluck

    period = rate / (440.0 * 2 ** ((note - 69) / 12))
    length = int(period)
    burst = random.uniform(-1, 1, length)
    burst = lfilter([1.0], [1.0, -random.uniform(0.2, 0.7)], burst)  # harder and softer picks
    count = int(seconds * rate)
    # y[n] = x[n] + loss * ((1 - f) y[n - length] + f y[n - length - 1]); the fraction f tunes the string
    fraction, loss = period - length, 0.5 ** (1 / (440.0 * 2 ** ((note - 69) / 12)) / random.uniform(0.3, 0.9))
    before = length + 1  # zeros in front of the sound
    string = np.zeros(before + count)
    string[before : before + length] = burst[:count]
    for begin in range(before + length, before + count, length):  # a period at a time: none depends on itself
        end = min(begin + length, before + count)
        string[begin:end] = loss * (
            (1 - fraction) * string[begin - length : end - length]
            + fraction * string[begin - length - 1 : end - length - 1]
        )
    sound = string[before:] - string[before:].mean()
    return (sound / max(1e-9, np.abs(sound).max())).astype(np.float32)


def playing(seconds: float, rate: int, seed: int) -> np.ndarray:
    """Single notes, pairs and chords one after the other: float32 [n], peaks between 0.1 and 0.7."""
    random = np.random.default_rng([seed, rate])
    sound = np.zeros(int(seconds * rate), np.float32)
    at = 0.0
    while at < seconds:
        lasts = random.uniform(0.25, 1.5)
        root = random.integers(_LOWEST, _HIGHEST + 1)
        intervals = _CHORDS[random.choice(len(_CHORDS), p=_SHARES)]
        notes = [pluck(root + interval, lasts, rate, random) for interval in intervals]
        chord = np.sum(notes, axis=0) * random.uniform(0.1, 0.7) / max(1e-9, np.abs(np.sum(notes, axis=0)).max())
        fade = min(len(chord), rate // 100)
        chord[-fade:] *= np.linspace(1, 0, fade)
        start = int(at * rate)
        part = sound[start : start + len(chord)]
        part += chord[: len(part)].astype(np.float32)
        at += lasts
    return sound
