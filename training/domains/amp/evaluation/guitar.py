"""Answers to held-out guitar, against the teacher at 8 times the rate."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from training.domains.amp.evaluation.tones import FACTORS, LOWPASS, TEACHER, _cut, in_float64
from training.domains.amp.guitar import clip
from training.domains.amp.networks.network import Network
from training.domains.amp.signal import measures
from training.domains.amp.signal.filters import filtered, lowpass_taps
from training.domains.amp.signal.nmr import FRAME, Ear
from training.domains.amp.signal.running import oversampled

if TYPE_CHECKING:
    from training.data.rows import Row

EDGE = 256  # samples left out at both ends, where filters miss what is outside
TOGETHER = 10  # clips of a second that a recurrent network answers at once, at up to 8 times the rate
TARGET = f"T_{max(FACTORS)}"


@dataclass(frozen=True)
class ClipScores:
    """Measures of answers against the target, for each clip: float64 [n]."""

    nmr: np.ndarray  # dB
    esr: np.ndarray  # a ratio


def clips_of(rows: Sequence[Row], rate: int, count: int) -> list[torch.Tensor]:
    """Up to `count` clips, evenly taken from `rows`, that are long enough and not silent: float64 [T] each."""
    sounds = [torch.from_numpy(np.asarray(clip(row, rate), np.float64)) for row in rows]
    usable = [x for x in sounds if len(x) >= FRAME + 2 * EDGE and float(x.square().mean()) > 1e-6]
    chosen = np.unique(np.linspace(0, len(usable) - 1, min(count, len(usable))).round().astype(int))
    return [usable[number] for number in chosen]


@torch.no_grad()
def score_clips(
    clips: Sequence[torch.Tensor], teacher: Network, trained: Mapping[str, Network]
) -> dict[str, ClipScores]:
    """The teacher, its baselines, and the `trained` networks, on clips."""
    exact, others = in_float64(teacher), {name: in_float64(network) for name, network in trained.items()}
    device = next(exact.parameters()).device
    ear = Ear(teacher.sample_rate).to(device)
    taps = lowpass_taps(teacher.sample_rate, *_cut(teacher.sample_rate)).to(device)
    rows: dict[str, list[tuple[float, float]]] = {}
    for x in _batches(clips, bool(teacher.receptive_field)):
        x = x.to(device)
        answers = {TEACHER: exact.play(x)}
        answers[LOWPASS] = filtered(answers[TEACHER], taps)
        answers |= {f"T_{factor}": oversampled(exact.play, x, factor) for factor in FACTORS}
        answers |= {name: network.play(x) for name, network in others.items()}
        inner = slice(EDGE, x.shape[1] - EDGE)
        target = answers.pop(TARGET)[:, inner]
        for name, answer in answers.items():
            y = answer[:, inner]
            both = torch.stack([ear.nmr(y, target), measures.esr(y, target)], 1)
            rows.setdefault(name, []).extend(map(tuple, both.tolist()))
    return {name: ClipScores(*np.array(values, np.float64).reshape(-1, 2).T) for name, values in rows.items()}


def _batches(clips: Sequence[torch.Tensor], alone: bool) -> Iterator[torch.Tensor]:
    """The clips, in their order: each alone, or those of one length together, since a recurrence takes as long for all
    as for one: float64 [B, T]."""
    for _, group in itertools.groupby(clips, key=len):
        every = torch.stack(list(group))
        yield from every.split(1 if alone else TOGETHER)
