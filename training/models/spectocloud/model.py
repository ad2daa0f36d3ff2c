"""Sound and emotion -> cloud.

Shape legend: B batch, F mel bands, T frames, D width, S tokens, K sub-frames, P particles of a sub-frame, N = K * P.

hearing.py listens for pitches; K tokens, one a sub-frame, hold what it heard and go through a transformer encoder with
the emotion and (if there is one) the score's statistics. From each of them the decoder names the renderer's five
musical parameters; the renderer's own formulas (music/clouds/cloud.py) of them and of the emotion place its fixed
pattern and give colour, opacity, size and depth; a small network makes every particle glow by where it lies. So the
model has to learn what is heard, and not how a cloud is drawn.

Everything is plain matmul, convolution, LayerNorm and attention without a mask, so that it exports anywhere.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.spectocloud.config import Model as ModelSettings
from training.models.spectocloud.hearing import Hearing
from training.music.clouds.anchors import Z_WEIGHTS
from training.music.clouds.cloud import GLOW_WHITENS, PATTERN, SILENT_SPREAD, SPREAD_X, SUBFRAMES
from training.music.clouds.constants import COOLWARM

N_MELS = 128
FRAMES = 64
EMOTION = 64
MIDI_FEATURES = 32
MOOD = 32  # the emotion's embedding, fed to the decoder directly


class Normalise(nn.Module):
    """Log-mel in nats [B, F, T] -> zero mean per band and unit variance overall, by constants fitted on the corpus."""

    def __init__(self, mean: np.ndarray, std: np.ndarray):
        """`mean` float32 [128] per band, `std` float32 [1]: one scale, because a band that is silent in the corpus
        would otherwise magnify whatever another recording has there."""
        super().__init__()
        self.register_buffer("mean", torch.tensor(np.asarray(mean, np.float32)).view(N_MELS, 1))
        self.register_buffer("std", torch.tensor(np.asarray(std, np.float32)).view(1, 1))

    def forward(self, logmel: Tensor) -> Tensor:
        return (logmel - self.mean) / self.std


class Block(nn.Module):
    """Pre-norm transformer encoder block, [B, S, D] -> [B, S, D]."""

    def __init__(self, width: int, heads: int, mlp_ratio: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.merge = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, mlp_ratio * width), nn.Linear(mlp_ratio * width, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x_BSD: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2)
                   for t in self.qkv(self.norm_attention(x_BSD)).chunk(3, -1))  # fmt: skip
        read = F.scaled_dot_product_attention(q, k, v)
        x_BSD = x_BSD + self.drop(self.merge(read.transpose(1, 2).flatten(2)))
        return x_BSD + self.drop(self.down(F.gelu(self.up(self.norm_mlp(x_BSD)))))


class Parts(NamedTuple):
    """What the model makes of a batch, float32. Hosts see the first three."""

    positions: Tensor  # [B, N, 3]
    colors: Tensor  # [B, N, 4] in [0, 1]
    properties: Tensor  # [B, N, 3] in [0, 1]
    parameters: Tensor  # [B, K, 5] in the order of PARAMETERS, not clipped
    roll: Tensor  # [B, K, PITCHES] logits: does this pitch sound?


class Particles(nn.Module):
    """The decoder: K sub-frame tokens, what was read off the pitches, and the emotion -> the cloud.

    Where a song brings a cloud of its own, which knows nothing of the renderer, `moved` and `widened` take particles to
    where the formulas would not: both start at nothing. Points are placed in float32 under autocast too.
    """

    def __init__(self, width: int, particle_width: int):
        super().__init__()
        self.head = nn.Sequential(nn.LayerNorm(width + MOOD), nn.Linear(width + MOOD, width), nn.GELU())
        self.heard, self.silence, self.charge = nn.Linear(width, 5), nn.Linear(width, 1), nn.Linear(width, 1)
        self.moved, self.widened = nn.Linear(width, 2), nn.Linear(width, 3)
        self.code, self.place = nn.Linear(width, particle_width), nn.Linear(6, particle_width)
        self.hidden, self.glow = nn.Linear(particle_width, particle_width), nn.Linear(particle_width, 1)
        time = (torch.arange(SUBFRAMES, dtype=torch.float32) + 0.5) / SUBFRAMES
        self.register_buffer("time", time.view(1, SUBFRAMES, 1), persistent=False)
        self.register_buffer("pattern", torch.tensor(PATTERN, dtype=torch.float32), persistent=False)
        # Linear between control points: the first, and a change of slope at each. Sums, where a table needs Gather.
        knots = torch.tensor(COOLWARM, dtype=torch.float32)
        steps = len(knots) - 1
        slopes = (knots[1:] - knots[:-1]) * (steps / 2)
        bends = torch.cat([slopes[:1], slopes[1:] - slopes[:-1]])
        bends_at = torch.arange(steps) * (2 / steps) - 1
        for name, table in (("coldest", knots[0]), ("bends", bends), ("bends_at", bends_at)):
            self.register_buffer(name, table, persistent=False)
        # Start as ordinary music that sounds.
        for layer in (self.heard, self.silence, self.charge):
            nn.init.normal_(layer.weight, std=0.01)
        for layer in (self.moved, self.widened):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        with torch.no_grad():
            self.heard.bias.copy_(torch.tensor([0.0, 0.0, 0.6, 0.4, 0.0]))  # velocity and density; the others are read
        nn.init.constant_(self.silence.bias, -3.0)
        nn.init.constant_(self.charge.bias, 0.3)

    def forward(self, line_BKD: Tensor, read_BK3: Tensor, mood_BM: Tensor, emotion_BE: Tensor) -> tuple[Tensor, ...]:
        batch = line_BKD.shape[0]
        line_BKD = self.head(torch.cat([line_BKD, mood_BM[:, None].expand(-1, SUBFRAMES, -1)], -1))
        valence, excited = emotion_BE[:, :1].clamp(-1, 1), emotion_BE[:, None, 1:2].clamp(0, 1)

        parameters_BK5 = self.heard(line_BKD).float()
        read_BK5 = torch.cat([read_BK3[..., :2], torch.zeros_like(read_BK3[..., :2]), read_BK3[..., 2:]], -1)
        parameters_BK5 = parameters_BK5 + read_BK5
        pitch, reach, velocity, _, _ = parameters_BK5.split(1, -1)
        sounds = 1 - self.silence(line_BKD).float().sigmoid()
        z = sum(weight * part for weight, part in zip(Z_WEIGHTS.tolist(), parameters_BK5.split(1, -1), strict=True))
        sz = (0.3 * (1 + 0.5 * excited)) * (0.16 + 0.22 * self.time)
        spread_BK3 = torch.cat([torch.full_like(z, SPREAD_X), sz * (0.35 + 2.2 * reach), sz.expand_as(z)], -1)
        spread_BK3 = SILENT_SPREAD + (spread_BK3 - SILENT_SPREAD) * sounds
        spread_BK3 = spread_BK3 * self.widened(line_BKD).float().clamp(-4.0, 2.0).exp()
        place_BK2 = torch.cat([pitch, z * sounds], -1) + self.moved(line_BKD).float()
        centre_BK3 = torch.cat([self.time.expand(batch, -1, -1), place_BK2], -1)
        place_BKP3 = centre_BK3[:, :, None] + spread_BK3[:, :, None] * self.pattern

        pattern_BKP3 = self.pattern.expand(batch, SUBFRAMES, -1, -1)
        hidden = F.gelu(self.place(torch.cat([place_BKP3, pattern_BKP3], -1)) + self.code(line_BKD)[:, :, None])
        glow_BKP1 = self.glow(F.gelu(self.hidden(hidden))).float().sigmoid()

        above_B3 = ((valence - self.bends_at).clamp(min=0.0)[..., None] * self.bends).sum(1)
        base_B113 = (self.coldest + above_B3)[:, None, None].clamp(0.0, 1.0)
        rgb_BKP3 = base_B113 + (1 - base_B113) * (GLOW_WHITENS * glow_BKP1)
        alpha_BK1 = (0.25 + 0.55 * self.charge(line_BKD).float() + 0.2 * excited) * sounds
        size_BK1 = 0.15 + 0.85 * velocity * sounds
        alpha, size = (part.clamp(0.0, 1.0)[:, :, None].expand_as(glow_BKP1) for part in (alpha_BK1, size_BK1))
        depth_BKP1 = 0.3 + 0.7 * place_BKP3[..., 2:].clamp(0.0, 1.0).pow(1.5)
        colors = torch.cat([rgb_BKP3, alpha], -1)
        properties = torch.cat([size, glow_BKP1, depth_BKP1], -1)
        return place_BKP3.flatten(1, 2), colors.flatten(1, 2), properties.flatten(1, 2), parameters_BK5


class Core(nn.Module):
    """What is exported: normalised spectrogram [B, 128, 64], emotion [B, 64] and midi_features [B, 32] (zeros: no
    score) -> positions [B, 1200, 3], colors [B, 1200, 4] and properties [B, 1200, 3], channels in [0, 1]."""

    def __init__(self, settings: ModelSettings):
        super().__init__()
        width = settings.width
        self.hearing = Hearing(width, settings.pitch_channels)
        self.line = nn.Parameter(torch.randn(1, SUBFRAMES, width) * 0.02)
        self.mood = nn.Sequential(nn.Linear(EMOTION, MOOD), nn.GELU(), nn.Linear(MOOD, MOOD))
        self.mood_token = nn.Linear(MOOD, width)
        self.score_token = nn.Linear(MIDI_FEATURES, width)
        self.blocks = nn.ModuleList(
            Block(width, settings.heads, settings.mlp_ratio, settings.dropout) for _ in range(settings.layers)
        )
        self.particles = Particles(width, settings.particle_width)

    def forward(self, spectrogram: Tensor, emotion: Tensor, midi_features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.parts(spectrogram, emotion, midi_features)[:3]

    def parts(self, spectrogram: Tensor, emotion: Tensor, midi_features: Tensor) -> Parts:
        mood = self.mood(emotion)
        line_BKD, read_BK3, roll_BKP = self.hearing(spectrogram)
        context = [self.mood_token(mood)[:, None], self.score_token(midi_features)[:, None]]
        x_BSD = torch.cat([line_BKD + self.line, *context], 1)
        for block in self.blocks:
            x_BSD = block(x_BSD)
        return Parts(*self.particles(x_BSD[:, :SUBFRAMES], read_BK3, mood, emotion), roll_BKP)


class Spectocloud(nn.Module):
    """What is trained: `Core` behind the normaliser, so that training feeds log-mels as they lie in the store."""

    def __init__(self, settings: ModelSettings, mean: np.ndarray, std: np.ndarray):
        super().__init__()
        self.normalise = Normalise(mean, std)
        self.core = Core(settings)

    def forward(self, logmel: Tensor, emotion: Tensor, midi_features: Tensor) -> Parts:
        """As `Core`, from the log-mel in nats [B, 128, 64]; and what it heard, which is supervised too."""
        return self.core.parts(self.normalise(logmel), emotion, midi_features)
