"""Sensory roughness of notes sounding together: Plomp & Levelt (1965), as parametrised by Sethares (1993).

Two partials f1 <= f2 of amplitudes a1, a2 beat by a1 * a2 * g(s * (f2 - f1)) with s = .24 / (.021 f1 + 19) and
g(x) = exp(-3.5 x) - exp(-5.75 x). A chord's roughness is the sum over all pairs of partials of different notes, over
the sum of the squares of all amplitudes (Hutchinson & Knopoff, 1978): 0 for one note, and the same for a chord played
louder. Over four-part chorales and classical chamber and piano music its 95th percentile is .23.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from training.domains.music.clouds.exact import exp

PARTIALS = 5
_PARTIAL_AMPLITUDES = (1.0, 0.88, 0.7744, 0.681472, 0.59969536)  # 0.88^k, as in Sethares' curves
#: 2^(i/12), correctly rounded decimals.
_SEMITONES = (
    1.0, 1.0594630943592953, 1.122462048309373, 1.189207115002721, 1.2599210498948732, 1.3348398541700344,
    1.4142135623730951, 1.4983070768766815, 1.5874010519681996, 1.681792830507429, 1.7817974362806785,
    1.887748625363387,
)  # fmt: skip
#: The table holds integer multiples of 1 / _GRAIN, so that sums over it are exact in any order.
_GRAIN = 1 << 20


def _frequency(pitch: int) -> float:
    octave, semitone = divmod(pitch - 69, 12)
    return 440.0 * 2.0**octave * _SEMITONES[semitone]


@cache
def pair_table() -> np.ndarray:
    """[128, 128] int64, symmetric, zero on the diagonal: roughness of two notes of amplitude 1, times 2^20."""
    fundamentals = np.array([_frequency(pitch) for pitch in range(128)])
    table = np.zeros((128, 128))
    for i, a in enumerate(_PARTIAL_AMPLITUDES, start=1):
        for j, b in enumerate(_PARTIAL_AMPLITUDES, start=1):
            one, other = i * fundamentals[:, None], j * fundamentals[None, :]
            x = 0.24 * np.abs(one - other) / (0.021 * np.minimum(one, other) + 19.0)
            table += a * b * (exp(-3.5 * x) - exp(-5.75 * x))
    rounded = np.rint(table * _GRAIN).astype(np.int64)
    np.fill_diagonal(rounded, 0)
    return rounded


_OWN = int(sum(round(a * a * _GRAIN) for a in _PARTIAL_AMPLITUDES))  # squares of one note's partials, times 2^20


def roughness(amplitudes: np.ndarray) -> np.ndarray:
    """Roughness of chords.

    amplitudes: int64 [K, 128], the amplitude (velocity) at every pitch, 0 where nothing sounds; at most 127.
    Returns float64 [K], 0 where fewer than two pitches sound. All sums are over integers, hence exact.
    """
    sounding = np.flatnonzero(amplitudes.any(axis=0))
    a = amplitudes[:, sounding]
    pairs = (a @ pair_table()[np.ix_(sounding, sounding)] * a).sum(axis=1)  # each pair twice
    squares = (a * a).sum(axis=1) * _OWN
    return pairs / np.maximum(2 * squares, 1)
