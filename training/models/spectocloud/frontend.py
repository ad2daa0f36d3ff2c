"""Waveform -> the spectrogram that the model takes, as one exportable graph: no host re-implements mel filters.

The discrete Fourier transform is written as matrix products, which every runtime has and runs fast: a real frame of
N samples, folded about its middle, needs only N/2 + 1 cosine and N/2 - 1 sine rows, half the work of the full table.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from training.models.spectocloud.model import FRAMES, Normalise
from training.music.audio import FLOOR, HOP, N_FFT, mel_filters

#: Samples that determine one window: its 64 frames of 2,048, each beginning 1,024 after the last.
SAMPLES = (FRAMES - 1) * HOP + N_FFT


class Frontend(nn.Module):
    """Mono audio at 44,100 Hz, float32 [B, 66560] in [-1, 1] -> normalised log-mel float32 [B, 128, 64].

    Frame i is centred on sample 1024 * (i + 1) of the input: for the window that begins at sample s of a recording,
    feed the samples from s - 1024 (zeros where there are none).
    """

    def __init__(self, normalise: Normalise):
        super().__init__()
        half = N_FFT // 2
        if 2 * HOP != N_FFT:
            raise ValueError("the frontend frames by halves: N_FFT must be 2 * HOP")
        n, k = np.arange(1, half + 1)[:, None], np.arange(half + 1)
        window = 0.5 - 0.5 * np.cos(2 * np.pi * n / N_FFT)  # periodic Hann: 0 at n = 0, and window[n] = window[N - n]
        angle = 2 * np.pi * ((n * k) % N_FFT) / N_FFT
        cosine, sine = window * np.cos(angle), window * np.sin(angle)
        self.register_buffer("cosine", torch.tensor(cosine, dtype=torch.float32))  # [1024, 1025]: n = 1..1024
        # [1023, 1023]: n, k = 1..1023; elsewhere the sine is 0
        self.register_buffer("sine", torch.tensor(sine[:-1, 1:-1], dtype=torch.float32))
        self.register_buffer("mel", torch.tensor(mel_filters().T.copy(), dtype=torch.float32))  # [1025, 128]
        self.register_buffer("mirror", torch.arange(half - 1, 0, -1), persistent=False)
        self.normalise = normalise

    def forward(self, waveform: Tensor) -> Tensor:
        blocks = waveform.unflatten(1, (FRAMES + 1, HOP))
        first, second = blocks[:, :-1], blocks[:, 1:]  # a frame is two neighbouring blocks
        low, high = first[..., 1:], second.index_select(2, self.mirror)  # x[n] and x[N - n], n = 1..1023
        real = torch.cat([low + high, second[..., :1]], -1) @ self.cosine
        imaginary = (low - high) @ self.sine
        power = real.square() + torch.nn.functional.pad(imaginary.square(), (1, 1))
        logmel = (power @ self.mel).clamp(min=FLOOR).log()
        return self.normalise(logmel.transpose(1, 2))
