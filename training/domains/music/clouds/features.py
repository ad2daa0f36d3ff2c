"""Statistics of the notes in a window: the exported model's `midi_features`, for a host that has the score."""

from __future__ import annotations

import numpy as np

from training.domains.music.audio import SAMPLE_RATE
from training.domains.music.clouds.cloud import SPAN_SAMPLES, SUBFRAMES, subframe_parameters, window_notes

_PITCH_CLASSES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
_SECONDS = SPAN_SAMPLES / SAMPLE_RATE

#: Meanings of the 32 numbers, all in [0, 1]. Tones are the notes that are not drums; means over tones are weighted by
#: the time that each sounds in the window. Pitches are (pitch - 36) / 52, velocities velocity / 127.
FEATURES = (
    "1 if a note sounds",
    "distinct onsets per second / 10, mean over the window (training.domains.music.clouds.cloud, density)",
    "tones that begin, per second / 20",
    "tones sounding: mean over the window / 8",
    "tones sounding: most at once / 12",
    "share of the window in which a tone sounds",
    "pitch, mean",
    "pitch, standard deviation / 24 semitones",
    "pitch, lowest",
    "pitch, highest",
    "velocity, mean over tones and drums",
    "velocity, standard deviation / 32",
    "velocity, loudest",
    "duration of tones within the window, mean / its length",
    "share of drums among the notes",
    "drums struck per second / 20",
    *(f"share of pitch class {name}, by velocity * time" for name in _PITCH_CLASSES),
    "tension, mean over the sub-frames (training.domains.music.clouds.cloud)",
    "range, mean over the sub-frames (training.domains.music.clouds.cloud)",
    "pitch, second half less first half, (52 semitones + difference) / 104; 1/2 if it does not move",
    "velocity, second half less first half, (1 + difference) / 2; 1/2 if it does not change",
)


def midi_features(notes: np.ndarray, start: float) -> np.ndarray:
    """float32 [32], the FEATURES of the 1.486 s from `start` seconds; all zeros exactly where no note sounds.

    notes: NOTE, a complete song or a slice that covers the window.
    """
    near, onset, length = window_notes(notes, start)
    heard = ~near["drum"] | (onset >= 0)  # a drum is heard where it is struck
    near, onset, length = near[heard], onset[heard], length[heard]
    out = np.zeros(len(FEATURES), np.float32)
    if len(near) == 0:
        return out
    parameters, _ = subframe_parameters(notes, start)
    pitch_k, range_k, velocity_k, density_k, tension_k = parameters.T
    velocity = near["velocity"].astype(np.float64)
    begins = onset >= 0
    drum = near["drum"]
    half = SUBFRAMES // 2

    out[0] = 1
    out[1] = density_k.mean()
    out[10:13] = velocity.mean() / 127, velocity.std() / 32, velocity.max() / 127
    out[14] = drum.mean()
    out[15] = (drum & begins).sum() / _SECONDS / 20
    out[28] = tension_k.mean()
    out[29] = range_k.mean()
    out[30] = (1 + pitch_k[half:].mean() - pitch_k[:half].mean()) / 2
    out[31] = (1 + velocity_k[half:].mean() - velocity_k[:half].mean()) / 2

    tone = ~drum
    if tone.any():
        first, last = np.maximum(onset[tone], 0), np.minimum(onset[tone] + length[tone], SPAN_SAMPLES)
        pitch = near["pitch"][tone].astype(np.float64)
        sounding = (last - first).astype(np.float64)
        mean = (sounding * pitch).sum() / sounding.sum()
        most, covered = _overlaps(first, last)
        out[2] = (tone & begins).sum() / _SECONDS / 20
        out[3:6] = sounding.sum() / SPAN_SAMPLES / 8, most / 12, covered / SPAN_SAMPLES
        out[6:10] = _scaled(mean), _spread(pitch, mean, sounding) / 24, _scaled(pitch.min()), _scaled(pitch.max())
        out[13] = sounding.mean() / SPAN_SAMPLES
        out[16:28] = np.bincount(near["pitch"][tone] % 12, sounding * velocity[tone], minlength=12)
        out[16:28] /= out[16:28].sum()
    return np.clip(out, 0, 1)


def _scaled(pitch: float) -> float:
    return (pitch - 36) / 52


def _spread(values: np.ndarray, mean: float, weights: np.ndarray) -> float:
    return float(np.sqrt((weights * (values - mean) ** 2).sum() / weights.sum()))


def _overlaps(first: np.ndarray, last: np.ndarray) -> tuple[int, int]:
    """Of intervals [first, last): the largest number that overlap, and the length of their union."""
    times = np.concatenate([last, first])  # the sort is stable: at equal times, ends come before beginnings
    steps = np.concatenate([np.full(len(last), -1), np.full(len(first), 1)])
    order = np.argsort(times, kind="stable")
    count = np.cumsum(steps[order])
    return int(count.max()), int(np.diff(times[order])[count[:-1] > 0].sum())
