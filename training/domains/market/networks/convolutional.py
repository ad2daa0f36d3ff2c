"""A temporal convolutional network: residual blocks of causal, dilated convolutions (Bai, Kolter and Koltun 2018,
"An Empirical Evaluation of Generic Convolutional and Recurrent Networks for Sequence Modeling")."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from training.domains.market.networks.settings import Convolutional


class Block(nn.Module):
    """Two causal convolutions and a residual: [B, I, T] -> [B, O, T]."""

    def __init__(self, taken: int, given: int, kernel: int, dilation: int, dropout: float):
        super().__init__()
        self.before = (kernel - 1) * dilation
        self.first = nn.Conv1d(taken, given, kernel, dilation=dilation)
        self.second = nn.Conv1d(given, given, kernel, dilation=dilation)
        self.residual = nn.Conv1d(taken, given, 1) if taken != given else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BIT: torch.Tensor) -> torch.Tensor:
        y_BOT = x_BIT
        for convolution in (self.first, self.second):
            y_BOT = self.dropout(torch.relu(convolution(functional.pad(y_BOT, (self.before, 0)))))
        return torch.relu(y_BOT + self.residual(x_BIT))


class ConvolutionalNet(nn.Module):
    """window [B, T, F] -> logits [B, C]."""

    def __init__(self, features: int, classes: int, model: Convolutional):
        super().__init__()
        sizes = [features, *[model.width] * model.layers]
        self.blocks = nn.Sequential(*(
            Block(taken, given, model.kernel, 2**number, model.dropout)
            for number, (taken, given) in enumerate(pairwise(sizes))
        ))  # fmt: skip
        self.head = nn.Linear(model.width, classes)

    def forward(self, x_BTF: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(x_BTF.transpose(1, 2))[:, :, -1])
