"""Features of volume and liquidity, and of the distribution of returns: kernels as in prices.py."""

from __future__ import annotations

import math

from training.domains.market.compiling import compiled
from training.domains.market.features.columns import CLOSE, HIGH, LOW, MOVE, RANGE, TYPICAL, VOLUME

# -- volume and liquidity ----------------------------------------------------------------------------------------------


@compiled
def relative_volume(x, n, p, w, out):
    """Volume relative to the mean of n bars."""
    for i in range(n - 1, x.shape[1]):
        total = 0.0
        for j in range(i - n + 1, i + 1):
            total += x[VOLUME, j]
        out[i] = x[VOLUME, i] * n / total if total > 0 else 0.0


@compiled
def on_balance(x, n, p, w, out):
    """Volume with the sign of the move, relative to all volume: the slope of the on-balance volume."""
    for i in range(n, x.shape[1]):
        signed, total = 0.0, 0.0
        for j in range(i - n + 1, i + 1):
            move = x[MOVE, j]
            signed += x[VOLUME, j] if move > 0 else -x[VOLUME, j] if move < 0 else 0.0
            total += x[VOLUME, j]
        out[i] = signed / total if total > 0 else 0.0


@compiled
def money_flow(x, n, p, w, out):
    """Money flow index (Quong and Soudack 1989), from -1 to 1."""
    for i in range(n, x.shape[1]):
        signed, total = 0.0, 0.0
        for j in range(i - n + 1, i + 1):
            flow, step = x[VOLUME, j] * x[TYPICAL, j], x[TYPICAL, j] - x[TYPICAL, j - 1]
            if step > 0:
                signed += flow
            elif step < 0:
                signed -= flow
            if step != 0:
                total += flow
        out[i] = signed / total if total > 0 else 0.0


@compiled
def amihud(x, n, p, w, out):
    """Ln of Amihud's (2002) illiquidity (absolute return by traded value) over n bars relative to p; n < p."""
    for i in range(p, x.shape[1]):
        short, total = 0.0, 0.0
        for k in range(p):
            traded = x[VOLUME, i - k] * x[TYPICAL, i - k]
            if traded > 0:
                total += abs(x[MOVE, i - k]) / traded
            if k == n - 1:
                short = total
        out[i] = math.log((short / n) / (total / p)) if short > 0 else 0.0


@compiled
def roll(x, n, p, w, out):
    """Spread of Roll (1984): 2 * sqrt(-covariance of successive returns); 0 if the covariance is positive."""
    for i in range(n + 1, x.shape[1]):
        mean = 0.0
        for j in range(i - n + 1, i + 1):
            mean += x[MOVE, j]
        mean /= n
        total = 0.0
        for j in range(i - n + 1, i + 1):
            total += (x[MOVE, j] - mean) * (x[MOVE, j - 1] - mean)
        out[i] = 2 * math.sqrt(max(0.0, -total / n))


@compiled
def corwin_schultz(x, n, p, w, out):
    """Spread of Corwin and Schultz (2012), averaged over n pairs of bars; negative ones count as 0."""
    root = 3.0 - 2.0 * math.sqrt(2.0)
    for i in range(n, x.shape[1]):
        total = 0.0
        for j in range(i - n + 1, i + 1):
            beta = x[RANGE, j] ** 2 + x[RANGE, j - 1] ** 2
            both = math.log(max(x[HIGH, j], x[HIGH, j - 1]) / min(x[LOW, j], x[LOW, j - 1]))
            alpha = (math.sqrt(2 * beta) - math.sqrt(beta)) / root - math.sqrt(both * both / root)
            if alpha > 0:
                total += 2 * (math.exp(alpha) - 1) / (1 + math.exp(alpha))
        out[i] = total / n


@compiled
def kyle(x, n, p, w, out):
    """Kyle's (1985) lambda: slope of returns on signed volume, times the mean volume."""
    for i in range(n, x.shape[1]):
        product, square, volume = 0.0, 0.0, 0.0
        for j in range(i - n + 1, i + 1):
            move = x[MOVE, j]
            product += abs(move) * x[VOLUME, j]
            square += x[VOLUME, j] * x[VOLUME, j] if move != 0 else 0.0
            volume += x[VOLUME, j]
        out[i] = product / square * volume / n if square > 0 else 0.0


# -- distribution of returns -------------------------------------------------------------------------------------------


@compiled
def variance_ratio(x, n, p, w, out):
    """Variance of returns over p bars relative to p times that of one bar, less 1 (Lo and MacKinlay 1988)."""
    for i in range(n, x.shape[1]):
        mean = math.log(x[CLOSE, i] / x[CLOSE, i - n]) / n
        single, several = 0.0, 0.0
        for j in range(i - n + 1, i + 1):
            single += (x[MOVE, j] - mean) ** 2
        for j in range(i - n + p, i + 1):
            total = 0.0
            for k in range(p):
                total += x[MOVE, j - k]
            several += (total - p * mean) ** 2
        out[i] = (several / (n - p + 1)) / (p * single / n) - 1 if single > 0 else 0.0


@compiled
def moment(x, n, p, w, out):
    """Skewness (p = 3) or excess kurtosis (p = 4) of n returns."""
    for i in range(n, x.shape[1]):
        mean = 0.0
        for j in range(i - n + 1, i + 1):
            mean += x[MOVE, j]
        mean /= n
        square, high = 0.0, 0.0
        for j in range(i - n + 1, i + 1):
            away = x[MOVE, j] - mean
            square += away * away
            high += away**p
        square /= n
        if square > 0:
            out[i] = high / n / square ** (p / 2) - (3.0 if p == 4 else 0.0)
        else:
            out[i] = 0.0


@compiled
def autocorrelation(x, n, p, w, out):
    """Autocorrelation of n returns at lag p."""
    for i in range(n, x.shape[1]):
        mean = 0.0
        for j in range(i - n + 1, i + 1):
            mean += x[MOVE, j]
        mean /= n
        square, product = 0.0, 0.0
        for j in range(i - n + 1, i + 1):
            square += (x[MOVE, j] - mean) ** 2
            if j - p > i - n:
                product += (x[MOVE, j] - mean) * (x[MOVE, j - p] - mean)
        out[i] = product / square if square > 0 else 0.0
