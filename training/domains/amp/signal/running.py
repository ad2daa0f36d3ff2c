"""Networks on sound: settled answers to tones, and the network at a multiple of its rate.

Dilated by M (every delay times M) a network has at M times the rate the sound that it was captured with (Carson et al.
2024, "Sample rate independent recurrent neural networks for audio effects processing", arXiv 2406.06293). Its M phases
never meet: phase p reads and writes the samples p, p + M, p + 2M, ... alone, and does so as the unchanged network at
the unchanged rate. So the phases are put into the batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from training.domains.amp.networks.network import Network
from training.domains.amp.signal.filters import (
    OVERSAMPLED_ATTENUATION,
    OVERSAMPLED_PASSED,
    filtered,
    lowpass_taps,
)
from training.domains.amp.signal.tones import tone

SETTLING = 1.0  # seconds that a recurrent network gets to settle before its answer to a tone is measured


def settling(network: Network, seconds: float = SETTLING) -> int:
    """Samples in front of a tone after which the answer is settled."""
    return network.receptive_field or round(seconds * network.sample_rate)


def settled(
    network: Network, cycles_B: torch.Tensor, amplitude_B: torch.Tensor, phase_B: torch.Tensor, length: int, *,
    dtype: torch.dtype, seconds: float = SETTLING, delay: float = 0.0,
) -> torch.Tensor:  # fmt: skip
    """One period of the settled answer to tones: [B, length] in `dtype`, which is the network's."""
    before = settling(network, seconds)
    x = tone(cycles_B, amplitude_B, phase_B, length, -before, length, delay).to(dtype)
    return network.valid(x)[:, -length:]


def settled_oversampled(
    network: Network, cycles_B: torch.Tensor, amplitude_B: torch.Tensor, phase_B: torch.Tensor, length: int,
    factor: int, *, dtype: torch.dtype, seconds: float = SETTLING,
) -> torch.Tensor:  # fmt: skip
    """The same at `factor` times the rate, with ideal filters: bins from half the original rate on are removed."""
    phases = [
        settled(network, cycles_B, amplitude_B, phase_B, length, dtype=dtype, seconds=seconds, delay=number / factor)
        for number in range(factor)
    ]
    spectrum = torch.fft.rfft(torch.stack(phases, -1).flatten(1)) / factor
    return torch.fft.irfft(spectrum[:, : (length + 1) // 2], n=length)


def oversampled(network: Callable[[torch.Tensor], torch.Tensor], x_BT: torch.Tensor, factor: int) -> torch.Tensor:
    """Any sound [B, T] through `network` ([B, T] -> [B, T] from rest) dilated by `factor`: upsample, phases into the
    batch, run, interleave, low-pass, decimate. Filters have no delay; outside of the sound there is silence."""
    if factor == 1:
        return network(x_BT)
    batch, time = x_BT.shape
    taps = oversampling_taps(factor).to(x_BT)
    stuffed = x_BT.new_zeros(batch, time, factor)
    stuffed[..., 0] = x_BT * factor
    up = filtered(stuffed.flatten(1), taps)
    phases = up.view(batch, time, factor).transpose(1, 2).reshape(batch * factor, time)
    answer = network(phases).view(batch, factor, time).transpose(1, 2).reshape(batch, time * factor)
    return filtered(answer, taps)[:, ::factor]


def oversampling_taps(factor: int) -> torch.Tensor:
    """The filter of oversampling at `factor` times the rate: 120 dB, up to 0.45 of the original rate. What folds about
    half the rate stays above 0.45 of it, where it is not heard."""
    passed = OVERSAMPLED_PASSED
    return lowpass_taps(factor, passed, 1 - passed, OVERSAMPLED_ATTENUATION)
