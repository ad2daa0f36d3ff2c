"""The loss: how audible the difference to the target is, how large it is, and its mean.

Carson et al. (2025, arXiv 2505.04082) minimise 0.5 ESR + 0.5 * 10^(mean of NMR in dB / 10) + 1.0 DC behind a low-pass
filter from 12 to 16 kHz: `space: linear`. There the loudest aliases alone decide. With `space: db` every sample counts
by its NMR in dB, down to `floor_db`, and by its own ESR.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from training.domains.amp.signal import measures
from training.domains.amp.signal.filters import loss_taps
from training.domains.amp.signal.nmr import FRAME, Ear, decibels
from training.domains.amp.student.config import Objective
from training.recipe import Loss


def least_length(rate: int) -> int:
    """Samples of the shortest sound that has a loss at `rate` Hz: a frame of the ear behind the filter, whose length in
    seconds is the same at every rate."""
    return FRAME + len(loss_taps(rate)) - 1


@dataclass(frozen=True)
class Reference:
    """Targets [B, T] and what the ear makes of them. It has no gradient, and is computed once for each window."""

    sound: torch.Tensor  # filtered
    magnitudes: torch.Tensor
    mask: torch.Tensor


class Criterion(nn.Module):
    """The loss at one sample rate, in float32."""

    def __init__(self, rate: int, settings: Objective):
        super().__init__()
        self.settings = settings
        self.ear = Ear(rate, torch.float32)
        self.register_buffer("taps", loss_taps(rate).float()[None, None], persistent=False)

    def filtered(self, x_BT: torch.Tensor) -> torch.Tensor:
        """[B, T] -> [B, T + 1 - taps]: where the filter has all it needs."""
        return functional.conv1d(x_BT[:, None], self.taps)[:, 0]

    @torch.no_grad()
    def reference(self, target_BT: torch.Tensor) -> Reference:
        sound = self.filtered(target_BT)
        magnitudes = self.ear.magnitudes(sound)
        return Reference(sound, magnitudes, self.ear.mask(magnitudes))

    def nmr(self, y_BT: torch.Tensor, reference: Reference) -> torch.Tensor:
        """NMR of filtered sound, in dB: [B]."""
        return decibels(self.ear.ratio(self.ear.magnitudes(y_BT), reference.magnitudes, reference.mask))

    def __call__(self, y_BT: torch.Tensor, reference: Reference) -> dict[str, Loss]:
        """The terms of the loss of answers [B, T], as sums over the batch."""
        settings = self.settings
        y = self.filtered(y_BT)
        terms = {
            "esr": Loss(measures.esr(y, reference.sound).sum(), settings.esr),
            "dc": Loss(measures.dc(y, reference.sound).sum(), settings.dc),
        }
        if not settings.nmr:
            return terms | {"nmr": Loss(y.new_zeros(()), 0.0)}
        nmr = self.nmr(y, reference)
        in_db = settings.space == "db"
        total = nmr.clamp(min=settings.floor_db).sum() if in_db else len(y) * 10 ** (nmr.mean() / 10)
        return terms | {"nmr": Loss(total, settings.nmr)}
