"""Errors of sounds against their targets, and of settled tones. All are ratios of energies; [..., T] -> [...]."""

from __future__ import annotations

import torch

from training.domains.amp.signal.tones import harmonic_bins

_SMALLEST = 1e-20


def esr(y: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Error-to-signal ratio: sum of (y - target)^2 over sum of target^2."""
    return ((y - target) ** 2).sum(-1) / ((target**2).sum(-1) + _SMALLEST)


def dc(y: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Error of the mean, squared, over the mean square of the target."""
    return (y - target).mean(-1) ** 2 / ((target**2).mean(-1) + _SMALLEST)


def asr(y_BN: torch.Tensor, cycles_B: torch.Tensor) -> torch.Tensor:
    """Aliases over harmonics of settled tones [B, N], in energy: [B]."""
    power, harmonic = _power(y_BN), harmonic_bins(cycles_B, y_BN.shape[-1])
    return (power * ~harmonic).sum(-1) / ((power * harmonic).sum(-1) + _SMALLEST)


def hesr(y_BN: torch.Tensor, target_BN: torch.Tensor, cycles_B: torch.Tensor) -> torch.Tensor:
    """ESR of the harmonics alone, of settled tones [B, N]: how far the sound itself has changed: [B]."""
    harmonic = harmonic_bins(cycles_B, y_BN.shape[-1])
    wrong, right = _power(y_BN - target_BN), _power(target_BN)
    return (wrong * harmonic).sum(-1) / ((right * harmonic).sum(-1) + _SMALLEST)


def mesr(y: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """ESR of magnitude spectra, which phases do not change."""
    own, right = torch.fft.rfft(y).abs(), torch.fft.rfft(target).abs()
    return ((own - right) ** 2).sum(-1) / ((right**2).sum(-1) + _SMALLEST)


def _power(x: torch.Tensor) -> torch.Tensor:
    """Energy of each bin of the real spectrum; both halves count, so all but DC are doubled (odd lengths only)."""
    spectrum = torch.fft.rfft(x)
    power = spectrum.real**2 + spectrum.imag**2
    power[..., 1:] *= 2
    return power
