"""Which pitches sound: the part of the model that listens note by note.

Shape legend: B batch, F mel bands, T frames, H harmonics, P pitches, C channels, K sub-frames, D width.

A note is a comb of partials, and the same comb at every pitch once frequency is logarithmic. So every pitch is shown
what lies at its first harmonics (harmonic stacking: Bittner et al., Deep Salience Representations for F0 Estimation,
ISMIR 2017), and one small convolutional network, the same at all pitches, decides from it: what it has learnt of one
key holds in all others, which matters where songs are few. Mel bands are too coarse for the fundamentals of low notes,
but not for their higher harmonics.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.spectocloud.sound import band_centres
from training.music.audio import N_MELS
from training.music.clouds.cloud import HIGHEST_PITCH, LOWEST_PITCH, PITCHES, ROUGH
from training.music.clouds.roughness import OWN, pair_table

HARMONICS = (1, 2, 3, 4, 5, 6, 8, 10)
MEAN, HIGH, LOW = range(3)  # what the pitches of a sub-frame are read for
THIN = 6  # channels in which the pitches reach the encoder
STEEP = 0.25  # nats a semitone by which, of two pitches that sound, the outer one outweighs the inner one
SURE = 3.0  # sharpens probabilities where a faint doubt would count: for the outermost pitches, and for tension


def harmonic_table() -> np.ndarray:
    """float32 [H * P, 128]: what lies at each harmonic of each pitch, interpolated between the mel bands around it;
    zeros above the highest band."""
    pitch = np.arange(LOWEST_PITCH, HIGHEST_PITCH + 1)
    hertz = np.outer(HARMONICS, 440 * 2 ** ((pitch - 69) / 12)).ravel()
    centres = band_centres()
    place = np.interp(hertz, centres, np.arange(N_MELS))
    below = np.minimum(place.astype(np.int64), N_MELS - 2)
    table = np.zeros((len(hertz), N_MELS), np.float32)
    rows = np.arange(len(hertz))
    table[rows, below] = 1 - (place - below)
    table[rows, below + 1] = place - below
    table[hertz > centres[-1]] = 0
    return table


class Hearing(nn.Module):
    """Normalised log-mel [B, F, T] -> what each sub-frame holds [B, K, D]; the renderer's pitch, range and tension,
    read off the pitches [B, K, 3]; and how surely each pitch sounds [B, K, P], as logits.

    The three are computed from the pitches as the renderer computes them from notes: their mean, the distance of the
    outermost, and the roughness of all their pairs. What that misses (loudness, above all) is left to the decoder.
    """

    def __init__(self, width: int, channels: int):
        super().__init__()
        c = channels
        self.salience = nn.Sequential(
            # Four frames to two, one more on either side: three frames would be centred on a sub-frame's beginning.
            nn.Conv2d(len(HARMONICS), c, (1, 4), stride=(1, 2), padding=(0, 1)), nn.GELU(),
            nn.Conv2d(c, c, (3, 4), stride=(1, 2), padding=1), nn.GELU(),
            nn.Conv2d(c, c, (3, 4), stride=(1, 2), padding=1), nn.GELU(),
            nn.Conv2d(c, c, (13, 1), padding=(6, 0)), nn.GELU(),  # an octave: a harmonic is not a note
        )  # fmt: skip
        self.sounds, self.read, self.thin = nn.Conv2d(c, 1, 1), nn.Conv2d(c, 3, 1), nn.Conv2d(c, THIN, 1)
        self.chord = nn.Linear(THIN * PITCHES, width)
        self.timbre = nn.Conv1d(2 * N_MELS, width, 12, stride=8, padding=2)  # a sub-frame, two frames before and after
        pitch = torch.arange(LOWEST_PITCH, HIGHEST_PITCH + 1, dtype=torch.float32)
        ramp = STEEP * (pitch - pitch.mean())
        rough = pair_table()[LOWEST_PITCH : HIGHEST_PITCH + 1, LOWEST_PITCH : HIGHEST_PITCH + 1] / (2 * OWN)
        for name, table in (
            ("harmonics", torch.tensor(harmonic_table())),
            ("pitch", ((pitch - 36) / 52).view(1, 1, PITCHES, 1)),
            ("tilt", torch.stack([torch.zeros(PITCHES), ramp, -ramp]).view(1, 3, PITCHES, 1)),
            ("trust", torch.tensor([1.0, SURE, SURE]).view(1, 3, 1, 1)),
            ("rough", torch.tensor(rough, dtype=torch.float32)),
        ):
            self.register_buffer(name, table, persistent=False)
        nn.init.constant_(self.sounds.bias, -3.0)  # one pitch of thirty sounds

    def forward(self, spectrogram_BFT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        comb_BHPT = (self.harmonics @ spectrogram_BFT).unflatten(1, (len(HARMONICS), PITCHES))
        heard_BCPK = self.salience(comb_BHPT)
        roll_B1PK = self.sounds(heard_BCPK).float()

        # min(logit, 0) stands for the logarithm of the probability
        weight_B3PK = self.trust * roll_B1PK.clamp(max=0.0) + self.read(heard_BCPK).float() + self.tilt
        where_B3K = (weight_B3PK.softmax(2) * self.pitch).sum(2)
        reach_BK = (where_B3K[:, HIGH] - where_B3K[:, LOW]) * (52 / 36)  # from pitch's units to range's
        chord_BKP = (SURE * roll_B1PK[:, 0]).sigmoid().transpose(1, 2)  # 84 faint doubts would be a rough chord
        beats_BK = ((chord_BKP @ self.rough).float() * chord_BKP).sum(-1) / (chord_BKP.square().sum(-1) + 0.02)
        tension_BK = (beats_BK / ROUGH + 1e-3).pow(0.7)  # the slope at 0 is finite
        read_BK3 = torch.stack([where_B3K[:, MEAN], reach_BK, tension_BK], -1)

        rise_BFT = F.relu(spectrogram_BFT - F.pad(spectrogram_BFT, (1, 0))[..., :-1])  # onsets
        timbre_BDK = F.gelu(self.timbre(torch.cat([spectrogram_BFT, rise_BFT], 1)))
        line_BKD = self.chord(self.thin(heard_BCPK).flatten(1, 2).transpose(1, 2)) + timbre_BDK.transpose(1, 2)
        return line_BKD, read_BK3, roll_B1PK[:, 0].transpose(1, 2)


def uses(channels: int) -> int:
    """Multiplications of a window in the convolutions: three that halve the 64 frames, and one over 13 pitches."""
    c = channels
    return PITCHES * (32 * 4 * len(HARMONICS) * c + (16 + 8) * 12 * c * c + 8 * 13 * c * c)
