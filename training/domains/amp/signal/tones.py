"""Sine tones of prime length. The settled answer of a network to such a tone is periodic in `length` samples, and its
aliases meet none of its harmonics, so that both can be separated exactly.

A tone is a sin(2 pi k n / N + p), with N prime and k an integer, 0 < k < N/2. A settled answer of a time-invariant
system is periodic with the tone, so its spectrum has lines at multiples of k alone, modulo N. Harmonic h is at h k, if
that is below N/2; a harmonic above the Nyquist frequency folds to another bin, since N is prime: h k = +-j k (mod N)
needs h = +-j (mod N). What is not at 0, k, 2k, ... is therefore aliased, up to the harmonics from N - h on, which no
audible distortion reaches. (Carson et al. 2025, "Anti-aliasing of neural distortion effects via model fine tuning",
arXiv 2505.04082, estimate the same lines from a window of one second with a Chebyshev window.)
"""

from __future__ import annotations

import math

import torch

TRAINING_LENGTH = 8_209  # samples: 0.19 s at 44.1 kHz, bins 5.4 Hz apart
LOWEST, HIGHEST = 21, 127  # MIDI notes: 27.5 Hz to 12.5 kHz
#: Sample rate -> the prime length of the tones by which a model is judged, about a second.
JUDGED_LENGTHS = {44_100: 44_101, 48_000: 48_017}


def next_prime(number: int) -> int:
    """The smallest prime that is at least `number` (>= 3)."""
    number |= 1
    while any(number % divisor == 0 for divisor in range(3, math.isqrt(number) + 1, 2)):
        number += 2
    return number


def judged_length(rate: int) -> int:
    """Samples of a tone for the evaluation at `rate` Hz: a prime, about one second."""
    return JUDGED_LENGTHS.get(rate) or next_prime(rate)


def frequency(midi: torch.Tensor | float) -> torch.Tensor:
    """MIDI note numbers, which may be fractions, to Hz (A4 = 69 = 440 Hz)."""
    return 440.0 * 2 ** ((torch.as_tensor(midi, dtype=torch.float64) - 69) / 12)


def cycles(hertz: torch.Tensor, length: int, rate: int) -> torch.Tensor:
    """The integer number of cycles in `length` samples that is nearest to each frequency: int64, from 1 to N/2."""
    return torch.round(hertz * length / rate).long().clamp(1, (length - 1) // 2)


def tone(
    cycles_B: torch.Tensor, amplitude_B: torch.Tensor, phase_B: torch.Tensor, length: int, begin: int, end: int,
    delay: float = 0.0,
) -> torch.Tensor:  # fmt: skip
    """The samples `begin` to `end` of tones, which may be negative: float64 [B, end - begin].

    cycles_B: int64 [B] in `length` samples. phase_B: radians. delay: shifts all of them, in samples; the phases of an
    oversampled tone are delayed by fractions of a sample.
    """
    place = torch.arange(begin, end, device=cycles_B.device, dtype=torch.int64)
    turns = (cycles_B[:, None] * place) % length  # integers, so that no digit is lost in a long tone
    angle = (turns.double() + cycles_B[:, None].double() * delay) * (2 * math.pi / length)
    return amplitude_B[:, None].double() * torch.sin(angle + phase_B[:, None].double())


def harmonic_bins(cycles_B: torch.Tensor, length: int) -> torch.Tensor:
    """Which bins of the real spectrum are harmonics of each tone, or DC: bool [B, (length + 1) // 2]."""
    bins = torch.arange((length + 1) // 2, device=cycles_B.device)
    return bins % cycles_B[:, None] == 0


def without_aliases(y_BN: torch.Tensor, cycles_B: torch.Tensor) -> torch.Tensor:
    """The target: the part of settled answers [B, N] that is harmonic, in the same dtype."""
    length = y_BN.shape[-1]
    spectrum = torch.fft.rfft(y_BN)
    return torch.fft.irfft(spectrum * harmonic_bins(cycles_B, length), n=length)
