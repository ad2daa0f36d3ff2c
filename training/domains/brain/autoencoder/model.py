"""The network: the encoding model with a decoder from its bottleneck back to the film."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from training.domains.brain.encoding.model import Encoding, standardised
from training.domains.brain.encoding.settings import Model

MODALITIES = {"video": "pixels", "audio": "sound", "text": "words"}


class Autoencoder(Encoding):
    """Stimulus -> bottleneck u (rank K) -> BOLD, as in Encoding; and u -> the features of pictures, sound and words.

    The decoder begins as the least-squares map from the bottleneck of ridge, and learns a residual that begins at zero.
    """

    def __init__(self, constants: Mapping[str, np.ndarray], settings: Model):
        super().__init__(constants, settings)
        self.decoder = nn.Parameter(torch.as_tensor(np.array(constants["decoder"])).clone())  # [K, F]
        rank, count = self.decoder.shape
        self.decoder_residual = nn.Sequential(
            nn.LayerNorm(rank), nn.Linear(rank, settings.width), nn.GELU(), nn.Dropout(settings.dropout),
            nn.Linear(settings.width, count),
        )  # fmt: skip
        nn.init.zeros_(self.decoder_residual[-1].weight)
        nn.init.zeros_(self.decoder_residual[-1].bias)

    @property
    def modalities(self) -> dict[str, slice]:
        """Modality -> its features, of those that the film has a source for."""
        out, at = {}, 0
        names = {band: modality for modality, band in MODALITIES.items()}
        for band in self.features.bands:
            width = getattr(self.features, f"projection_{band}").shape[1]
            if band in names:
                out[names[band]] = slice(at, at + width)
            at += width
        return out

    def decode(self, u: torch.Tensor) -> torch.Tensor:
        """Bottleneck [..., K] -> standardised features [..., F]."""
        return u @ self.decoder + self.decoder_residual(u)

    def errors(self, given: torch.Tensor, features: torch.Tensor) -> dict[str, torch.Tensor]:
        """Modality -> squared error of each volume relative to the variance of the training rows: 1 for their mean.

        Features are standardised, so each is weighted by its own variance: a modality's figure is then the error of its
        pictures, levels or counts, divided by the variance of them that the features keep.
        """
        error, out = (given.float() - features.float()) ** 2, {}
        for modality, columns in self.modalities.items():
            own = getattr(self.features, f"spread_{MODALITIES[modality]}") ** 2
            out[modality] = (error[..., columns] * (own / own.sum())).sum(-1)
        return out

    def forward(self, batch: Mapping[str, torch.Tensor]) -> tuple[Any, ...]:
        """A batch of encoding/windows.py -> predicted and measured BOLD, both standardised [B, S, T, V]; the bottleneck
        [B, H + T, K]; modality -> error of its reconstruction [B, T]."""
        with torch.autocast(batch["bold"].device.type, enabled=False):
            features = self.features({band: batch[f"band_{band}"] for band in self.features.bands})
        u = self.inner(features)
        predicted = self.bold(self.filtered(u, features, batch["known"]))
        measured = standardised(batch, self.drift, self.spread)
        return predicted, measured, u, self.errors(self.decode(u[:, self.history :]), features[:, self.history :])


class Bottleneck(nn.Module):
    """For export: the bands of T volumes -> bottleneck [T, K] at the time of the film, before the response."""

    def __init__(self, model: Autoencoder):
        super().__init__()
        self.model = model

    def forward(self, *bands: torch.Tensor) -> torch.Tensor:
        return self.model.inner(self.model.features(dict(zip(self.model.features.bands, bands, strict=True))))


class Decoder(nn.Module):
    """For export: bottleneck [T, K] -> what it holds of pictures, sound and words, in their units."""

    def __init__(self, model: Autoencoder):
        super().__init__()
        self.model = model

    def forward(self, u: torch.Tensor) -> tuple[torch.Tensor, ...]:
        given = dict(zip(self.model.features.bands, self.model.features.inverse(self.model.decode(u)), strict=True))
        return tuple(given[MODALITIES[modality]] for modality in self.model.modalities)
