"""What is compared of a recording and of a score: harmonic energy and onsets on the bands of the stored log-mel.

Both are computed for every hop frame, from the stored log-mel for the recording and from the notes for the score, and
rounded to small integers, so that sums of their products are exact in any order: results do not depend on threads.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from training.domains.music.audio import HOP, N_FFT, N_MELS, SAMPLE_RATE
from training.domains.music.mel import frequencies

FRAME = HOP / SAMPLE_RATE  # seconds
HARMONIC_BANDS = 96  # up to 7 kHz; higher bands hold few fundamentals and partials
DIMENSIONS = HARMONIC_BANDS + N_MELS  # of a feature vector: harmonic energy, then onsets
SCALE = 48  # of the integers: a vector of length 1 has the length SCALE

_RANGE = 9.0  # nats below the loud parts of a recording; what is softer is not compared
_PARTIALS, _FALL = 8, 0.7  # of a note, and the amplitude of each relative to the one before
_DECAY, _HELD = 1.2, 0.3  # seconds in which a note decays, towards this share of its first level
_SPREAD = 5  # bands to either side whose mean is subtracted, which leaves partials and removes the timbre
_LOUDEST_ONSET = 3.0  # largest length of an onset vector, in units of their root mean square


def of_sound(logmel: np.ndarray) -> np.ndarray:
    """Log-mel [T, 128] in nats -> float32 [T, DIMENSIONS] of whole numbers."""
    level = np.asarray(logmel, np.float32)
    loud = np.sort(level.max(axis=1))[-1 - len(level) // 20]
    level = np.maximum(level - np.float32(loud - _RANGE), 0)
    before = np.concatenate([level[:1], level[:1], level[:-2]])
    rise = np.maximum(level - before, 0)
    return _features(level, np.minimum(rise, 4))


def of_score(notes: np.ndarray, frames: int) -> np.ndarray:
    """Notes -> float32 [frames, DIMENSIONS] of whole numbers: how a recording of them is expected to look."""
    onset = notes["onset"] + delays()[notes["program"]]
    first = np.clip(np.rint(onset / FRAME).astype(np.int64), 0, frames - 1)
    last = np.clip(np.ceil((onset + notes["duration"]) / FRAME).astype(np.int64), first + 1, frames)
    loudness = (notes["velocity"].astype(np.float64) / 127) ** 2
    templates = partials()
    energy, rise = np.zeros((frames, N_MELS), np.float32), np.zeros((frames, N_MELS), np.float32)
    decay = (_HELD + (1 - _HELD) * np.exp(-np.arange(frames) * FRAME / _DECAY)).astype(np.float32)
    for start, end, pitch, drum, loud in zip(
        first.tolist(), last.tolist(), notes["pitch"].tolist(), notes["drum"].tolist(), loudness.tolist(), strict=True
    ):
        shape = _NOISE if drum else templates[pitch]
        rise[start] += shape * np.float32(loud)
        if not drum:
            energy[start:end] += decay[: end - start, None] * (shape * np.float32(loud))
    return _features(_compressed(energy), _compressed(rise))


def coarse(features: np.ndarray, factor: int) -> np.ndarray:
    """Features of every `factor` frames together, whole numbers again."""
    count = -(-len(features) // factor)
    padded = np.zeros((count * factor, features.shape[1]), np.float32)
    padded[: len(features)] = features
    mean = padded.reshape(count, factor, -1).mean(axis=1)
    return _joined(mean[:, :HARMONIC_BANDS], mean[:, HARMONIC_BANDS:])


@cache
def partials() -> np.ndarray:
    """The bands of each pitch's partials, float32 [128, 128]; the largest of a pitch is 1."""
    centres = frequencies(N_MELS + 2, SAMPLE_RATE / 2)
    width = np.maximum(np.diff(centres)[1:], 2 * SAMPLE_RATE / N_FFT)  # Hz; of a band, or of the window's main lobe
    out = np.zeros((128, N_MELS))
    for pitch in range(128):
        base = 440 * 2 ** ((pitch - 69) / 12)
        for number in range(_PARTIALS):
            near = 1 - np.abs(centres[1:-1] - base * (number + 1)) / width
            out[pitch] += _FALL ** (2 * number) * np.maximum(near, 0)
    out /= np.maximum(out.max(axis=1, keepdims=True), 1e-9)
    return out.astype(np.float32)


_NOISE = np.full(N_MELS, 0.3, np.float32)


def delays() -> np.ndarray:
    """Seconds from the onset of a note to the frame with its largest rise, for each General MIDI program [128]: half a
    window, and the attack. Bowed strings, voices and pads rise slowly; winds and brass less so."""
    out = np.full(128, 0.03)
    out[56:80] += 0.012
    out[[*range(40, 45), *range(48, 55), *range(88, 96)]] += 0.03
    return out


def _compressed(power: np.ndarray) -> np.ndarray:
    """Power as nats above a floor, as `of_sound` has levels."""
    top = np.float32(max(float(power.max(initial=0)), 1e-6))
    return np.log1p(power / top * np.float32(1000))


def _features(level: np.ndarray, rise: np.ndarray) -> np.ndarray:
    level = level[:, :HARMONIC_BANDS]
    padded = np.pad(level, ((0, 0), (_SPREAD + 1, _SPREAD)), mode="edge")
    sums = np.cumsum(padded, axis=1, dtype=np.float64)
    mean = (sums[:, 2 * _SPREAD + 1 :] - sums[:, : -(2 * _SPREAD + 1)]) / (2 * _SPREAD + 1)
    sharp = np.maximum(level - mean.astype(np.float32), 0)
    soft = rise + 0.5 * (np.concatenate([rise[1:], rise[-1:]]) + np.concatenate([rise[:1], rise[:-1]]))
    return _joined(sharp, soft)


def _joined(harmonic: np.ndarray, onset: np.ndarray) -> np.ndarray:
    """Both parts, centred over time and scaled: a harmonic vector has the length 1, onset vectors on average."""
    harmonic = harmonic - harmonic.mean(axis=0)
    length = np.sqrt((harmonic**2).sum(axis=1, keepdims=True))
    harmonic = harmonic / np.maximum(length, max(0.3 * float(length.mean()), 1e-6))
    onset = onset - onset.mean(axis=0)
    length = np.sqrt((onset**2).sum(axis=1, keepdims=True))
    usual = max(float(np.sqrt((length**2).mean())), 1e-6)
    onset = onset / usual * np.minimum(1, _LOUDEST_ONSET * usual / np.maximum(length, 1e-6))
    return np.rint(SCALE * np.concatenate([harmonic, onset], axis=1)).astype(np.float32)
