"""The demo's amplifier: a high-pass filter, tanh(G x + b), and a low-pass filter, computed at 16 times the rate.

At 16 times the rate the harmonics that would fold are more than 120 dB down for the gains used here, and the filters
of oversampling remove them: this is the truth that a capture approximates.
"""

from __future__ import annotations

import math

import torch

from training.domains.amp.signal.filters import fast_length, filtered
from training.domains.amp.signal.running import oversampling_taps

FACTOR = 16
HIGHPASS, LOWPASS = 720.0, 5_000.0  # Hz, each of first order; as in many overdrive pedals
BIAS = 0.3  # b: makes even harmonics
TAIL = 2_048  # samples of silence that keep the FFT's wrap-around away


def circuit(x_BT: torch.Tensor, gain: float, rate: int) -> torch.Tensor:
    """The amplifier's answer to sound [B, T] at `rate` Hz: [B, T]. The output is about within +-1."""
    batch, time = x_BT.shape
    taps = oversampling_taps(FACTOR).to(x_BT)
    stuffed = x_BT.new_zeros(batch, time, FACTOR)
    stuffed[..., 0] = x_BT * FACTOR
    up = _first_order(filtered(stuffed.flatten(1), taps), HIGHPASS, rate * FACTOR, high=True)
    driven = torch.tanh(gain * up + BIAS) - math.tanh(BIAS)
    down = filtered(_first_order(driven, LOWPASS, rate * FACTOR, high=False), taps)
    return down[:, ::FACTOR]


def _first_order(x: torch.Tensor, cut: float, rate: int, *, high: bool) -> torch.Tensor:
    """An analogue filter of first order, by its frequency response: 1 / (1 + s) or s / (1 + s), s = i f / cut."""
    size = fast_length(x.shape[-1] + FACTOR * TAIL)
    s = 1j * torch.fft.rfftfreq(size, 1 / rate, dtype=x.dtype, device=x.device) / cut
    response = (s if high else 1) / (1 + s)
    return torch.fft.irfft(torch.fft.rfft(x, n=size) * response, n=size)[..., : x.shape[-1]]
