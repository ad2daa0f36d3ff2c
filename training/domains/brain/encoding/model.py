"""The network. It begins as ridge regression of reduced rank, and learns a residual that begins at zero."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from training.domains.brain.encoding.settings import Model
from training.domains.brain.features.bank import bands_of


class Features(nn.Module):
    """Bands of the stimulus -> standardised features; the constants of features/bank.py as buffers."""

    def __init__(self, constants: Mapping[str, np.ndarray]):
        super().__init__()
        self.bands = bands_of(constants)
        for band in self.bands:
            for name in ("mean", "projection", "centre", "spread"):
                self.register_buffer(f"{name}_{band}", torch.as_tensor(np.array(constants[f"{name}_{band}"])))

    def forward(self, bands: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Bands [..., F of the band] -> [..., F]."""
        parts = []
        for band in self.bands:
            mean, projection, centre, spread = (
                getattr(self, f"{name}_{band}") for name in ("mean", "projection", "centre", "spread")
            )
            parts.append(((bands[band] - mean) @ projection - centre) / spread)
        return torch.cat(parts, -1)

    def inverse(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Features [..., F] -> the bands [..., F of the band] that they stand for; what a band has beside its features
        takes the mean of the training rows."""
        out, at = [], 0
        for band in self.bands:
            mean, projection, centre, spread = (
                getattr(self, f"{name}_{band}") for name in ("mean", "projection", "centre", "spread")
            )
            own = features[..., at : at + projection.shape[1]]
            out.append((own * spread + centre) @ projection.T + mean)
            at += projection.shape[1]
        return tuple(out)


def standardised(batch: Mapping[str, torch.Tensor], drift: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
    """The BOLD of a batch of windows.py without drift, divided by its spread: [B, S, T, V].

    In float32 even under autocast: raw values are hundreds of times their spread, and bfloat16 has three digits.
    """
    with torch.autocast(batch["bold"].device.type, enabled=False):
        own, size = drift[:, batch["run"]].transpose(0, 1), spread[:, batch["run"]].transpose(0, 1)
        return (batch["bold"] - torch.einsum("btc,bscv->bstv", batch["basis"], own)) / size[:, :, None]


class SubjectHead(nn.Module):
    """Bottleneck [..., K] -> a subject's standardised BOLD [..., V].

    A module, since it is what "fsdp" shards: the heads hold nearly all parameters.
    """

    def __init__(self, weight: np.ndarray):
        super().__init__()
        self.weight = nn.Parameter(torch.as_tensor(np.array(weight)))  # [K, V]

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        return latent @ self.weight


class Encoding(nn.Module):
    """Stimulus -> bottleneck (rank K) -> causal kernels -> a head for each of S subjects.

    The linear part is u = x A * h + x B * h', with the response h and its derivative h' as kernels of each channel; the
    residual is added to x A.
    """

    def __init__(self, constants: Mapping[str, np.ndarray], settings: Model):
        super().__init__()
        self.features = Features(constants)
        bottleneck = torch.as_tensor(np.array(constants["bottleneck"]))  # [2, F, K]
        kernels = torch.as_tensor(np.array(constants["kernels"]))  # [2, L]
        self.bottleneck = nn.Parameter(bottleneck.clone())
        # conv1d is a correlation: reversed, its last weight belongs to lag 0
        self.kernels = nn.Parameter(kernels.flip(1)[:, None].repeat(1, bottleneck.shape[2], 1))  # [2, K, L]
        self.heads = nn.ModuleList(SubjectHead(weight) for weight in constants["heads"])
        self.residual = nn.Sequential(
            nn.LayerNorm(bottleneck.shape[1]), nn.Linear(bottleneck.shape[1], settings.width), nn.GELU(),
            nn.Dropout(settings.dropout), nn.Linear(settings.width, bottleneck.shape[2]),
        )  # fmt: skip
        nn.init.zeros_(self.residual[-1].weight)
        nn.init.zeros_(self.residual[-1].bias)
        self.register_buffer("drift", torch.as_tensor(np.array(constants["drift"])))
        self.register_buffer("spread", torch.as_tensor(np.array(constants["spread"])))

    @property
    def history(self) -> int:
        """Volumes before a window that its bottleneck depends on."""
        return self.kernels.shape[2] - 1

    def inner(self, features: torch.Tensor) -> torch.Tensor:
        """Features [..., F] -> bottleneck at the time of the film, before the response: [..., K]."""
        return features @ self.bottleneck[0] + self.residual(features)

    def latent(self, features: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """Features [B, H + T, F] and whether each volume is known [B, H + T] -> bottleneck [B, T, K]."""
        return self.filtered(self.inner(features), features, known)

    def filtered(self, inner: torch.Tensor, features: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """The bottleneck of `inner` [B, H + T, K] and of the derivative part, after the response: [B, T, K]."""
        known = known[..., None]
        u, w = inner * known, (features @ self.bottleneck[1]) * known
        rank = self.bottleneck.shape[2]
        both = torch.cat([u, w], -1).transpose(1, 2)  # [B, 2 K, H + T]
        out = functional.conv1d(both, self.kernels.reshape(2 * rank, 1, -1), groups=2 * rank)
        return (out[:, :rank] + out[:, rank:]).transpose(1, 2)

    def bold(self, latent: torch.Tensor) -> torch.Tensor:
        """Bottleneck [B, T, K] -> standardised BOLD of all subjects [B, S, T, V], also of those who are absent."""
        return torch.stack([head(latent) for head in self.heads], 2).transpose(1, 2)

    def forward(self, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """A batch of windows.py -> predicted and measured BOLD, both standardised: [B, S, T, V]."""
        features = self.features({band: batch[f"band_{band}"] for band in self.features.bands})
        latent = self.latent(features, batch["known"])
        return self.bold(latent), standardised(batch, self.drift, self.spread)


class Encoder(nn.Module):
    """For export: the bands of T volumes from the begin of a run -> bottleneck [T, K]."""

    def __init__(self, model: Encoding):
        super().__init__()
        self.model = model

    def forward(self, *bands: torch.Tensor) -> torch.Tensor:
        features = self.model.features(dict(zip(self.model.features.bands, bands, strict=True)))
        padded = functional.pad(features, (0, 0, self.model.history, 0))[None]
        known = functional.pad(torch.ones_like(features[:, 0]), (self.model.history, 0))[None]
        return self.model.latent(padded, known)[0]


class Head(nn.Module):
    """For export: bottleneck [T, K] -> a subject's BOLD [T, V], standardised, and in the units of its first run."""

    def __init__(self, model: Encoding, subject: int):
        super().__init__()
        self.register_buffer("weight", model.heads[subject].weight.detach().clone())
        self.register_buffer("mean", model.drift[subject, 0, 0].clone())
        self.register_buffer("spread", model.spread[subject, 0].clone())

    def forward(self, latent: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z = latent @ self.weight
        return z, z * self.spread + self.mean
