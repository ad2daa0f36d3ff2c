"""iTransformer (Liu et al. 2024, "iTransformer: Inverted Transformers Are Effective for Time Series Forecasting"): a
token is the complete window of one feature, and attention is between features."""

from __future__ import annotations

import torch
from torch import nn

from training.domains.market.networks.attention import EncoderLayer
from training.domains.market.networks.settings import Variates


class VariateNet(nn.Module):
    """window [B, T, F] -> logits [B, C]."""

    def __init__(self, features: int, classes: int, model: Variates):
        super().__init__()
        self.embedding = nn.Linear(model.window, model.width)
        # The original tokens carry no name of their feature; for a classification from their mean they need one.
        self.name = nn.Parameter(0.02 * torch.randn(features, model.width))
        self.layers = nn.Sequential(*(
            EncoderLayer(model.width, model.heads, model.dropout) for _ in range(model.layers)
        ))  # fmt: skip
        self.norm = nn.LayerNorm(model.width)
        self.head = nn.Linear(model.width, classes)

    def forward(self, x_BTF: torch.Tensor) -> torch.Tensor:
        tokens_BFD = self.embedding(x_BTF.transpose(1, 2)) + self.name
        return self.head(self.norm(self.layers(tokens_BFD)).mean(1))
