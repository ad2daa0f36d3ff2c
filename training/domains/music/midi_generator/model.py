"""A decoder-only transformer that generates music token by token, with cross-attention to the emotion.

Shapes: B songs or windows, S tokens, T new tokens, P past tokens, H heads, D documents (songs) in a window,
W width of the residual stream, V vocabulary. RMSNorm: Zhang and Sennrich 2019 (arXiv:1910.07467); rotary positions:
Su et al. 2021 (arXiv:2104.09864); SwiGLU: Shazeer 2020 (arXiv:2002.05202).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.domains.music.midi_generator.attention import (
    EMOTION_TOKENS,
    HIDDEN,
    CrossAttention,
    Masks,
    Segments,
    SelfAttention,
    has_flash,
    masks,
    segments,
)

if TYPE_CHECKING:
    from training.domains.music.midi_generator.config import Model

VOCABULARY = 388
PITCHES, PITCH_CLASSES = 128, 12
#: Angular frequencies of the slowest and the fastest sines of an emotion (standard deviations), in radians per unit.
SLOWEST, FASTEST = 2.0, 10.0
EMOTION = 64  # numbers that describe an emotion: valence, arousal, intensity and zeros, or an embedding


class RMSNorm(nn.Module):
    """Written out because the converters do not support the fused operator."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


class EmotionTokens(nn.Module):
    """emotion f32 [..., 64] -> context [..., 8, emotion_width].

    64 zeros mean "no emotion" and give a learnt context, which a share of the training samples gets
    (augment.emotion_dropout). So one graph can run with and without the emotion, as classifier-free guidance needs.
    """

    def __init__(self, width: int):
        super().__init__()
        self.waves = nn.Linear(EMOTION, 2 * width)
        self.outward = nn.Linear(2 * width, EMOTION_TOKENS * width, bias=False)
        self.base = nn.Parameter(0.5 * torch.randn(EMOTION_TOKENS, width))
        self.untold = nn.Parameter(torch.randn(EMOTION_TOKENS, width))
        self.norm = RMSNorm(width)
        # Usually 3 of the 64 numbers are used, and emotions as different as anger and fear are only 0.24 apart. Random
        # Fourier features (Tancik et al. 2020, arXiv:2006.10739) separate these two from the first step on (cosine of
        # their tokens 0.62; 0.99 with GELU units), and still map an emotion with a little noise to nearly the same
        # tokens (0.92).
        rates = torch.logspace(math.log10(SLOWEST), math.log10(FASTEST), 2 * width)
        with torch.no_grad():
            self.waves.weight.normal_().mul_(rates[:, None])
            self.waves.bias.uniform_(-math.pi, math.pi)

    def forward(self, emotion: Tensor) -> Tensor:
        given = (emotion.abs().sum(-1) > 0)[..., None, None]
        sines = 2**0.5 * torch.sin(self.waves(emotion))
        tokens = self.outward(sines).unflatten(-1, self.base.shape) + self.base
        return self.norm(torch.where(given, tokens, self.untold))


def by_class(rows: Tensor) -> Tensor:
    """A row per pitch class [12, W] -> the row of every id's class, 0 for ids that are not notes: [388, W]."""
    octaves = -(-PITCHES // PITCH_CLASSES)
    return F.pad(rows.repeat(octaves, 1)[:PITCHES], (0, 0, 0, VOCABULARY - PITCHES))


class FeedForward(nn.Module):
    def __init__(self, width: int, kind: str):
        super().__init__()
        self.gated = kind == "swiglu"
        # Two thirds of 4 W, rounded up to 64: with the gate, as many parameters as 4 W without one.
        hidden = -(-8 * width // 3 // 64) * 64 if self.gated else 4 * width
        self.inward = nn.Linear(width, 2 * hidden if self.gated else hidden, bias=False)
        self.out = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inward(x)
        if self.gated:
            gate, x = x.chunk(2, dim=-1)
            return self.out(F.silu(gate) * x)
        return self.out(F.gelu(x))


class Block(nn.Module):
    def __init__(self, settings: Model, index: int):
        super().__init__()
        width = settings.width
        self.dropout = settings.dropout
        self.attention_norm, self.attention = RMSNorm(width), SelfAttention(width, settings.heads)
        self.cross = None
        if index % settings.emotion_every == 0:
            self.cross_norm = RMSNorm(width)
            self.cross = CrossAttention(width, settings.heads, settings.emotion_width)
        self.feedforward_norm, self.feedforward = RMSNorm(width), FeedForward(width, settings.feedforward)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x

    def forward(
        self,
        x: Tensor,
        context: Tensor,
        cos: Tensor,
        sin: Tensor,
        packed: Masks | Segments,
        past: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        mixed, keys, values = self.attention(self.attention_norm(x), cos, sin, packed, past)
        x = x + self._drop(mixed)
        if self.cross is not None:
            x = x + self._drop(self.cross(self.cross_norm(x), context, packed))
        return x + self._drop(self.feedforward(self.feedforward_norm(x))), keys, values


class MidiGenerator(nn.Module):
    """Music token ids and an emotion -> logits of the next id, at every position."""

    varying = {"emotion": (1,)}  # noqa: RUF012  argument of forward -> its axes that vary between batches: D

    def __init__(self, settings: Model, styles: np.ndarray | None = None):
        """`styles`: the styles of the training music of each emotion (steering.styles), stored with the weights."""
        super().__init__()
        self.settings = settings
        width = settings.width
        # Not in the state dict: a checkpoint stores constants separately and passes them to `build`.
        self.register_buffer("styles", torch.zeros(3, 6, 6) if styles is None else torch.tensor(styles), False)
        self.embedding = nn.Embedding(VOCABULARY, width)
        # Scales and chords consist of pitch classes, so all octaves of a class share an embedding.
        self.classes: nn.Embedding | None = nn.Embedding(PITCH_CLASSES, width)
        self.head_classes = None if settings.tied_head else nn.Embedding(PITCH_CLASSES, width)
        self.emotion = EmotionTokens(settings.emotion_width)
        self.blocks = nn.ModuleList(Block(settings, i) for i in range(settings.layers))
        self.norm = RMSNorm(width)
        self.head = None if settings.tied_head else nn.Linear(width, VOCABULARY, bias=False)
        head_width = width // settings.heads
        rate = 10000.0 ** (-torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)
        angles = torch.arange(settings.context, dtype=torch.float64)[:, None] * rate
        # A float32 table instead of arithmetic in the graph, where half precision would round position 1023.
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        """Unit variance through every matrix; branches scaled down so that their sum stays near one at any depth."""
        branches = sum(2 + (block.cross is not None) for block in self.blocks)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear) and not name.startswith("emotion.waves"):
                scale = branches**-0.5 if name.endswith(".out") else 1.0
                nn.init.normal_(module.weight, std=scale * module.in_features**-0.5)
        for table in (self.embedding, self.classes, self.head_classes):
            if table is not None:
                nn.init.normal_(table.weight, std=self.settings.width**-0.5)

    def _rows(self) -> Tensor:
        """The embedding of every id [388, W]: its own, and its pitch class's."""
        own = self.embedding.weight
        return own if self.classes is None else own + by_class(self.classes.weight)

    def _head_rows(self) -> Tensor:
        if self.head is None:
            return self._rows()
        own = self.head.weight
        return own if self.head_classes is None else own + by_class(self.head_classes.weight)

    def _embed(self, input_ids: Tensor) -> Tensor:
        return F.embedding(input_ids, self._rows()) * self.settings.width**0.5

    def _logits(self, x: Tensor) -> Tensor:
        return F.linear(self.norm(x), self._head_rows())

    def folded(self) -> MidiGenerator:
        """A copy with the same outputs, for inference: the embeddings of pitch classes are added to the rows of the
        ids. An exported matrix must be a constant to be quantised to 8 bits."""
        out = copy.deepcopy(self)
        with torch.no_grad():
            out.embedding.weight.copy_(self._rows())
            if out.head is not None:
                out.head.weight.copy_(self._head_rows())
        out.classes = out.head_classes = None
        return out

    def forward(self, input_ids: Tensor, emotion: Tensor, documents: Tensor | None = None) -> Tensor:
        """input_ids i64 [B, S], emotion f32 [B, 64] -> logits [B, S, 388]; S <= context.

        For packed songs: documents i64 [B, S] has the index, among the window's D songs, of each token's song, and
        emotion is [B, D, 64]. There is no attention across songs.
        """
        length = input_ids.shape[1]
        x = self._embed(input_ids)
        context = self.emotion(emotion)
        packed: Masks | Segments = Masks()
        if documents is not None:
            songs = emotion.shape[1]
            flash = has_flash(x.device, self.settings.width // self.settings.heads)
            packed = segments(documents, songs) if flash else masks(documents, songs, x.device)
            context = context.flatten(1, 2)
        cos, sin = self.cos[:length], self.sin[:length]
        for block in self.blocks:
            x, _, _ = block(x, context, cos, sin, packed)
        return self._logits(x)

    def step(self, input_ids: Tensor, emotion: Tensor, past: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """New ids with a key-value cache: i64 [B, T], f32 [B, 64], keys and values of each layer [B, H, P, hd].

        `past` is flat: keys of layer 0, values of layer 0, keys of layer 1, ... Returns logits [B, T, 388] and the past
        for the next call, of length P + T. P may be 0; P + T <= context. The logits equal those of `forward` on the
        complete sequence.
        """
        new, before = input_ids.shape[1], past[0].shape[2]
        position = torch.arange(new, device=input_ids.device) + before
        # Gathered instead of sliced: the exporter then needs no constraint on P + T.
        cos, sin = self.cos[position], self.sin[position]
        seen = position[:, None] >= torch.arange(before + new, device=input_ids.device)
        packed = Masks((1.0 - seen.to(self.cos.dtype)) * HIDDEN)
        context = self.emotion(emotion)
        x = self._embed(input_ids)
        present: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            cached = (past[2 * index], past[2 * index + 1])
            x, keys, values = block(x, context, cos, sin, packed, cached)
            present += [keys, values]
        return self._logits(x), present

    def empty_past(self, batch: int) -> list[Tensor]:
        """The past before the first token: 2 * layers tensors [B, H, 0, hd]."""
        heads, width = self.settings.heads, self.settings.width
        shape = (batch, heads, 0, width // heads)
        return [self.cos.new_zeros(shape) for _ in range(2 * self.settings.layers)]


class FullGraph(nn.Module):
    """`midi_generator`: (input_ids i64 [B, S], emotion f32 [B, 64]) -> logits f32 [B, S, 388]."""

    def __init__(self, model: MidiGenerator):
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, emotion: Tensor) -> Tensor:
        model = self.model
        position = torch.arange(input_ids.shape[1], device=input_ids.device)
        cos, sin = model.cos[position], model.sin[position]
        # A float mask: with a dynamic length, the converters support neither boolean masks nor `is_causal`.
        packed = Masks((1.0 - (position[:, None] >= position).to(cos.dtype)) * HIDDEN)
        context = model.emotion(emotion)
        x = model._embed(input_ids)
        for block in model.blocks:
            x, _, _ = block(x, context, cos, sin, packed)
        return model._logits(x)


class StepGraph(nn.Module):
    """`midi_generator_step`: (input_ids [B, T], emotion [B, 64], *past) -> (logits [B, T, 388], *present)."""

    def __init__(self, model: MidiGenerator):
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, emotion: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        logits, present = self.model.step(input_ids, emotion, past)
        return (logits, *present)
