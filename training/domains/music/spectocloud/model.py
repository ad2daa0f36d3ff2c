"""Sound and emotion -> cloud.

Shape legend: B batch, F mel bands, T frames, D width, S tokens, K sub-frames, P particles of a sub-frame, N = K * P.

The spectrogram is cut into patches, one column of them per sub-frame. K query tokens, one per sub-frame, attend to them
in a transformer encoder, and to the emotion and (if there is one) the score's statistics. From each query a head
predicts the centre, spread, colour, alpha and size of its sub-frame's particles; the renderer's fixed pattern is placed
there, and a small network predicts the glow of every particle from its position.

The model uses only matmul, convolution, LayerNorm and attention without a mask, so that every converter supports it.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.domains.music.clouds.cloud import GLOW_WHITENS, PATTERN, SPREAD_X, SUBFRAMES
from training.domains.music.spectocloud.config import Model as ModelSettings

N_MELS = 128
FRAMES = 64
EMOTION = 64
MIDI_FEATURES = 32
BANDS = 8  # patches along frequency
MOOD = 32  # width of the emotion's embedding, which the decoder gets directly
NATS = math.log(10) / 10  # nats of power in a decibel
RANGE = 50 * NATS  # dynamic range below a window's loudest band; fainter sound is clipped to it
QUIET = -4.0  # nats: some 40 dB below the loudest bands of a mastered recording


def levelled(logmel: Tensor) -> Tensor:
    """Log-mel in nats [..., F, T] -> the same relative to the window's loudest band, in [-RANGE, 0]. This removes the
    level of a recording, which depends on its mastering instead of the playing. A window that is nowhere louder than
    QUIET stays quiet."""
    loudest = logmel.amax((-2, -1), keepdim=True).clamp(min=QUIET)
    return (logmel - loudest).clamp(min=-RANGE)


class Normalise(nn.Module):
    """Log-mel in nats [B, F, T] -> levelled, with zero mean per band and unit variance overall, with constants fitted
    on the corpus."""

    def __init__(self, mean: np.ndarray, std: np.ndarray):
        """`mean` float32 [128] per band, `std` float32 [1]: a single scale, because a scale per band would amplify
        other recordings in bands that are silent in the corpus."""
        super().__init__()
        self.register_buffer("mean", torch.tensor(np.asarray(mean, np.float32)).view(N_MELS, 1))
        self.register_buffer("std", torch.tensor(np.asarray(std, np.float32)).view(1, 1))
        # Stored with the weights, so that loading the weights of a version without levelling fails.
        self.register_buffer("range", torch.tensor([[RANGE]], dtype=torch.float32))

    def forward(self, logmel: Tensor) -> Tensor:
        return (levelled(logmel) - self.mean) / self.std


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


class Patches(nn.Module):
    """[B, F, T] -> [B, BANDS * K, D]: overlapping convolutions down to one token per band and sub-frame.

    Frame i is centred on the window's sample i * HOP, so sub-frame k is between the frames 8k and 8k + 8. A layer of
    stride 2 is centred on the first of the two positions that it merges; the last one is padded on the right instead of
    the left, which centres a column on frame 8k + 4, the middle of its sub-frame.
    """

    def __init__(self, width: int):
        super().__init__()
        a, b, c = max(16, width // 8), max(16, width // 4), max(32, width // 2)
        self.layers = nn.Sequential(
            nn.Conv2d(1, a, (5, 3), stride=(2, 1), padding=(2, 1)), nn.GELU(),
            nn.Conv2d(a, b, 3, stride=2, padding=1), nn.GELU(),
            nn.Conv2d(b, c, 3, stride=2, padding=1), nn.GELU(),
            nn.ZeroPad2d((0, 1, 1, 1)), nn.Conv2d(c, width, 3, stride=2),
        )  # fmt: skip

    def forward(self, spectrogram_BFT: Tensor) -> Tensor:
        return self.layers(spectrogram_BFT[:, None]).flatten(2).transpose(1, 2)


class Particles(nn.Module):
    """The decoder: K sub-frame tokens and the mood -> the cloud, with the formulas of the renderer (clouds/cloud.py).

    Predicted per sub-frame: centre, spreads, base colour, alpha, size. Predicted per particle: glow, from its position.
    Colours whiten with glow and depth follows z as in the renderer. Positions are computed in float32, under autocast
    too.
    """

    def __init__(self, width: int, particle_width: int):
        super().__init__()
        self.head = nn.Sequential(nn.LayerNorm(width + MOOD), nn.Linear(width + MOOD, width), nn.GELU())
        self.centre, self.spread, self.shades = nn.Linear(width, 2), nn.Linear(width, 3), nn.Linear(width, 5)
        self.code, self.place = nn.Linear(width, particle_width), nn.Linear(6, particle_width)
        self.hidden, self.glow = nn.Linear(particle_width, particle_width), nn.Linear(particle_width, 1)
        time = (torch.arange(SUBFRAMES, dtype=torch.float32) + 0.5) / SUBFRAMES
        self.register_buffer("time", time.view(1, SUBFRAMES, 1), persistent=False)
        self.register_buffer("pattern", torch.tensor(PATTERN, dtype=torch.float32), persistent=False)
        # Initial prediction: an average cloud, at half height and with the renderer's typical spread.
        nn.init.normal_(self.centre.weight, std=0.01)
        nn.init.normal_(self.spread.weight, std=0.01)
        nn.init.constant_(self.centre.bias, 0.4)
        with torch.no_grad():
            self.spread.bias.copy_(torch.tensor([SPREAD_X, 0.07, 0.09]).log())

    def forward(self, line_BKD: Tensor, mood_BM: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        batch = line_BKD.shape[0]
        line_BKD = self.head(torch.cat([line_BKD, mood_BM[:, None].expand(-1, SUBFRAMES, -1)], -1))
        centre_BK3 = torch.cat([self.time.expand(batch, -1, -1), self.centre(line_BKD).float()], -1)
        spread_BK3 = self.spread(line_BKD).float().clamp(-8.0, 1.0).exp()
        place_BKP3 = centre_BK3[:, :, None] + spread_BK3[:, :, None] * self.pattern

        pattern_BKP3 = self.pattern.expand(batch, SUBFRAMES, -1, -1)
        hidden = F.gelu(self.place(torch.cat([place_BKP3, pattern_BKP3], -1)) + self.code(line_BKD)[:, :, None])
        glow_BKP1 = self.glow(F.gelu(self.hidden(hidden))).float().sigmoid()

        base_BK13, alpha_BK11, size_BK11 = self.shades(line_BKD).float().sigmoid()[:, :, None].split([3, 1, 1], -1)
        rgb_BKP3 = base_BK13 + (1 - base_BK13) * (GLOW_WHITENS * glow_BKP1)
        colors = torch.cat([rgb_BKP3, alpha_BK11.expand_as(glow_BKP1)], -1)
        depth_BKP1 = 0.3 + 0.7 * place_BKP3[..., 2:].clamp(0.0, 1.0).pow(1.5)
        properties = torch.cat([size_BK11.expand_as(glow_BKP1), glow_BKP1, depth_BKP1], -1)
        return place_BKP3.flatten(1, 2), colors.flatten(1, 2), properties.flatten(1, 2)


class Core(nn.Module):
    """The exported model: normalised spectrogram [B, 128, 64], emotion [B, 64] and midi_features [B, 32] (zeros: no
    score) -> positions [B, 1200, 3], colors [B, 1200, 4] and properties [B, 1200, 3], channels in [0, 1]."""

    def __init__(self, settings: ModelSettings):
        super().__init__()
        width = settings.width
        self.patches = Patches(width)
        self.place = nn.Parameter(torch.randn(1, BANDS * SUBFRAMES, width) * 0.02)
        self.line = nn.Parameter(torch.randn(1, SUBFRAMES, width) * 0.02)
        self.column = nn.Linear(BANDS * width, width)
        self.mood = nn.Sequential(nn.Linear(EMOTION, MOOD), nn.GELU(), nn.Linear(MOOD, MOOD))
        self.mood_token = nn.Linear(MOOD, width)
        self.score_token = nn.Linear(MIDI_FEATURES, width)
        self.blocks = nn.ModuleList(
            Block(width, settings.heads, settings.mlp_ratio, settings.dropout) for _ in range(settings.layers)
        )
        self.particles = Particles(width, settings.particle_width)

    def forward(self, spectrogram: Tensor, emotion: Tensor, midi_features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mood = self.mood(emotion)
        patches = self.patches(spectrogram)
        # Each query is initialised with the column of patches of its sub-frame. Attention alone is slow to find it;
        # until then, the model predicts the window's average for all eight sub-frames.
        line = self.line + self.column(patches.unflatten(1, (BANDS, SUBFRAMES)).transpose(1, 2).flatten(2))
        context = [self.mood_token(mood)[:, None], self.score_token(midi_features)[:, None]]
        x_BSD = torch.cat([line, patches + self.place, *context], 1)
        for block in self.blocks:
            x_BSD = block(x_BSD)
        return self.particles(x_BSD[:, :SUBFRAMES], mood)


class Spectocloud(nn.Module):
    """The trained model: `Core` with the normaliser in front, so that its input is the stored log-mel."""

    def __init__(self, settings: ModelSettings, mean: np.ndarray, std: np.ndarray):
        super().__init__()
        self.normalise = Normalise(mean, std)
        self.core = Core(settings)

    def forward(self, logmel: Tensor, emotion: Tensor, midi_features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `Core`, from the log-mel in nats [B, 128, 64]."""
        return self.core(self.normalise(logmel), emotion, midi_features)
