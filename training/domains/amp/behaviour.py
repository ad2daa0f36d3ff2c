"""How a capture answers silence and a tone, before anything is trained: what cannot be used, and what its owner should
know."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from training.domains.amp.captures import Capture
from training.domains.amp.networks.network import one_thread

LOUDEST = 100.0  # a larger output is damage; full scale is 1
_SILENT = 1e-6
_LEVEL = 0.3  # of the tone, about -10 dB
_PRIME = 4_409  # samples of a period of the tone's repetition: an answer that has settled repeats with it
_CYCLES = 20  # of the tone in _PRIME samples: about 200 Hz at 44.1 kHz
_SETTLED = -90.0  # dB
_WHISTLE = -60.0  # dB of full scale, of the answer to silence


@dataclass(frozen=True)
class Behaviour:
    """Levels in dB."""

    silence: float  # of the answer to silence, without its constant part, in dB of full scale
    drift: float  # of the change between two repetitions of a tone after 2 s, relative to the answer
    notes: tuple[str, ...] = ()


@torch.no_grad()
def behaviour_of(capture: Capture) -> Behaviour:
    """Raises ValueError for a capture that is silent, not finite, or louder than LOUDEST."""
    with one_thread():
        found = [_of(network) for network in capture.networks]
    silence, drift = (max(values) for values in zip(*found, strict=True))
    notes = []
    if drift > _SETTLED:
        notes.append(f"has not settled after 2 s of a tone: it drifts, and {drift:.0f} dB of its NMR are not aliasing")
    if silence > _WHISTLE:
        notes.append(f"is not silent at rest: {silence:.0f} dB of full scale, which training keeps")
    return Behaviour(silence, drift, tuple(notes))


def _of(network) -> tuple[float, float]:
    rate = network.sample_rate
    repeats = -(-2 * rate // _PRIME)
    tone = _LEVEL * np.sin(2 * np.pi * _CYCLES * np.arange(_PRIME) / _PRIME)
    sound = np.concatenate([np.zeros(rate // 4), np.tile(tone, repeats + 2)]).astype(np.float32)
    y = network.play(torch.from_numpy(sound)[None].to(next(network.parameters())))[0].double().cpu().numpy()
    if not np.isfinite(y).all():
        raise ValueError("its output for a tone is not finite")
    loudest = float(np.abs(y).max())
    if loudest > LOUDEST:
        raise ValueError(f"its output for a tone reaches {loudest:,.0f}; full scale is 1, and {LOUDEST:g} is refused")
    rest, before, last = y[rate // 8 : rate // 4], y[-2 * _PRIME : -_PRIME], y[-_PRIME:]
    power = float(np.var(last))
    if not power > _SILENT**2:
        raise ValueError("is silent: its output for a tone is constant")
    return _db(float(np.var(rest))), _db(float(np.mean((last - before) ** 2)) / power)


def _db(power: float) -> float:
    return float(10 * np.log10(max(power, 1e-20)))
