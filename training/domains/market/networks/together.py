"""The K fold networks and the final one as one module, so that they are trained side by side in one run."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from training.domains.market.decisions import BAR
from training.domains.market.networks.scaling import Scaler
from training.domains.market.networks.windows import complete, views

BATCH = 256  # windows, of a prediction


class Together(nn.Module):
    """raw windows [B, T, F] -> logits [B, K+1, C], the final network last. Each network has its own scaler.

    `one`: makes a network without weights that are shared with another. `median`, `scale`: float32 [K+1, F].
    """

    def __init__(self, one: Callable[[], nn.Module], window: int, median: np.ndarray, scale: np.ndarray):
        super().__init__()
        self.window = window
        self.networks = nn.ModuleList(nn.Sequential(Scaler(*own), one()) for own in zip(median, scale, strict=True))

    def forward(self, x_BTF: torch.Tensor) -> torch.Tensor:
        return torch.stack([network(x_BTF) for network in self.networks], 1)

    @torch.no_grad()
    def predict(self, number: int, features: np.ndarray, run: np.ndarray, decided: np.ndarray) -> np.ndarray:
        """The probabilities float32 [N, C] of one of the networks; -1: the final one.

        The bits of a result depend on the size of the batch and on the place in it (where a vectorised loop ends, for
        example). So every batch has the same size, and a decision's place in it follows from its time alone: it has the
        same probabilities whichever other decisions are predicted with it."""
        network = self.networks[number]
        out = np.full((len(features), network[-1].head.out_features), np.nan, np.float32)
        ends = np.flatnonzero(complete(run, self.window))
        device = next(self.parameters()).device
        place = decided[ends] // BAR % BATCH
        for part in _batches(place):
            windows = np.zeros((BATCH, self.window, features.shape[1]), np.float32)
            windows[place[part]] = views(features, self.window)[ends[part] - self.window + 1]
            logits = network(torch.from_numpy(windows).to(device)).float()
            out[ends[part]] = torch.softmax(logits, -1).cpu().numpy()[place[part]]
        return out


def _batches(place: np.ndarray) -> list[np.ndarray]:
    """Positions in `place` (int [n]), divided so that no place is twice in one part: as few parts as possible."""
    order = np.argsort(place, kind="stable")
    sorted_place = place[order]
    rank = np.arange(len(place)) - np.searchsorted(sorted_place, sorted_place)
    return [order[rank == number] for number in range(int(rank.max(initial=-1)) + 1)]


class Final(nn.Module):
    """The final network alone, for export: raw windows [B, T, F] -> probabilities [B, C]."""

    def __init__(self, together: Together):
        super().__init__()
        self.network = together.networks[-1]

    def forward(self, x_BTF: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.network(x_BTF), -1)
