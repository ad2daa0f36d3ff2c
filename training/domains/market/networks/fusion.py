"""A temporal fusion transformer (Lim et al. 2021, "Temporal Fusion Transformers for Interpretable Multi-horizon Time
Series Forecasting") for classification: variable selection, an LSTM, attention, each with a gate and a residual.

Different from the original: there are no static or known future inputs; features are embedded linearly, without a
network for each; attention has the usual heads.
"""

from __future__ import annotations

import torch
from torch import nn

from training.domains.market.networks.attention import Attention
from training.domains.market.networks.settings import Fusion


class Gate(nn.Module):
    """Gated linear unit, residual and normalisation: (x, residual) [..., D] -> [..., D]."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.dropout, self.gate, self.norm = nn.Dropout(dropout), nn.Linear(width, 2 * width), nn.LayerNorm(width)

    def forward(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        value, gate = self.gate(self.dropout(x)).chunk(2, -1)
        return self.norm(residual + value * torch.sigmoid(gate))


class GatedResidual(nn.Module):
    """The gated residual network of the paper's equations 2 to 5: [..., I] -> [..., D]."""

    def __init__(self, taken: int, width: int, dropout: float):
        super().__init__()
        self.first, self.second = nn.Linear(taken, width), nn.Linear(width, width)
        self.residual = nn.Linear(taken, width) if taken != width else nn.Identity()
        self.gate = Gate(width, dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gate(self.second(nn.functional.elu(self.first(x))), self.residual(x))


class FusionNet(nn.Module):
    """window [B, T, F] -> logits [B, C]."""

    def __init__(self, features: int, classes: int, model: Fusion):
        super().__init__()
        width, dropout = model.width, model.dropout
        self.selection = nn.Sequential(GatedResidual(features, width, dropout), nn.Linear(width, features))
        self.embedding = nn.Linear(features, width)
        self.names = nn.Linear(features, width, bias=False)
        self.memory = nn.LSTM(width, width, batch_first=True)
        self.after_memory = Gate(width, dropout)
        self.enrichment = GatedResidual(width, width, dropout)
        self.attention = Attention(width, model.heads, dropout)
        self.after_attention = Gate(width, dropout)
        self.forward_part = GatedResidual(width, width, dropout)
        self.before_head = Gate(width, dropout)
        self.head = nn.Linear(width, classes)

    def forward(self, x_BTF: torch.Tensor) -> torch.Tensor:
        share_BTF = torch.softmax(self.selection(x_BTF), -1)
        # sum over features of share * (embedding of its value + embedding of its name)
        chosen_BTD = self.embedding(share_BTF * x_BTF) + self.names(share_BTF)
        memory_BTD = self.after_memory(self.memory(chosen_BTD)[0], chosen_BTD)
        rich_BTD = self.enrichment(memory_BTD)
        seen_BD = self.after_attention(self.attention(rich_BTD)[:, -1], rich_BTD[:, -1])
        return self.head(self.before_head(self.forward_part(seen_BD), memory_BTD[:, -1]))
