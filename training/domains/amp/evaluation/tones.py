"""Answers to the tones of the evaluation: 88 notes at two levels, in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from training.domains.amp.networks.network import Network
from training.domains.amp.signal import measures
from training.domains.amp.signal.filters import lowpass_taps, periodic_response
from training.domains.amp.signal.nmr import Ear, decibels
from training.domains.amp.signal.running import settled
from training.domains.amp.signal.tones import cycles, frequency, without_aliases

NOTES = tuple(range(21, 109))  # of a piano: 27.5 Hz to 4.2 kHz
LEVELS = (-20.0, 0.0)  # dB of full scale
FACTORS = (2, 4, 8)
TEACHER, LOWPASS = "teacher", "lowpass"
CUT = (12_000.0, 14_000.0, 80.0)  # of the baseline that only filters: Hz passed, Hz stopped, dB
BATCH = 8


@dataclass(frozen=True)
class Tones:
    """The tones at one sample rate."""

    rate: int
    length: int
    note: np.ndarray  # [n]
    level: np.ndarray  # dB [n]

    @classmethod
    def of(cls, rate: int, length: int, notes: Sequence[int] = NOTES, levels: Sequence[float] = LEVELS) -> Tones:
        note, level = (grid.ravel() for grid in np.meshgrid(notes, levels, indexing="ij"))
        return cls(rate, length, note.astype(np.float64), level.astype(np.float64))

    @property
    def cycles(self) -> torch.Tensor:
        return cycles(frequency(torch.from_numpy(self.note)), self.length, self.rate)

    @property
    def amplitude(self) -> torch.Tensor:
        return torch.from_numpy(10 ** (self.level / 20))

    @torch.no_grad()
    def answers(self, network: Network, delay: float = 0.0) -> torch.Tensor:
        """Settled answers in float64: [n, length]."""
        exact = in_float64(network)
        device = next(exact.parameters()).device
        every = (self.cycles, self.amplitude, torch.zeros(len(self.note), dtype=torch.float64))
        # a recurrence takes as long for all tones as for one
        batch = BATCH if network.receptive_field else len(self.note)
        parts = zip(*(values.to(device).split(batch) for values in every), strict=True)
        return torch.cat([
            settled(exact, *part, self.length, dtype=torch.float64, delay=delay) for part in parts
        ])  # fmt: skip


def in_float64(network: Network) -> Network:
    """A copy of the network in float64."""
    return copy.deepcopy(network).double()


@dataclass(frozen=True)
class Scores:
    """Measures of answers against the target, for each tone: float64 [n]."""

    nmr: np.ndarray  # dB
    nmr_self: np.ndarray  # dB, against the answer's own harmonics: the aliases alone
    hesr: np.ndarray  # a ratio
    asr: np.ndarray  # a ratio


def references(tones: Tones, teacher: Network) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The target [n, length], and the baselines that need no training: the teacher, the teacher behind a low-pass
    filter, and the teacher at 2, 4 and 8 times the rate with ideal filters."""
    phases = [tones.answers(teacher, delay=number / max(FACTORS)) for number in range(max(FACTORS))]
    plain, half = phases[0], (tones.length + 1) // 2
    target = without_aliases(plain, tones.cycles.to(plain.device))
    out = {TEACHER: plain}
    response = periodic_response(lowpass_taps(tones.rate, *_cut(tones.rate)), tones.length).to(plain)
    out[LOWPASS] = torch.fft.irfft(torch.fft.rfft(plain) * response, n=tones.length)
    for factor in FACTORS:
        taken = torch.stack(phases[:: max(FACTORS) // factor], -1).flatten(1)
        spectrum = torch.fft.rfft(taken)[:, :half] / factor
        out[f"T_{factor}"] = torch.fft.irfft(spectrum, n=tones.length)
    return target, out


def _cut(rate: int) -> tuple[float, float, float]:
    passed = min(CUT[0], 0.3 * rate)
    return passed, passed * CUT[1] / CUT[0], CUT[2]


def score(tones: Tones, target: torch.Tensor, answers: Mapping[str, torch.Tensor]) -> dict[str, Scores]:
    """The measures of each of `answers` [n, length]."""
    ear = Ear(tones.rate).to(target.device)
    k = tones.cycles.to(target.device)
    chunks: Callable[[torch.Tensor], Sequence[torch.Tensor]] = lambda x: x.split(BATCH)  # noqa: E731
    out = {}
    for name, answer in answers.items():
        parts = [
            (ear.nmr(y, t), ear.nmr(y, without_aliases(y, one)), measures.hesr(y, t, one), measures.asr(y, one))
            for y, t, one in zip(chunks(answer), chunks(target), chunks(k), strict=True)
        ]
        out[name] = Scores(*(torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True)))
    return out


def nmr_mean(nmr: np.ndarray) -> float:
    """The mean of NMR in power, in dB: the loudest alias decides."""
    return float(decibels(torch.from_numpy(10 ** (nmr / 10)).mean()))
