"""Scans the lag between stimulus and BOLD: is the film where the volumes say that it is, and does it run as fast?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.domains.brain.features.bank import principal
from training.domains.brain.features.haemodynamics import convolve, kernel
from training.domains.brain.regression.ridge import correlations, folds, solve

FARTHEST = 12  # volumes of shift that are tried, both ways
_TOLERATED = 3.0  # seconds: with the peak of the response at 5 s, a best lag of 2 to 8 s
_FEATURES = 40
_ALPHAS = (300.0, 3_000.0)
_NEAR = 6  # volumes around the best shift in which r is raised: the response is that long
_LEAST_RISE = 0.015  # of r at the best shift above that at far ones
_LEAST_SCORE = 4.0  # the same, in standard deviations of r at far shifts
_LEAST_GAIN = 0.01  # of r by which another shift or speed must exceed none
_STRETCH = 0.01  # relative: less is within the uncertainty
_LEAST_ROWS = 160


@dataclass(frozen=True)
class LagScan:
    """r of a ridge at each shift of the stimulus, in volumes: positive where BOLD is later than expected."""

    shifts: tuple[int, ...]
    r: tuple[float, ...]
    best: int
    tr: float

    @property
    def found(self) -> bool:
        """Whether r at the best shift stands out from r at far ones, which are what chance gives."""
        far = np.array([r for shift, r in zip(self.shifts, self.r, strict=True) if abs(shift - self.best) > _NEAR])
        middle = float(np.median(far))
        spread = 1.4826 * float(np.median(np.abs(far - middle)))
        return max(self.r) - middle >= max(_LEAST_RISE, _LEAST_SCORE * spread)

    @property
    def aligned(self) -> bool:
        """Whether the best lag is that of the response, within 3 s, or is hardly better than none."""
        near = abs(self.best) * self.tr <= _TOLERATED + 1e-9
        return near or not self.found or max(self.r) - self.r[self.shifts.index(0)] < _LEAST_GAIN

    def sentence(self) -> str:
        """What the scan shows, and the remedy."""
        if not self.found:
            return f"lag scan: nothing can be predicted at any shift of up to {FARTHEST} TR (best r {max(self.r):.3f})"
        at = f"r {max(self.r):.3f} at {self.best:+d} TR, {self.r[self.shifts.index(0)]:.3f} at 0"
        if self.aligned:
            return f"lag scan: aligned ({at})"
        seconds = self.best * self.tr
        edge = " or more: the best is at the edge of the scan" if abs(self.best) == FARTHEST else ""
        later = "later" if seconds > 0 else "earlier"
        return (
            f"misaligned by {abs(self.best)} TR{edge}: the BOLD follows the film {abs(seconds):.1f} s {later} than the "
            f"response does ({at}). Change --onset by {-seconds:+.1f} s if the film began at another time"
        )


def scan(features_TF: np.ndarray, bold_TV: np.ndarray, rows: np.ndarray, tr: float) -> LagScan:
    """Scan one run on its training rows (int64, ascending). `features_TF`: standardised, not convolved. `bold_TV`:
    standardised; the mean of subjects shows more than one of them.

    The features are convolved with the response, shifted, and regressed on the BOLD, with contiguous folds.
    """
    convolved = convolve(_few(features_TF, rows), kernel(tr))
    targets = bold_TV[rows].astype(np.float32)
    shifts = tuple(range(-FARTHEST, FARTHEST + 1))
    r = tuple(_predicted(_shifted(convolved, shift)[rows], targets) for shift in shifts)
    return LagScan(shifts, r, shifts[int(np.argmax(r))], tr)


def _few(features_TF: np.ndarray, rows: np.ndarray) -> np.ndarray:
    axes = principal(features_TF[rows].astype(np.float64), _FEATURES).astype(np.float32)
    out = features_TF @ axes
    return out / np.maximum(out[rows].std(0), 1e-6)


def _shifted(features_TF: np.ndarray, shift: int) -> np.ndarray:
    """Features that are `shift` volumes later; what has none counts 0."""
    out = np.zeros_like(features_TF)
    if shift >= 0:
        out[shift:] = features_TF[: len(features_TF) - shift]
    else:
        out[:shift] = features_TF[-shift:]
    return out


def _predicted(features: np.ndarray, targets: np.ndarray) -> float:
    """The mean held-out correlation of all voxels, over contiguous folds, for the better alpha."""
    every = np.arange(len(features))
    predicted = np.zeros((len(_ALPHAS), *targets.shape), np.float32)
    for held in folds([len(features)], 3):
        own = np.setdiff1d(every, held, assume_unique=True)
        for number, weights in enumerate(solve(features[own], targets[own], _ALPHAS)):
            predicted[number, held] = features[held] @ weights
    return max(float(correlations(of_alpha, targets).mean()) for of_alpha in predicted)


@dataclass(frozen=True)
class Stretch:
    """How much longer the stimulus lasted in the scanner than in its file. `rate`: relative; `first`, `last`: the lag
    in seconds that it has at the begin and at the end of the run."""

    rate: float
    first: float
    last: float

    @property
    def present(self) -> bool:
        return abs(self.rate) >= _STRETCH

    @property
    def shifted(self) -> bool:
        """Whether the run begins misaligned, too."""
        return abs(self.first) > _TOLERATED

    def sentence(self) -> str:
        if not self.present:
            return "no stretch: the film fits the BOLD best at its own speed"
        return (
            f"stretched by {100 * self.rate:+.1f} %: the film fits the BOLD best if it was shown at another speed. The "
            f"lag is {self.first:+.1f} s at the begin of the run and {self.last:+.1f} s at its end. Name the file that "
            "was shown, or check the TR"
        )


def stretch(
    features_TF: np.ndarray, bold_TV: np.ndarray, rows: np.ndarray, tr: float, shift: int = 0
) -> Stretch | None:
    """The speed at which the stimulus fits the BOLD best; None if the run is too short, or nothing can be predicted.

    A ridge is fitted for each candidate on the training rows, to the stimulus read at 1 / (1 + rate) of its speed, with
    the lag `shift` (volumes, of `scan`) in the middle of the run: that is where a scan of shifts finds its best.
    """
    if len(rows) < _LEAST_ROWS:
        return None
    few, targets = _few(features_TF, rows), bold_TV[rows].astype(np.float32)
    rates = np.round(np.arange(-0.06, 0.0601, 0.005), 3)

    def at(rate: float, lag: int) -> float:
        return _predicted(convolve(_at_rate(few, rate, lag), kernel(tr))[rows], targets)

    found = [at(rate, shift) for rate in rates]
    best, none = int(np.argmax(found)), int(np.argmin(np.abs(rates)))
    if found[best] - float(np.median(found)) < _LEAST_RISE:
        return None
    rate = float(rates[best]) if found[best] - found[none] >= _LEAST_GAIN else 0.0
    if rate:  # the best shift without a stretch is not exactly that in the middle of a stretched run
        near = range(shift - _NEAR, shift + _NEAR + 1)
        shift = max(near, key=lambda lag: at(rate, lag))
    half = rate * len(features_TF) * tr / 2
    return Stretch(rate, shift * tr - half, shift * tr + half)


def _at_rate(features_TF: np.ndarray, rate: float, shift: int) -> np.ndarray:
    """The features as if the stimulus lasted (1 + rate) times as long and had the lag `shift` in the middle, by linear
    interpolation; 0 where there are none."""
    middle, last = len(features_TF) / 2, len(features_TF) - 1
    at = middle + (np.arange(len(features_TF)) - shift - middle) / (1 + rate)
    low = np.clip(np.floor(at).astype(int), 0, last)
    high = np.minimum(low + 1, last)
    share = np.clip(at - low, 0, 1)[:, None].astype(np.float32)
    out = features_TF[low] * (1 - share) + features_TF[high] * share
    out[(at < 0) | (at > last)] = 0
    return out
