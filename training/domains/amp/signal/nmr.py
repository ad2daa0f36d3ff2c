"""Noise-to-mask ratio: how far an error is above what the ear hears beside a reference.

The FFT-based ear model of ITU-R BS.1387-2 (2023), basic version, in the form of Kabal (2003), "An examination and
interpretation of ITU-R BS.1387", from which the numbers of equations are. Tones are steady, so the model's smearing in
time is left out, as in arXiv 2505.04082. Band edges are computed (eq. 10 to 12): the standard's printed table has
typing errors.
"""

from __future__ import annotations

import math

import torch
from torch import nn

FRAME, HOP = 2_048, 1_024  # samples
LEVEL = 92.0  # dB SPL of a sine at full scale
TEST_FREQUENCY = 1_019.5  # Hz, of the sine by which the level is calibrated
LOWEST, HIGHEST, STEP = 80.0, 18_000.0, 0.25  # Hz, Hz, Bark
POWER = 0.4  # of the addition of spread energies
AUDIBLE = -10.0  # dB of NMR from which an error counts as audible
_SMALLEST = 1e-12


def bark(hertz: float) -> float:
    """Frequency on the Bark scale of the standard (eq. 10)."""
    return 7 * math.asinh(hertz / 650)


def bands() -> torch.Tensor:
    """Lower edge, centre and upper edge of the 109 bands in Hz: float64 [109, 3]."""
    lowest, highest = bark(LOWEST), bark(HIGHEST)
    count = math.ceil((highest - lowest) / STEP)
    lower = lowest + STEP * torch.arange(count, dtype=torch.float64)
    upper = (lower + STEP).clamp(max=highest)
    return 650 * torch.sinh(torch.stack([lower, (lower + upper) / 2, upper], 1) / 7)


def ear_gain(hertz: torch.Tensor) -> torch.Tensor:
    """Gain of the outer and middle ear, in power (eq. 6); f in kHz: -2.184 f^-0.8 + 6.5 exp(-0.6 (f - 3.3)^2)
    - 0.001 f^3.6 dB; 0 at 0 Hz."""
    f = hertz / 1000
    decibels = -2.184 * f**-0.8 + 6.5 * torch.exp(-0.6 * (f - 3.3) ** 2) - 0.001 * f**3.6
    return 10 ** (decibels / 10)


def grouping(rate: int) -> torch.Tensor:
    """Share of each FFT bin that lies in each band (eq. 13): float64 [bins, 109]."""
    width = rate / FRAME
    middle = width * torch.arange(FRAME // 2 + 1, dtype=torch.float64)[:, None]
    lower, _, upper = bands().T
    inside = torch.minimum(middle + width / 2, upper) - torch.maximum(middle - width / 2, lower)
    return inside.clamp(min=0) / width


def calibration(rate: int) -> float:
    """The factor that gives the largest bin of a full-scale sine at 1,019.5 Hz the level of 92 dB (eq. 4, 5)."""
    place = TEST_FREQUENCY / rate * FRAME
    off = min(place - math.floor(place), math.ceil(place) - place) / FRAME * (FRAME - 1)
    peak = math.sin(math.pi * off) / (math.pi * off * (1 - off**2)) if off else 1.0
    return 10 ** (LEVEL / 20) / (peak * (FRAME - 1) / 4)


class Ear(nn.Module):
    """The ear model at one sample rate (Hz), in one dtype."""

    def __init__(self, rate: int, dtype: torch.dtype = torch.float64):
        super().__init__()
        self.rate = rate
        _, centre, _ = bands().T
        hertz = torch.linspace(0, rate / 2, FRAME // 2 + 1, dtype=torch.float64)
        window = torch.hann_window(FRAME, periodic=False, dtype=torch.float64) * calibration(rate)
        numbers = torch.arange(len(centre), dtype=torch.float64)
        offset = torch.where(numbers * STEP <= 12, 3.0, STEP * numbers * STEP)  # dB (eq. 40)
        constants = {
            "window": window,
            "gain": ear_gain(hertz).sqrt(),
            "grouping": grouping(rate),
            "noise": 10 ** (0.1456 * (centre / 1000) ** -0.8),  # inside the ear (eq. 18)
            "slope": (24 + 230 / centre) / 10,  # decades down per Bark upwards, without the term of the level
            "offset": 10 ** (-offset / 10),
            "apart": (numbers[None, :] - numbers[:, None]) * STEP,  # Bark from band to band
        }
        for name, value in constants.items():
            self.register_buffer(name, value.to(dtype), persistent=False)
        self.register_buffer("normal", torch.ones((), dtype=dtype), persistent=False)
        self.normal = self._spread(torch.ones(len(centre), dtype=dtype))

    def magnitudes(self, x: torch.Tensor) -> torch.Tensor:
        """Weighted magnitude spectra of sound [..., T], full scale 1: [..., frames, bins]. T must be 2,048 or more."""
        frames = x.unfold(-1, FRAME, HOP) * self.window
        # rfft's magnitude has no gradient at 0, where the square root would give nan
        spectrum = torch.fft.rfft(frames)
        power = spectrum.real**2 + spectrum.imag**2
        return (power + _SMALLEST).sqrt() * self.gain

    @torch.no_grad()
    def mask(self, reference: torch.Tensor) -> torch.Tensor:
        """The loudest error that is not heard, in power, of reference magnitudes [..., frames, bins]: [..., frames,
        109]."""
        energy = (reference**2 @ self.grouping).clamp(min=_SMALLEST) + self.noise
        return self.offset * self._spread(energy) / self.normal

    def _spread(self, energy: torch.Tensor) -> torch.Tensor:
        """Spread energies [..., 109] over the bands (eq. 19 to 25), in one product a frame: 27 dB per Bark down; up by
        a slope that falls with the level."""
        up = self.slope - 0.02 * 10 * torch.log10(energy)  # decades per Bark
        count = len(self.slope)
        # 10^(-slope * distance), to the power 0.4
        steep = torch.where(self.apart > 0, -up[..., None], 2.7) * self.apart
        falls = torch.exp(POWER * math.log(10) * steep)  # [..., from, to]; pow(10, x) takes 4 times as long
        lower = 10 ** (-2.7 * STEP)
        upper = torch.pow(10.0, -up * STEP)
        number = torch.arange(count, device=energy.device, dtype=energy.dtype)
        gain = (1 - lower ** (number + 1)) / (1 - lower) + (1 - upper ** (count - number)) / (1 - upper) - 1
        own = (energy / gain) ** POWER
        return (own[..., None, :] @ falls).squeeze(-2) ** (1 / POWER)

    def ratio(self, x: torch.Tensor, reference: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Noise to mask in power, the mean over bands and frames (eq. 86): magnitudes and the mask of the reference
        -> [...]."""
        noise = (x - reference) ** 2 @ self.grouping
        return (noise / mask).mean((-2, -1))

    def nmr(self, x: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        """NMR in dB of sound [..., T] against a reference [..., T]: [...]."""
        own, right = self.magnitudes(x), self.magnitudes(reference)
        return decibels(self.ratio(own, right, self.mask(right)))


def decibels(power: torch.Tensor) -> torch.Tensor:
    """10 log10 of a ratio of powers, at least -300."""
    return 10 * torch.log10(power.clamp(min=1e-30))
