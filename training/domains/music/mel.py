"""The mel scale of Slaney's Auditory Toolbox (1998) and its filter bank, as librosa computes them, to the bit:
importing librosa takes seconds of processor time in every process."""

from __future__ import annotations

import numpy as np

_HZ_PER_MEL = 200 / 3  # of the linear part, which ends at _BEND
_BEND, _LOG_STEP = 1000.0, np.log(6.4) / 27  # Hz; natural logarithms a mel above it


def frequencies(count: int, top: float) -> np.ndarray:
    """`count` frequencies in Hz from 0 to `top` that are equally far apart on the mel scale, float64 [count]. `top` is
    above 1,000 Hz."""
    bend = _BEND / _HZ_PER_MEL
    mels = np.linspace(0.0, bend + np.log(top / _BEND) / _LOG_STEP, count)
    found = _HZ_PER_MEL * mels
    above = mels >= bend
    found[above] = _BEND * np.exp(_LOG_STEP * (mels[above] - bend))
    return found


def filters(rate: int, n_fft: int, count: int) -> np.ndarray:
    """The filter bank, float32 [count, 1 + n_fft / 2]: mel power = filters @ power spectrum of sound at `rate` Hz. Each
    filter is a triangle whose area is 1 (in Hz)."""
    edges = frequencies(count + 2, rate / 2)
    ramps = np.subtract.outer(edges, np.fft.rfftfreq(n_fft, 1 / rate))
    widths = np.diff(edges)[:, None]
    lower, upper = -ramps[:-2] / widths[:-1], ramps[2:] / widths[1:]
    out = np.maximum(0, np.minimum(lower, upper)).astype(np.float32)
    out *= (2 / (edges[2:] - edges[:-2]))[:, None]
    return out
