"""Waveform -> the model's input spectrogram, as one exportable graph, so that no application re-implements mel filters.

The discrete Fourier transform is written as matrix products, which every runtime supports and runs fast. Cosines and
sines are even or odd about the middle of a frame, and again about its quarters, with a sign that alternates from one
frequency to the next. So a frame of N real samples is folded twice, into N/4 sums and differences, and even and odd
frequencies get one product each: a quarter of the work of the full table.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from training.domains.music.audio import FLOOR, HOP, N_FFT, mel_filters
from training.domains.music.spectocloud.model import FRAMES, Normalise

#: Samples that determine one window: 64 frames of 2,048 samples at a distance of 1,024.
SAMPLES = (FRAMES - 1) * HOP + N_FFT
QUARTER = N_FFT // 4


class Frontend(nn.Module):
    """Mono audio at 44,100 Hz, float32 [B, 66560] in [-1, 1] -> normalised log-mel float32 [B, 128, 64].

    Frame i is centred on sample 1024 * (i + 1) of the input: for the window that begins at sample s of a recording,
    feed the samples from s - 1024 (zeros where there are none).
    """

    def __init__(self, normalise: Normalise):
        super().__init__()
        if 2 * HOP != N_FFT:
            raise ValueError("N_FFT must be 2 * HOP: a frame consists of two neighbouring blocks of HOP samples")
        n, k = np.arange(QUARTER + 1)[:, None], np.arange(N_FFT // 2 + 1)
        angle = 2 * np.pi * ((n * k) % N_FFT) / N_FFT  # [513, 1025]
        # Samples 0, 512, 1024 and 1536 of a frame are their own mirror images, so the fold contains them twice.
        once = np.where(np.isin(n, (0, QUARTER)), 0.5, 1.0)
        cosine, sine = once * np.cos(angle), once * np.sin(angle)
        mel = mel_filters().T  # [1025, 128]
        for name, table in (
            ("window", 0.5 - 0.5 * np.cos(angle[:, 1])),  # periodic Hann's first quarter; the second is 1 - window
            ("cosine_even", cosine[:, ::2]), ("cosine_odd", cosine[:, 1::2]),
            ("sine_even", sine[:, ::2]), ("sine_odd", sine[:, 1::2]),
            ("mel", np.concatenate([mel[::2], mel[1::2]])),
        ):  # fmt: skip
            self.register_buffer(name, torch.tensor(table.copy(), dtype=torch.float32))
        self.normalise = normalise

    def forward(self, waveform: Tensor) -> Tensor:
        blocks = waveform.unflatten(1, (FRAMES + 1, HOP))
        following = torch.nn.functional.pad(blocks[:, 1:, :1], (0, 0, 0, 1))  # the last sample has weight 0
        up, down = blocks[..., : QUARTER + 1], torch.cat([blocks[..., QUARTER:], following], -1).flip(-1)
        # Of a frame x, two neighbouring blocks, and n = 0..512: x[n], x[1024 - n], x[1024 + n], x[2048 - n]
        a, b, c, d = up[:, :-1], down[:, :-1], up[:, 1:], down[:, 1:]
        outer, inner = self.window * (a + d), (1 - self.window) * (b + c)
        even = ((outer + inner) @ self.cosine_even).square()
        odd = ((outer - inner) @ self.cosine_odd).square()
        outer, inner = self.window * (a - d), (1 - self.window) * (b - c)
        even = even + ((outer - inner) @ self.sine_even).square()
        odd = odd + ((outer + inner) @ self.sine_odd).square()
        power = torch.cat([even, odd], -1) @ self.mel
        return self.normalise(power.clamp(min=FLOOR).log().transpose(1, 2))
