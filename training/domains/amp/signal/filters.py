"""Linear-phase low-pass filters, by Kaiser windows (Kaiser 1974; Oppenheim and Schafer, section 7.6)."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch

#: Of the filter in front of the loss (arXiv 2505.04082): Hz, and dB of attenuation.
PASSED, STOPPED, ATTENUATION = 12_000.0, 16_000.0, 80.0
#: Of the filters of oversampling, as shares of the lower sample rate: 20.0 and 24.1 kHz at 44.1 kHz.
OVERSAMPLED_PASSED, OVERSAMPLED_ATTENUATION = 0.4535, 120.0


@functools.lru_cache(maxsize=64)
def _taps(rate: float, passed: float, stopped: float, attenuation: float) -> np.ndarray:
    if not 0 < passed < stopped:
        raise ValueError(f"a low-pass filter from {passed:g} to {stopped:g} Hz cannot be made")
    order = math.ceil((attenuation - 7.95) / (14.36 * (stopped - passed) / rate))
    order += order % 2
    beta = 0.1102 * (attenuation - 8.7)  # for more than 50 dB
    place = np.arange(order + 1) - order / 2
    cut = (passed + stopped) / rate  # twice the middle of the transition
    taps = cut * np.sinc(cut * place) * np.kaiser(order + 1, beta)
    return taps / taps.sum()


def lowpass_taps(rate: float, passed: float, stopped: float, attenuation: float) -> torch.Tensor:
    """An odd number of taps, float64 [taps], symmetric: gain 1 up to `passed` Hz, less than -attenuation dB from
    `stopped` Hz."""
    return torch.from_numpy(_taps(float(rate), float(passed), float(stopped), float(attenuation)))


def loss_taps(rate: int) -> torch.Tensor:
    """The low-pass filter in front of the loss: what lies above is not heard, and is not to be learnt."""
    passed = min(PASSED, 0.3 * rate)
    return lowpass_taps(rate, passed, min(STOPPED, passed * STOPPED / PASSED), ATTENUATION)


def filtered(x_BT: torch.Tensor, taps: torch.Tensor) -> torch.Tensor:
    """Convolution with an odd number of symmetric taps, without delay, by FFT: [..., T] -> [..., T]. Outside of the
    signal it takes zeros."""
    long = x_BT.shape[-1] + len(taps) - 1
    size = fast_length(long)
    spectrum = torch.fft.rfft(x_BT, n=size) * torch.fft.rfft(taps.to(x_BT), n=size)
    complete = torch.fft.irfft(spectrum, n=size)
    begin = (len(taps) - 1) // 2
    return complete[..., begin : begin + x_BT.shape[-1]]


def fast_length(number: int) -> int:
    """The smallest number from `number` up without a prime factor above 5, for a quick FFT."""
    best = 1 << (number - 1).bit_length()
    five = 1
    while five < best:
        three = five
        while three < best:
            two = three << max(0, (-(-number // three) - 1).bit_length())
            best = min(best, two) if two >= number else best
            three *= 3
        five *= 5
    return best


def periodic_response(taps: torch.Tensor, length: int) -> torch.Tensor:
    """The filter's real frequency response at the bins of a period of `length` samples: float64 [length // 2 + 1].

    A product with the spectrum of a periodic signal filters it, without edges."""
    wrapped = torch.zeros(length, dtype=torch.float64)
    place = (torch.arange(len(taps)) - (len(taps) - 1) // 2) % length
    wrapped.index_add_(0, place, taps)
    return torch.fft.rfft(wrapped).real
