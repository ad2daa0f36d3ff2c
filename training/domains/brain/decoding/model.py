"""The network. It begins as ridge regression of reduced rank, and learns a residual that begins at zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from training.domains.brain.decoding.settings import Model
from training.domains.brain.encoding.model import Features, standardised


class DelayedMap(nn.Module):
    """Standardised BOLD of a subject [..., T, V] -> shared space [..., T - last delay, K].

    A module, since it is what "fsdp" shards: the maps hold nearly all parameters.
    """

    def __init__(self, weights: np.ndarray, delays: Sequence[int]):
        super().__init__()
        self.delays = tuple(delays)
        # [D V, K] and not [D, V, K]: ranks divide the first dimension, and there may be fewer delays than ranks
        self.weight = nn.Parameter(torch.as_tensor(np.array(weights)).flatten(0, 1))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        count = z.shape[-2] - max(self.delays)
        parts = self.weight.unflatten(0, (len(self.delays), -1))
        return sum(z[..., delay : delay + count, :] @ part for delay, part in zip(self.delays, parts, strict=True))


class Decoding(nn.Module):
    """BOLD of S subjects -> a map of each to a shared space of width K -> F features of the stimulus.

    Shared space at t: sum over delays d of z(t + d) M_d, with maps M_d [V, K] for each subject. Features: a linear
    readout, and the residual.
    """

    def __init__(self, constants: Mapping[str, np.ndarray], settings: Model):
        super().__init__()
        self.features = Features(constants)
        self.delays = tuple(int(delay) for delay in np.asarray(constants["delays"]))
        self.maps = nn.ModuleList(DelayedMap(weights, self.delays) for weights in constants["maps"])
        self.readout = nn.Parameter(torch.as_tensor(np.array(constants["readout"])).clone())  # [K, F]
        rank, count = self.readout.shape
        self.residual = nn.Sequential(
            nn.LayerNorm(rank), nn.Linear(rank, settings.width), nn.GELU(), nn.Dropout(settings.dropout),
            nn.Linear(settings.width, count),
        )  # fmt: skip
        nn.init.zeros_(self.residual[-1].weight)
        nn.init.zeros_(self.residual[-1].bias)
        self.register_buffer("drift", torch.as_tensor(np.array(constants["drift"])))
        self.register_buffer("spread", torch.as_tensor(np.array(constants["spread"])))

    @property
    def ahead(self) -> int:
        """Volumes after a moment that its decoding looks at."""
        return max(self.delays)

    def read(self, shared: torch.Tensor) -> torch.Tensor:
        """Shared space [..., K] -> standardised features [..., F]."""
        return shared @ self.readout + self.residual(shared)

    def forward(self, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """A batch of windows.py -> decoded and true features, both standardised: [B, S, T - ahead, F]."""
        bands = {band: batch[f"band_{band}"] for band in self.features.bands}
        with torch.autocast(batch["bold"].device.type, enabled=False):
            true = self.features(bands)[:, : batch["bold"].shape[2] - self.ahead]
        z = standardised(batch, self.drift, self.spread)
        shared = torch.stack([of(z[:, number]) for number, of in enumerate(self.maps)], 1)
        decoded = self.read(shared)
        return decoded, true[:, None].expand_as(decoded)


class SubjectMap(nn.Module):
    """For export: standardised BOLD [T, V] of a subject -> shared space [T, K]; after the end, voxels count 0."""

    def __init__(self, model: Decoding, subject: int):
        super().__init__()
        self.model, self.subject = model, subject

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.model.maps[self.subject](functional.pad(z, (0, 0, 0, self.model.ahead)))


class Readout(nn.Module):
    """For export: shared space [T, K] -> standardised features [T, F], and what they stand for, a band each."""

    def __init__(self, model: Decoding):
        super().__init__()
        self.model = model

    def forward(self, shared: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = self.model.read(shared)
        return features, *self.model.features.inverse(features)
