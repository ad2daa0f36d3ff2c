"""exp, log and powers from additions, multiplications and divisions alone, which IEEE 754 rounds the same everywhere.

`np.exp` and `np.power` differ in their last bits between maths libraries and vector units; these functions do not, so
results computed with them have the same bytes on any machine. Their error is a few units in the last place.
"""

from __future__ import annotations

import numpy as np

_LOG2_E = 1.4426950408889634
_LN2_HIGH = 0.693147180369123816490  # the first 33 bits of ln 2: n * _LN2_HIGH is exact for |n| < 2^20
_LN2_LOW = 1.90821492927058770002e-10  # the rest
_LN2 = 0.6931471805599453
_EXP_COEFFICIENTS = (
    1 / 6227020800, 1 / 479001600, 1 / 39916800, 1 / 3628800, 1 / 362880, 1 / 40320, 1 / 5040, 1 / 720, 1 / 120,
    1 / 24, 1 / 6, 0.5, 1.0, 1.0,
)  # fmt: skip
_LOG_TERMS = 12
_SQRT_HALF = 0.7071067811865476


def exp(x: np.ndarray) -> np.ndarray:
    """e to the x, float64; arguments outside [-700, 700] are clipped to it.

    Range reduction to |r| <= ln 2 / 2 and a Taylor polynomial of degree 13 (remainder below 2^-60).
    """
    x = np.clip(np.asarray(x, np.float64), -700.0, 700.0)
    n = np.rint(x * _LOG2_E)
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    value = np.full_like(r, _EXP_COEFFICIENTS[0])
    for coefficient in _EXP_COEFFICIENTS[1:]:
        value *= r
        value += coefficient
    power_of_two = ((n.astype(np.int64) + 1023) << 52).view(np.float64)
    return value * power_of_two


def log(x: np.ndarray) -> np.ndarray:
    """Natural logarithm of x > 0, float64: ln m = 2 atanh((m - 1) / (m + 1)) with m in [sqrt 1/2, sqrt 2)."""
    mantissa, exponent = np.frexp(np.asarray(x, np.float64))
    low = mantissa < _SQRT_HALF
    mantissa = np.where(low, mantissa * 2, mantissa)
    exponent = exponent - low
    s = (mantissa - 1) / (mantissa + 1)
    square = s * s
    series = np.full_like(s, 1 / (2 * _LOG_TERMS + 1))
    for k in range(_LOG_TERMS - 1, -1, -1):
        series *= square
        series += 1 / (2 * k + 1)
    return exponent * _LN2 + 2 * s * series


def power(x: np.ndarray, exponent: float) -> np.ndarray:
    """x to the exponent for x >= 0 (0 stays 0), float64."""
    x = np.asarray(x, np.float64)
    positive = x > 0
    return np.where(positive, exp(exponent * log(np.where(positive, x, 1.0))), 0.0)
