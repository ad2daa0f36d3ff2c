"""Networks on sound: settled answers to tones, and the network at a multiple of its rate.

Dilated by M (every delay times M) a network has at M times the rate the sound that it was captured with (Carson et al.
2024, "Sample rate independent recurrent neural networks for audio effects processing", arXiv 2406.06293). Its M phases
never meet: phase p reads and writes the samples p, p + M, p + 2M, ... alone, and does so as the unchanged network at
the unchanged rate. So the phases are put into the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from training.domains.amp.networks.network import Network, State
from training.domains.amp.signal import measures
from training.domains.amp.signal.filters import (
    OVERSAMPLED_ATTENUATION,
    OVERSAMPLED_PASSED,
    filtered,
    lowpass_taps,
)
from training.domains.amp.signal.tones import tone

BLOCK = 4_096  # samples of a recurrent network's answer that are computed at a time
SETTLING = 1.0  # seconds that a recurrent network gets at most to settle before its answer to a tone is measured
REPEATED = 1e-14  # it has settled as soon as two periods of its answer differ by less, in energy


def settling(network: Network, seconds: float = SETTLING) -> int:
    """Samples in front of a tone after which the answer is settled."""
    return network.receptive_field or round(seconds * network.sample_rate)


def settled(
    network: Network, cycles_B: torch.Tensor, amplitude_B: torch.Tensor, phase_B: torch.Tensor, length: int, *,
    dtype: torch.dtype, seconds: float = SETTLING, delay: float = 0.0,
) -> torch.Tensor:  # fmt: skip
    """One period of the settled answer to tones: [B, length] in `dtype`, which is the network's."""
    before = settling(network, seconds)
    if network.receptive_field:
        x = tone(cycles_B, amplitude_B, phase_B, length, -before, length, delay).to(dtype)
        return network.training_pass(x)[:, -length:]
    period = tone(cycles_B, amplitude_B, phase_B, length, 0, length, delay).to(dtype)
    state, last = network.start(len(period)), None
    for _ in range(1 + math.ceil(before / length)):
        y, state = _answered(network, period, state)
        if last is not None and bool((measures.esr(y, last) < REPEATED).all()):
            break
        last = y
    return y


def _answered(network: Network, x_BT: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
    """The answer and the state after it, computed in blocks, which bound the memory."""
    parts = []
    for part in x_BT.split(BLOCK, 1):
        y, state = network(part, state)
        parts.append(y)
    return torch.cat(parts, 1), state


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
