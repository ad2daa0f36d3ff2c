"""Features of prices: returns and filters, volatility, oscillators, channels. Compiled by numba at their first use.

Each computes one feature of all bars: kernel(x, n, p, w, out). `x`: float64 [12, N], of columns.py; `n`, `p`: its
parameters; `w`: float64 [n], weights of a filter; `out`: float64 [N], filled from the first bar that has enough bars
before it. The value at a bar is summed again from the bars of its window, always in the same order: a running sum
would keep rounding errors of all bars before, and differ with the beginning of a file.

What cannot be computed (a range of 0, no volume) is 0.
"""

from __future__ import annotations

import math

from training.domains.market.compiling import compiled
from training.domains.market.features.columns import (
    BODY,
    CLOSE,
    GAP,
    HIGH,
    LOW,
    MOVE,
    OPEN,
    RANGE,
    SATCHELL,
    TRUE_RANGE,
    TYPICAL,
    VOLUME,
)

# -- returns and filters -----------------------------------------------------------------------------------------------


@compiled
def change(x, n, p, w, out):
    """ln(c / c of n bars before)."""
    for i in range(n, x.shape[1]):
        out[i] = math.log(x[CLOSE, i] / x[CLOSE, i - n])


@compiled
def gap(x, n, p, w, out):
    """ln(o / c of the bar before)."""
    for i in range(1, x.shape[1]):
        out[i] = x[GAP, i]


@compiled
def filtered(x, n, p, w, out):
    """Sum of w[k] * c of k bars before, relative to c: moving averages and their differences."""
    for i in range(n - 1, x.shape[1]):
        total = 0.0
        for k in range(n):
            total += w[k] * x[CLOSE, i - k]
        out[i] = total / x[CLOSE, i]


@compiled
def efficiency(x, n, p, w, out):
    """Kaufman's (1995) efficiency ratio, with the sign of the move."""
    for i in range(n, x.shape[1]):
        total, path = 0.0, 0.0
        for j in range(i - n + 1, i + 1):
            total += x[MOVE, j]
            path += abs(x[MOVE, j])
        out[i] = total / path if path > 0 else 0.0


# -- volatility --------------------------------------------------------------------------------------------------------


@compiled
def realised(x, n, p, w, out):
    """Root mean square of the last n returns."""
    for i in range(n, x.shape[1]):
        total = 0.0
        for j in range(i - n + 1, i + 1):
            total += x[MOVE, j] * x[MOVE, j]
        out[i] = math.sqrt(total / n)


@compiled
def volatility_ratio(x, n, p, w, out):
    """Volatility of the last n returns relative to that of the last p; n < p."""
    for i in range(p, x.shape[1]):
        short, total = 0.0, 0.0
        for k in range(p):
            total += x[MOVE, i - k] * x[MOVE, i - k]
            if k == n - 1:
                short = total
        out[i] = math.sqrt((short / n) / (total / p)) if total > 0 else 0.0


@compiled
def parkinson(x, n, p, w, out):
    """Parkinson (1980)."""
    for i in range(n - 1, x.shape[1]):
        total = 0.0
        for j in range(i - n + 1, i + 1):
            total += x[RANGE, j] * x[RANGE, j]
        out[i] = math.sqrt(total / (4.0 * n * math.log(2.0)))


@compiled
def garman_klass(x, n, p, w, out):
    """Garman and Klass (1980)."""
    weight = 2.0 * math.log(2.0) - 1.0
    for i in range(n - 1, x.shape[1]):
        total = 0.0
        for j in range(i - n + 1, i + 1):
            total += 0.5 * x[RANGE, j] * x[RANGE, j] - weight * x[BODY, j] * x[BODY, j]
        out[i] = math.sqrt(max(total, 0.0) / n)


@compiled
def rogers_satchell(x, n, p, w, out):
    """Rogers and Satchell (1991)."""
    for i in range(n - 1, x.shape[1]):
        total = 0.0
        for j in range(i - n + 1, i + 1):
            total += x[SATCHELL, j]
        out[i] = math.sqrt(max(total, 0.0) / n)


@compiled
def yang_zhang(x, n, p, w, out):
    """Yang and Zhang (2000)."""
    share = 0.34 / (1.34 + (n + 1.0) / (n - 1.0))
    for i in range(n, x.shape[1]):
        gaps, bodies, inside = 0.0, 0.0, 0.0
        for j in range(i - n + 1, i + 1):
            gaps += x[GAP, j]
            bodies += x[BODY, j]
            inside += x[SATCHELL, j]
        gaps, bodies = gaps / n, bodies / n
        overnight, daily = 0.0, 0.0
        for j in range(i - n + 1, i + 1):
            overnight += (x[GAP, j] - gaps) ** 2
            daily += (x[BODY, j] - bodies) ** 2
        variance = overnight / (n - 1) + share * daily / (n - 1) + (1 - share) * inside / n
        out[i] = math.sqrt(max(variance, 0.0))


@compiled
def true_range(x, n, p, w, out):
    """Average true range (Wilder 1978, with equal weights), relative to c."""
    for i in range(n, x.shape[1]):
        total = 0.0
        for j in range(i - n + 1, i + 1):
            total += x[TRUE_RANGE, j]
        out[i] = total / n / x[CLOSE, i]


# -- oscillators -------------------------------------------------------------------------------------------------------


@compiled
def rsi(x, n, p, w, out):
    """Relative strength index with equal weights (Cutler), from -1 to 1."""
    for i in range(n, x.shape[1]):
        total, path = 0.0, 0.0
        for j in range(i - n + 1, i + 1):
            step = x[CLOSE, j] - x[CLOSE, j - 1]
            total += step
            path += abs(step)
        out[i] = total / path if path > 0 else 0.0


@compiled
def stochastic(x, n, p, w, out):
    """Position of c in the range of n bars, from 0 to 1, averaged over the last p bars (Lane 1984)."""
    for i in range(n + p - 2, x.shape[1]):
        total = 0.0
        for end in range(i - p + 1, i + 1):
            high, low = x[HIGH, end], x[LOW, end]
            for j in range(end - n + 1, end):
                high, low = max(high, x[HIGH, j]), min(low, x[LOW, j])
            total += (x[CLOSE, end] - low) / (high - low) if high > low else 0.5
        out[i] = total / p


@compiled
def cci(x, n, p, w, out):
    """Commodity channel index (Lambert 1980), divided by 100."""
    for i in range(n - 1, x.shape[1]):
        mean = 0.0
        for j in range(i - n + 1, i + 1):
            mean += x[TYPICAL, j]
        mean /= n
        spread = 0.0
        for j in range(i - n + 1, i + 1):
            spread += abs(x[TYPICAL, j] - mean)
        out[i] = (x[TYPICAL, i] - mean) / (1.5 * spread / n) if spread > 0 else 0.0


@compiled
def direction(x, n, p, w, out):
    """Directional movement (Wilder 1978, with equal weights): p = 0: (DI+ - DI-) / (DI+ + DI-); p > 0: its absolute
    value, averaged over the last p bars (ADX)."""
    spans = max(p, 1)
    for i in range(n + spans - 1, x.shape[1]):
        total = 0.0
        for end in range(i - spans + 1, i + 1):
            plus, minus = 0.0, 0.0
            for j in range(end - n + 1, end + 1):
                up, down = x[HIGH, j] - x[HIGH, j - 1], x[LOW, j - 1] - x[LOW, j]
                if up > down and up > 0:
                    plus += up
                elif down > up and down > 0:
                    minus += down
            value = (plus - minus) / (plus + minus) if plus + minus > 0 else 0.0
            total += value if p == 0 else abs(value)
        out[i] = total / spans


# -- channels ----------------------------------------------------------------------------------------------------------


@compiled
def bollinger(x, n, p, w, out):
    """Bollinger's bands of two standard deviations: p = 0: position of c, -1 and 1 at the bands; p = 1: their width
    relative to the mean."""
    for i in range(n - 1, x.shape[1]):
        mean = 0.0
        for j in range(i - n + 1, i + 1):
            mean += x[CLOSE, j]
        mean /= n
        square = 0.0
        for j in range(i - n + 1, i + 1):
            square += (x[CLOSE, j] - mean) ** 2
        deviation = math.sqrt(square / n)
        if p == 1:
            out[i] = 4 * deviation / mean
        else:
            out[i] = (x[CLOSE, i] - mean) / (2 * deviation) if deviation > 0 else 0.0


@compiled
def keltner(x, n, p, w, out):
    """Distance of c from its filtered value (w, n weights), in two average true ranges of p bars; p < n."""
    for i in range(n - 1, x.shape[1]):
        mean, ranges = 0.0, 0.0
        for k in range(n):
            mean += w[k] * x[CLOSE, i - k]
        for k in range(p):
            ranges += x[TRUE_RANGE, i - k]
        out[i] = (x[CLOSE, i] - mean) / (2 * ranges / p) if ranges > 0 else 0.0


@compiled
def vwap(x, n, p, w, out):
    """ln(c / average price of n bars, weighted by volume)."""
    for i in range(n - 1, x.shape[1]):
        volume, paid = 0.0, 0.0
        for j in range(i - n + 1, i + 1):
            volume += x[VOLUME, j]
            paid += x[VOLUME, j] * x[TYPICAL, j]
        out[i] = math.log(x[CLOSE, i] / (paid / volume)) if volume > 0 else 0.0


@compiled
def candle(x, n, p, w, out):
    """Parts of a bar's range: p = 0: body with its sign; 1: upper wick; 2: lower wick."""
    for i in range(x.shape[1]):
        height = x[HIGH, i] - x[LOW, i]
        if p == 0:
            part = x[CLOSE, i] - x[OPEN, i]
        elif p == 1:
            part = x[HIGH, i] - max(x[CLOSE, i], x[OPEN, i])
        else:
            part = min(x[CLOSE, i], x[OPEN, i]) - x[LOW, i]
        out[i] = part / height if height > 0 else 0.0
