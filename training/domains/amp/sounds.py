"""A sound before and after, at equal loudness, with their difference: for samples, the report and `render`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from training.domains.amp.networks.network import Network

LOUDNESS, PEAK = 10 ** (-18 / 20), 0.95  # RMS to which both are brought, and the largest sample
_SILENT = 1e-9


@dataclass(frozen=True)
class Heard:
    """The same sound through two networks: float32 [n] each, at equal loudness."""

    before: np.ndarray
    after: np.ndarray
    rate: int
    gain: float  # of `before`, in dB
    gain_after: float  # of `after`, in dB

    @property
    def difference(self) -> np.ndarray:
        """What was removed and changed, as loud as it is in the other two."""
        return self.after - self.before


@torch.no_grad()
def played(network: Network, sound: np.ndarray) -> np.ndarray:
    """float32 [n] through the network, from rest: float32 [n], without its constant part."""
    parameter = next(network.parameters())
    y = network.play(torch.from_numpy(np.ascontiguousarray(sound, np.float32))[None].to(parameter))[0]
    found = y.double().cpu().numpy()
    return (found - found.mean()).astype(np.float32)


def heard(teacher: Network, student: Network, sound: np.ndarray) -> Heard:
    """The sound (float32 [n] at the networks' rate) through both. Loudness is that of the complete sound, by RMS."""
    before, after = played(teacher, sound), played(student, sound)
    levels = [float(np.sqrt(np.mean(np.square(one, dtype=np.float64)))) for one in (before, after)]
    gains = [LOUDNESS / max(_SILENT, level) for level in levels]
    largest = max(float(np.abs(one).max()) * gain for one, gain in zip((before, after), gains, strict=True))
    gains = [gain * min(1.0, PEAK / max(_SILENT, largest)) for gain in gains]
    decibels = [float(20 * np.log10(max(_SILENT, gain))) for gain in gains]
    return Heard(before * np.float32(gains[0]), after * np.float32(gains[1]), student.sample_rate, *decibels)


def sweep(rate: int, seconds: float = 2.5, low: float = 110.0, high: float = 3520.0, level: float = 0.25) -> np.ndarray:
    """A sine whose pitch rises evenly from `low` to `high` Hz: float32 [n]. Aliases fall while it rises."""
    time = np.arange(int(seconds * rate)) / rate
    growth = np.log(high / low) / seconds
    phase = 2 * np.pi * low * np.expm1(growth * time) / growth
    fade = np.minimum(1, np.minimum(time, seconds - time) / 0.02)
    return (level * fade * np.sin(phase)).astype(np.float32)


def spectrogram(sound: np.ndarray, rate: int, width: int = 480, height: int = 240) -> np.ndarray:
    """uint8 [height, width], the top is half the rate: 0 is -100 dB of full scale or less, 255 is 0 dB."""
    size = 2048
    window = np.hanning(size)
    starts = np.linspace(0, max(0, len(sound) - size), width).astype(int)
    padded = np.pad(sound.astype(np.float64), (0, max(0, size - len(sound))))
    frames = np.stack([padded[start : start + size] for start in starts]) * window
    levels = 20 * np.log10(np.maximum(1e-5, np.abs(np.fft.rfft(frames)) / (window.sum() / 2)))
    edges = np.linspace(1, levels.shape[1], height, endpoint=False).astype(int)
    picture = np.maximum.reduceat(levels, edges, axis=1).T[::-1]
    return np.clip((picture + 100) / 100 * 255, 0, 255).astype(np.uint8)
