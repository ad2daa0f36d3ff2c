"""A training step in the shape of the published code (Carson et al. 2025, arXiv 2505.04082), written again: float64,
tones of one second whose harmonics are estimated tone by tone, spread energies in a loop over bands, and an update for
each window. What is compared is what is computed, not its result.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from training.domains.amp.networks.network import Network
from training.domains.amp.signal.filters import loss_taps
from training.domains.amp.signal.nmr import FRAME, HOP, POWER, STEP, Ear


class Original:
    """Batches of tones for one network. `window`: samples of an update; `warmup`: seconds in front of the tone."""

    def __init__(self, network: Network, window: int, warmup: float):
        self.network, self.window = network.double(), window
        self.rate = network.sample_rate
        self.warmup = round(warmup * self.rate)
        self.ear, self.taps = Ear(self.rate), loss_taps(self.rate)[None, None]
        self.optimizer = torch.optim.Adam(network.parameters(), 5e-4)
        count = self.rate - self.rate % 2
        # side lobes of 120 dB as the published window has; its exact shape does not change the time
        self.cheb = torch.signal.windows.kaiser(count, beta=16.0, dtype=torch.float64)

    def batch(self, x: torch.Tensor, y: torch.Tensor, hertz: list[float]) -> int:
        """All updates of one batch: x, y float64 [B, warmup + rate]; returns how many updates."""
        count = len(self.cheb)
        target = self._harmonics(y[:, -count:], hertz)
        recurrent = not self.network.receptive_field
        state = self.network.start(len(x))
        if recurrent:
            _, state = self.network(x[:, : self.warmup], state)
        updates = count // self.window
        for number in range(updates):
            self.optimizer.zero_grad()
            begin, end = number * self.window, (number + 1) * self.window
            if recurrent:
                own, state = self.network(x[:, self.warmup + begin : self.warmup + end], state)
            else:  # the samples in front are computed again for each window
                before = self.network.receptive_field
                own = self.network.valid(x[:, self.warmup + begin - before : self.warmup + end])
            loss = self._loss(own, target[:, begin:end])
            loss.backward()
            self.optimizer.step()
            state = tuple(value.detach() for value in state)
        return updates

    def _harmonics(self, y: torch.Tensor, hertz: list[float]) -> torch.Tensor:
        count = len(self.cheb)
        spectrum, place = torch.fft.rfft(y * self.cheb), torch.arange(count, dtype=torch.float64)
        out = torch.zeros_like(y)
        for number, f0 in enumerate(hertz):
            exact = f0 * torch.arange(1, int(self.rate / 2 / f0) + 1, dtype=torch.float64) * count / self.rate
            nearest = exact.round()
            turns = 2j * math.pi * (exact - nearest) * place[:, None] / count
            amplitude = spectrum[number, nearest.long()] / (self.cheb[:, None] * torch.exp(turns)).sum(0)
            partials = 2 * amplitude.abs() * torch.cos(2 * math.pi * exact * place[:, None] / count + amplitude.angle())
            out[number] = spectrum[number, 0].real / self.cheb.sum() + partials.sum(-1)
        return out

    def _loss(self, own: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        half = self.taps.shape[2] // 2
        own, target = (functional.conv1d(x[:, None], self.taps, padding=half)[:, 0] for x in (own, target))
        x, r = self._magnitudes(own), self._magnitudes(target)
        noise = (x - r) ** 2 @ self.ear.grouping
        mask = self.ear.offset * self._spread(r**2 @ self.ear.grouping + self.ear.noise) / self.ear.normal
        nmr = 10 * torch.log10((noise / mask).mean((-2, -1)))
        error, energy = own - target, (target**2).sum()
        return 0.5 * 10 ** (nmr.mean() / 10) + 0.5 * (error**2).sum() / energy + error.mean() ** 2 / (target**2).mean()

    def _magnitudes(self, x: torch.Tensor) -> torch.Tensor:
        spectrum = torch.stft(x, FRAME, HOP, window=self.ear.window, center=False, return_complex=True)
        return spectrum.abs().transpose(1, 2) * self.ear.gain

    def _spread(self, energy: torch.Tensor) -> torch.Tensor:
        """A band at a time, and every band above it at a time."""
        count, down = energy.shape[-1], 10 ** (-2.7 * STEP)
        own, up = [], []
        for band in range(count):
            falls = 10 ** ((-self.ear.slope[band]) * STEP) * energy[..., band] ** (0.2 * STEP)
            gain = (1 - down ** (band + 1)) / (1 - down) + (1 - falls ** (count - band)) / (1 - falls) - 1
            own.append((energy[..., band] / gain) ** POWER)
            up.append(falls**POWER)
        out = torch.zeros_like(energy)
        out[..., -1] = own[-1]
        for band in range(count - 2, -1, -1):
            out[..., band] = down**POWER * out[..., band + 1] + own[band]
        for band in range(count - 1):
            spread = own[band]
            for higher in range(band + 1, count):
                spread = spread * up[band]
                out[..., higher] += spread
        return out ** (1 / POWER)
