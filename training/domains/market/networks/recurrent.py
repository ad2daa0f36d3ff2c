"""LSTM (Hochreiter and Schmidhuber 1997) and GRU (Cho et al. 2014): layers over the window, and a head on the last
step."""

from __future__ import annotations

import torch
from torch import nn

from training.domains.market.networks.settings import Recurrent


class RecurrentNet(nn.Module):
    """window [B, T, F] -> logits [B, C]."""

    def __init__(self, kind: type[nn.LSTM | nn.GRU], features: int, classes: int, model: Recurrent):
        super().__init__()
        between = model.dropout if model.layers > 1 else 0.0  # torch applies it between layers
        self.layers = kind(features, model.width, model.layers, batch_first=True, dropout=between)
        self.dropout = nn.Dropout(model.dropout)
        self.head = nn.Linear(model.width, classes)

    def forward(self, x_BTF: torch.Tensor) -> torch.Tensor:
        y_BTD, _ = self.layers(x_BTF)
        return self.head(self.dropout(y_BTD[:, -1]))
