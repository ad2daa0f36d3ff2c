"""The haemodynamic response, as causal kernels at the rate of the volumes.

Volume t of a run is acquired over [t TR, (t + 1) TR) and the stimulus bin t covers the same time, so that both stand
for the middle of it: the kernel's value at lag k is the response after k TR.
"""

from __future__ import annotations

import math

import numpy as np

LENGTH = 32.0  # seconds after which the response is treated as over
_FINE = 0.05  # seconds between the points at which a kernel is averaged
_STEP = 0.1  # seconds of the difference quotient that gives the derivative
_PEAK, _UNDERSHOOT, _DISPERSION, _RATIO = 6.0, 12.0, 0.9, 0.35


def glover(seconds: np.ndarray, shift: float = 0.0) -> np.ndarray:
    """The response to an impulse at 0, at some times in seconds, float64; it is 0 before the impulse.

    The difference of two gamma densities of Glover 1999 ("Deconvolution of impulse response in event-related BOLD
    fMRI", NeuroImage 9, 416-429), with the parameters that SPM-like packages use for it. Its peak is at 5.0 s.
    `shift`: seconds by which the response is later.
    """
    after = np.asarray(seconds, np.float64) - shift
    return _gamma(after, _PEAK) - _RATIO * _gamma(after, _UNDERSHOOT)


def _gamma(seconds: np.ndarray, peak: float) -> np.ndarray:
    """The density of a gamma distribution with shape peak / dispersion and scale dispersion."""
    shape = peak / _DISPERSION
    scaled = np.maximum(seconds, 0) / _DISPERSION
    with np.errstate(divide="ignore"):
        logarithm = (shape - 1) * np.log(scaled) - scaled - math.lgamma(shape)
    return np.where(scaled > 0, np.exp(logarithm), 0.0) / _DISPERSION


def kernel(tr: float, shift: float = 0.0) -> np.ndarray:
    """The response at lags of 0, 1, 2 ... volumes, float64 [K], of unit sum.

    A value is the mean over the TR around its lag. The half before lag 0 is the time before the stimulus, and counts 0.
    """
    return _averaged(lambda seconds: glover(seconds, shift), tr, unit_sum=True)


def derivative_kernel(tr: float) -> np.ndarray:
    """The derivative of the response by time at lags of 0, 1, 2 ... volumes, float64 [K], of unit Euclidean norm.

    Added to the response with a weight, it moves the peak: a shift per voxel, to first order (Friston et al. 1998,
    "Event-related fMRI: characterizing differential responses", NeuroImage 7, 30-40).
    """
    values = _averaged(lambda seconds: (glover(seconds) - glover(seconds - _STEP)) / _STEP, tr, unit_sum=False)
    return values / np.linalg.norm(values)


def _averaged(response, tr: float, *, unit_sum: bool) -> np.ndarray:
    lags = math.ceil(LENGTH / tr)
    points = max(1, round(tr / _FINE))
    within = (np.arange(points) + 0.5) / points - 0.5  # shares of a TR around each lag
    seconds = tr * (np.arange(lags)[:, None] + within)
    values = response(seconds).mean(1)
    return values / values.sum() if unit_sum else values


def convolve(features_TF: np.ndarray, kernel_K: np.ndarray) -> np.ndarray:
    """Causal convolution along time: out[t] = sum over k of kernel[k] * features[t - k], float32 [T, F].

    Before the first row, the features count 0, which is their mean if they were standardised.
    """
    out_TF = np.zeros(features_TF.shape, np.float32)
    for lag, weight in enumerate(kernel_K[: len(features_TF)]):
        out_TF[lag:] += np.float32(weight) * features_TF[: len(features_TF) - lag]
    return out_TF


def delayed(features_TF: np.ndarray, delays: tuple[int, ...]) -> np.ndarray:
    """The features of `delays` volumes before, side by side: float32 [T, len(delays) * F]. Raises ValueError for a
    delay below 0, which would be a look ahead."""
    if min(delays) < 0:
        raise ValueError(f"a delay is negative: {min(delays)}")
    parts = []
    for delay in delays:
        part = np.zeros(features_TF.shape, np.float32)
        part[delay:] = features_TF[: len(features_TF) - delay]
        parts.append(part)
    return np.concatenate(parts, 1)


def with_response(features_TF: np.ndarray, tr: float) -> np.ndarray:
    """Features convolved with the response, and with its derivative: float32 [T, 2 F]."""
    return np.concatenate([convolve(features_TF, kernel(tr)), convolve(features_TF, derivative_kernel(tr))], 1)
