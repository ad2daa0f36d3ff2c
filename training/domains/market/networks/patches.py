"""PatchTST (Nie et al. 2023, "A Time Series is Worth 64 Words"): every feature is a series of patches, encoded without
the others by the same weights. For classification the patches of a feature are averaged, and the head sees all
features."""

from __future__ import annotations

import torch
from torch import nn

from training.domains.market.networks.attention import EncoderLayer
from training.domains.market.networks.settings import Patches


class PatchNet(nn.Module):
    """window [B, T, F] -> logits [B, C]. The patches end at the decision; the first decisions may be in none."""

    def __init__(self, features: int, classes: int, model: Patches):
        super().__init__()
        self.features, self.width = features, model.width
        count = (model.window - model.patch) // model.stride + 1
        first = model.window - model.patch - (count - 1) * model.stride
        index = first + torch.arange(count)[:, None] * model.stride + torch.arange(model.patch)
        self.register_buffer("index", index, persistent=False)  # [S, P]: which decision is where in which patch
        self.embedding = nn.Linear(model.patch, model.width)
        self.position = nn.Parameter(0.02 * torch.randn(count, model.width))
        self.layers = nn.Sequential(*(
            EncoderLayer(model.width, model.heads, model.dropout) for _ in range(model.layers)
        ))  # fmt: skip
        self.norm = nn.LayerNorm(model.width)
        self.head = nn.Linear(features * model.width, classes)

    def forward(self, x_BTF: torch.Tensor) -> torch.Tensor:
        patches = x_BTF.transpose(1, 2)[:, :, self.index]  # [B, F, S, P]
        tokens = (self.embedding(patches) + self.position).reshape(-1, *self.position.shape)  # [B F, S, D]
        mean = self.norm(self.layers(tokens)).mean(1)
        return self.head(mean.reshape(-1, self.features * self.width))
