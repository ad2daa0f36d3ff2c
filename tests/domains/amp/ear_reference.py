"""An independent noise-to-mask ratio, and an independent way to separate aliases from harmonics: loops over bands and
partials, in numpy, in the way of the literature."""

from __future__ import annotations

import numpy as np
from scipy.signal.windows import chebwin, hann

FRAME = 2048


def _bands() -> list[tuple[float, float, float]]:
    """Kabal (2003), equations 10 to 12."""
    to_bark = lambda f: 7 * np.arcsinh(f / 650)  # noqa: E731
    to_hertz = lambda z: 650 * np.sinh(z / 7)  # noqa: E731
    lowest, highest = to_bark(80), to_bark(18_000)
    out = []
    while lowest + len(out) / 4 < highest:
        lower = lowest + len(out) / 4
        upper = min(lower + 0.25, highest)
        out.append((to_hertz(lower), to_hertz((lower + upper) / 2), to_hertz(upper)))
    return out


def _spread(energy: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Kabal (2003), section 2.8: a band at a time; not normalised."""
    count, out = len(energy), np.zeros(len(energy))
    down = 10 ** (-2.7 / 4)
    for source in range(count):
        level = 10 * np.log10(energy[source])
        up = 10 ** (-(24 + 230 / centres[source] - 0.2 * level) / 10 / 4)
        falls = np.array([down ** (source - i) if i <= source else up ** (i - source) for i in range(count)])
        out += (energy[source] / falls.sum() * falls) ** 0.4
    return out ** (1 / 0.4)


def nmr(signal: np.ndarray, reference: np.ndarray, rate: int) -> float:
    """In dB; both [samples]."""
    bands = _bands()
    centres = np.array([centre for _, centre, _ in bands])
    hertz = np.arange(FRAME // 2 + 1) * rate / FRAME
    with np.errstate(divide="ignore"):
        f = hertz / 1000
        ear = 10 ** ((-2.184 * f**-0.8 + 6.5 * np.exp(-0.6 * (f - 3.3) ** 2) - 0.001 * f**3.6) / 10)
    # a full-scale sine at 1,019.5 Hz has 92 dB in its largest bin
    window = hann(FRAME)
    sine = np.abs(np.fft.rfft(window * np.sin(2 * np.pi * 1019.5 * np.arange(FRAME) / rate))).max()
    scale = 10 ** (92 / 20) / sine
    share = np.zeros((len(bands), len(hertz)))
    width = rate / FRAME
    for i, (lower, _, upper) in enumerate(bands):
        for k, middle in enumerate(hertz):
            share[i, k] = max(0.0, min(upper, middle + width / 2) - max(lower, middle - width / 2)) / width
    noise_inside = 10 ** (0.1456 * (centres / 1000) ** -0.8)
    ones = _spread(np.ones(len(bands)), centres)
    offset = np.array([3.0 if i / 4 <= 12 else 0.25 * i / 4 for i in range(len(bands))])
    ratios = []
    for begin in range(0, len(signal) - FRAME + 1, FRAME // 2):
        x, r = (
            np.abs(np.fft.rfft(window * part[begin : begin + FRAME])) * scale * np.sqrt(ear)
            for part in (signal, reference)
        )
        noise = share @ (x - r) ** 2
        mask = _spread(share @ r**2 + noise_inside, centres) / ones / 10 ** (offset / 10)
        ratios.append(np.mean(noise / mask))
    return float(10 * np.log10(np.mean(ratios)))


def without_aliases(signal: np.ndarray, hertz: float, rate: int) -> np.ndarray:
    """The harmonics of a settled tone, [samples], of which there must be an even number: by a Chebyshev window of
    120 dB, with the loss between bins corrected, a partial at a time (Carson et al. 2025, arXiv 2505.04082)."""
    count = len(signal)
    assert count % 2 == 0
    window = chebwin(count, at=120, sym=False)
    spectrum, place = np.fft.rfft(signal * window), np.arange(count)
    out = np.full(count, spectrum[0].real / window.sum())
    for harmonic in range(1, int(rate / 2 / hertz) + 1):
        exact = harmonic * hertz * count / rate
        nearest = round(exact)
        lost = (window * np.exp(2j * np.pi * (exact - nearest) * place / count)).sum()
        amplitude = spectrum[nearest] / lost
        out += 2 * abs(amplitude) * np.cos(2 * np.pi * exact * place / count + np.angle(amplitude))
    return out
