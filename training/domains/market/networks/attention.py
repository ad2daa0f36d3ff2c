"""Multi-head attention and the encoder layer that the networks share. Written out, so that every shape but the batch
is a constant in the exported graph."""

from __future__ import annotations

import torch
from torch import nn


class Attention(nn.Module):
    """Self-attention over the tokens (Vaswani et al. 2017): [B, S, D] -> [B, S, D]."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.into = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BSD: torch.Tensor) -> torch.Tensor:
        length = x_BSD.shape[1]
        parts = self.into(x_BSD).reshape(-1, length, 3, self.heads, self.size).permute(2, 0, 3, 1, 4)
        query, key, value = parts[0], parts[1], parts[2]  # [B, H, S, D / H]
        share_BHSS = torch.softmax(query @ key.transpose(2, 3) * self.size**-0.5, -1)
        y_BSD = (self.dropout(share_BHSS) @ value).transpose(1, 2).reshape(-1, length, self.heads * self.size)
        return self.out(y_BSD)


class EncoderLayer(nn.Module):
    """Attention and a feed-forward part, each after a normalisation and with a residual: [B, S, D] -> [B, S, D]."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.before_attention, self.before_forward = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.forward_part = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BSD: torch.Tensor) -> torch.Tensor:
        x_BSD = x_BSD + self.dropout(self.attention(self.before_attention(x_BSD)))
        return x_BSD + self.dropout(self.forward_part(self.before_forward(x_BSD)))
