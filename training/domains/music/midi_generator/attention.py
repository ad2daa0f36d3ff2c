"""Attention: of tokens to earlier tokens of the same song, and to the song's emotion.

Shapes: B windows, S tokens, T new tokens, P past tokens, H heads, hd width of a head, D songs in a window, W width of
the residual stream. Packed songs are separated in one of two ways with the same results: `Masks` (on any device), or
`Segments` on a GPU with the flash kernel (Dao 2023, arXiv:2307.08691), which needs no mask of S x S and computes
nothing across songs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EMOTION_TOKENS = 8  # with a single token, the attention weights would be constant
#: Added to the scores of masked positions. Finite, so that half precision can represent it and no row is NaN.
HIDDEN = -30000.0


# -- packed songs --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Masks:
    """Added to the attention scores. None: causal for `tokens`, no mask for `emotion`."""

    tokens: Tensor | None = None  # [T, P + T] or [B, 1, S, S]
    emotion: Tensor | None = None  # [B, 1, S, 8 D]


@dataclass(frozen=True)
class Segments:
    """The songs of all windows, concatenated: where each begins, i32 [B D + 1]. A missing song has length 0."""

    tokens: Tensor
    emotion: Tensor  # multiples of 8
    longest: int  # S


def masks(documents: Tensor, count: int, device: torch.device) -> Masks:
    """documents i64 [B, S]: which of the window's `count` songs a token belongs to. It attends to that song's past."""
    mixed = torch.is_autocast_enabled(device.type)
    dtype = torch.get_autocast_dtype(device.type) if mixed else torch.float32
    position = torch.arange(documents.shape[1], device=device)
    seen = (documents[:, :, None] == documents[:, None, :]) & (position[:, None] >= position)
    owner = torch.arange(count, device=device).repeat_interleave(EMOTION_TOKENS)
    own = documents[:, :, None] == owner
    zero, hidden = torch.zeros((), dtype=dtype, device=device), torch.full((), HIDDEN, dtype=dtype, device=device)
    return Masks(torch.where(seen, zero, hidden)[:, None], torch.where(own, zero, hidden)[:, None])


def segments(documents: Tensor, count: int) -> Segments:
    """As `masks`, for documents that ascend within a window. No value is copied from the device, no shape depends on
    one: nothing synchronises with the host."""
    windows, length = documents.shape
    song = torch.arange(count, device=documents.device)
    lengths = (documents[:, :, None] == song).sum(1).flatten()
    begins = F.pad(lengths.cumsum(0), (1, 0)).int()
    emotions = torch.arange(windows * count + 1, device=documents.device, dtype=torch.int32) * EMOTION_TOKENS
    return Segments(begins, emotions, length)


def has_flash(device: torch.device, head_width: int) -> bool:
    """Whether the flash kernel can be used here: half precision (autocast) on an NVIDIA GPU since Ampere."""
    return (
        device.type == "cuda"
        and torch.is_autocast_enabled("cuda")
        and head_width % 8 == 0
        and head_width <= 256
        and flash_gpu(device.index or 0)
    )


def flash_gpu(index: int) -> bool:
    return (
        torch.version.hip is None
        and torch.backends.cuda.is_flash_attention_available()
        and torch.cuda.get_device_capability(index) >= (8, 0)
    )


# This is what torch.compiler.assume_constant_result does, but that imports the compiler: a second at every start.
flash_gpu._dynamo_marked_constant = True  # type: ignore[attr-defined]


# -- attention -----------------------------------------------------------------------------------------------------


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (i, i + hd/2) of x [B, H, T, hd] by its position's angle; cos, sin [T, hd/2]."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1).to(x.dtype)


def _heads(x: Tensor, heads: int) -> Tensor:
    """[B, T, W] -> [B, H, T, hd]"""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def flash(
    q: Tensor, k: Tensor, v: Tensor, begins: tuple[Tensor, Tensor], longest: tuple[int, int], *, causal: bool
) -> Tensor:
    """Attention within segments: q [B, H, T, hd], k and v [B, H, K, hd] -> [B T, H, hd]. `begins`: where the segments
    of queries and of keys begin in the concatenated windows; `longest`: upper bounds of their lengths."""
    from torch.nn.attention.varlen import varlen_attn  # takes seconds to import

    q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in (q, k, v))
    return varlen_attn(q, k, v, *begins, *longest, window_size=(-1, 0) if causal else (-1, -1))


class SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, packed: Masks | Segments, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x [B, T, W] -> (added to the residual stream [B, T, W], rotated keys and values [B, H, P + T, hd])."""
        width = x.shape[-1]
        turned, v = self.qkv(x).split((2 * width, width), dim=-1)
        # Queries and keys are rotated as one tensor: half as many operators.
        q, k = rotate(_heads(turned, 2 * self.heads), cos, sin).chunk(2, dim=1)
        v = _heads(v, self.heads)
        if past is not None:
            k, v = torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)
        if isinstance(packed, Segments):
            mixed = flash(q, k, v, (packed.tokens, packed.tokens), (packed.longest, packed.longest), causal=True)
            return self.out(mixed.reshape(x.shape)), k, v
        mask = packed.tokens
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        return self.out(mixed.transpose(1, 2).flatten(2)), k, v


class CrossAttention(nn.Module):
    """Attention of tokens to the emotion of their song."""

    def __init__(self, width: int, heads: int, context_width: int):
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width, bias=False)
        self.kv = nn.Linear(context_width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def _project(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        k, v = (_heads(part, self.heads) for part in self.kv(context).chunk(2, dim=-1))
        return _heads(self.q(x), self.heads), k, v

    def forward(self, x: Tensor, context: Tensor, packed: Masks | Segments) -> Tensor:
        """x [B, T, W], context [B, 8 D, C] -> added to the residual stream [B, T, W]."""
        q, k, v = self._project(x, context)
        if isinstance(packed, Segments):
            mixed = flash(q, k, v, (packed.tokens, packed.emotion), (packed.longest, EMOTION_TOKENS), causal=False)
            return self.out(mixed.reshape(x.shape))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=packed.emotion)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def weights(self, x: Tensor, context: Tensor) -> Tensor:
        """The attention weights of each token over the emotion tokens: [B, H, T, 8 D], rows sum to 1."""
        q, k, _ = self._project(x, context)
        return torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1)
