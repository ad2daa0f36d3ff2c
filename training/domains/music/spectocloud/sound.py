"""Augmentations of a window of sound whose effect on the target is known: another level, another key."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from training.domains.music.audio import FLOOR, N_MELS, SAMPLE_RATE

LOG_FLOOR = float(np.log(FLOOR))
AT_FLOOR = LOG_FLOOR + 1e-4  # values up to this are at the floor; interpolation rounds them
DB = np.log(10) / 10  # nats of power in a decibel


def at_gain(logmel: np.ndarray, gain_db: float) -> np.ndarray:
    """The log-mel of the same sound, louder by `gain_db`. Values at the floor are unknown and stay there."""
    louder = np.maximum(logmel + np.float32(gain_db * DB), np.float32(LOG_FLOOR))
    return np.where(logmel <= AT_FLOOR, np.float32(LOG_FLOOR), louder)


def band_centres() -> np.ndarray:
    """Centre frequencies in Hz of the mel bands [128], on Slaney's scale (Auditory Toolbox, 1998): linear up to 1 kHz,
    logarithmic above."""
    top = 15 + 27 * np.log(SAMPLE_RATE / 2 / 1000) / np.log(6.4)
    mel = np.linspace(0, top, N_MELS + 2)[1:-1]
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))


@lru_cache(maxsize=32)
def _shift(semitones: int) -> tuple[np.ndarray, np.ndarray]:
    """For each mel band, its source among the untransposed bands: index of the one below, weight of the one above."""
    centres = band_centres()
    source = np.interp(centres / 2 ** (semitones / 12), centres, np.arange(N_MELS))
    below = np.minimum(source.astype(np.int64), N_MELS - 2)
    return below, (source - below).astype(np.float32)


def transposed(notes: np.ndarray, logmel: np.ndarray, semitones: int) -> tuple[np.ndarray, np.ndarray]:
    """Notes (NOTE) and log-mel [T, 128] transposed by the same number of semitones, but for the notes of drums.

    The log-mel is resampled along frequency, like a recording that is played faster without becoming shorter. Formants
    are shifted too, so it is realistic for a few semitones only. If a note would leave 0..127, nothing is transposed.
    """
    if semitones == 0 or len(notes) == 0:
        return notes, logmel
    pitch = notes["pitch"].astype(np.int64) + np.where(notes["drum"], 0, semitones)
    if pitch.min() < 0 or pitch.max() > 127:
        return notes, logmel
    moved = np.array(notes)
    moved["pitch"] = pitch
    below, weight = _shift(semitones)
    return moved, logmel[:, below] * (1 - weight) + logmel[:, below + 1] * weight
