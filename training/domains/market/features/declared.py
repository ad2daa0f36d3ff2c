"""The features: each with its name, its timeframe, the number of trailing bars that it needs, and its function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from training.domains.market.features import flows, prices

#: What a feature tells: how far prices move, how much is traded, or whereto they move.
Kind = Literal["volatility", "volume", "direction"]


@dataclass(frozen=True, eq=False)
class Feature:
    """One feature of one timeframe. Its value at a bar is a function of that bar and the `bars` - 1 before it."""

    name: str  # "m5_rsi_14"
    timeframe: str
    bars: int
    kernel: Callable[..., None]
    n: int
    p: int = 0
    weights: np.ndarray | None = None
    kind: Kind = "direction"


# -- filters on closes -------------------------------------------------------------------------------------------------

CUT = 3  # an exponential average of span s is cut off after CUT * s bars (weights below 0.3 % of the first)


def simple(n: int) -> np.ndarray:
    """Weights of a simple moving average, newest first: float64 [n]."""
    return np.full(n, 1 / n)


def exponential(span: int) -> np.ndarray:
    """Weights of an exponential moving average, newest first, cut off and made to sum to 1: float64 [CUT * span]."""
    weights = (1 - 2 / (span + 1)) ** np.arange(CUT * span)
    return weights / weights.sum()


def above(average: np.ndarray) -> np.ndarray:
    """Weights of the last close less an average."""
    weights = -average
    weights[0] += 1
    return weights


def macd(fast: int = 12, slow: int = 26, signal: int = 0) -> np.ndarray:
    """Weights of the MACD line (Appel 1979), or of the line less its signal."""
    line = -exponential(slow)
    line[: CUT * fast] += exponential(fast)
    if not signal:
        return line
    smooth = np.convolve(line, exponential(signal))
    smooth[: len(line)] -= line
    return -smooth


# -- the table ---------------------------------------------------------------------------------------------------------

#: Name -> (kernel, bars needed as a function of n and p, kind).
KERNELS: dict[str, tuple[Callable[..., None], Callable[[int, int], int], Kind]] = {
    "ret": (prices.change, lambda n, p: n + 1, "direction"),
    "roc": (prices.change, lambda n, p: n + 1, "direction"),
    "gap": (prices.gap, lambda n, p: 2, "direction"),
    "efficiency": (prices.efficiency, lambda n, p: n + 1, "direction"),
    "realised": (prices.realised, lambda n, p: n + 1, "volatility"),
    "volratio": (prices.volatility_ratio, lambda n, p: p + 1, "volatility"),
    "parkinson": (prices.parkinson, lambda n, p: n, "volatility"),
    "garman_klass": (prices.garman_klass, lambda n, p: n, "volatility"),
    "rogers_satchell": (prices.rogers_satchell, lambda n, p: n, "volatility"),
    "yang_zhang": (prices.yang_zhang, lambda n, p: n + 1, "volatility"),
    "atr": (prices.true_range, lambda n, p: n + 1, "volatility"),
    "rsi": (prices.rsi, lambda n, p: n + 1, "direction"),
    "stochastic": (prices.stochastic, lambda n, p: n + p - 1, "direction"),
    "williams": (prices.stochastic, lambda n, p: n + p - 1, "direction"),
    "cci": (prices.cci, lambda n, p: n, "direction"),
    "adx": (prices.direction, lambda n, p: n + p, "volatility"),
    "di": (prices.direction, lambda n, p: n + 1, "direction"),
    "bollinger": (prices.bollinger, lambda n, p: n, "direction"),
    "bandwidth": (prices.bollinger, lambda n, p: n, "volatility"),
    "vwap": (prices.vwap, lambda n, p: n, "direction"),
    "body": (prices.candle, lambda n, p: 1, "direction"),
    "upper": (prices.candle, lambda n, p: 1, "direction"),
    "lower": (prices.candle, lambda n, p: 1, "direction"),
    "volume": (flows.relative_volume, lambda n, p: n, "volume"),
    "obv": (flows.on_balance, lambda n, p: n + 1, "direction"),
    "mfi": (flows.money_flow, lambda n, p: n + 1, "direction"),
    "amihud": (flows.amihud, lambda n, p: p + 1, "volume"),
    "roll": (flows.roll, lambda n, p: n + 2, "volatility"),
    "corwin_schultz": (flows.corwin_schultz, lambda n, p: n + 1, "volatility"),
    "kyle": (flows.kyle, lambda n, p: n + 1, "volume"),
    "variance_ratio": (flows.variance_ratio, lambda n, p: n + 1, "volatility"),
    "skew": (flows.moment, lambda n, p: n + 1, "direction"),
    "kurtosis": (flows.moment, lambda n, p: n + 1, "volatility"),
    "autocorrelation": (flows.autocorrelation, lambda n, p: n + 1, "volatility"),
}
#: Names whose second parameter is fixed.
FIXED = {"williams": 1, "bandwidth": 1, "upper": 1, "lower": 2, "skew": 3, "kurtosis": 4}
FILTERS: dict[str, Callable[[int], np.ndarray]] = {
    "sma": lambda n: above(simple(n)),
    "ema": lambda n: above(exponential(n)),
    "macd": lambda n: macd(),
    "macd_signal": lambda n: macd(signal=9),
}
#: Timeframe -> its features: a name, and its parameters n and p.
TABLE: dict[str, str] = {
    "m5": (
        "ret 1, ret 2, ret 3, ret 5, ret 10, ret 20, ret 50, roc 12, efficiency 10, efficiency 20, "
        "realised 10, realised 20, realised 50, volratio 10 50, parkinson 20, garman_klass 20, rogers_satchell 20, "
        "yang_zhang 20, atr 14, rsi 7, rsi 14, sma 10, sma 20, sma 50, ema 9, ema 21, ema 50, macd 26, macd_signal 26, "
        "stochastic 14 1, stochastic 14 3, williams 28, cci 20, adx 14 14, di 14, bollinger 20, bandwidth 20, "
        "keltner 20 14, vwap 12, vwap 78, volume 10, volume 50, obv 10, obv 20, mfi 14, amihud 10 50, roll 20, "
        "corwin_schultz 10, kyle 20, variance_ratio 20 2, variance_ratio 50 5, skew 50, kurtosis 50, "
        "autocorrelation 20 1, autocorrelation 50 1, body 1, upper 1, lower 1"
    ),
    "m15": (
        "ret 1, ret 3, ret 5, ret 10, ret 20, realised 10, realised 20, yang_zhang 20, atr 14, rsi 14, sma 20, ema 21, "
        "macd_signal 26, stochastic 14 1, cci 20, adx 14 14, di 14, bollinger 20, bandwidth 20, keltner 20 14, "
        "vwap 26, volume 20, obv 20, mfi 14, kyle 20, variance_ratio 20 2, efficiency 10"
    ),
    "m30": (
        "ret 1, ret 3, ret 5, ret 10, realised 20, yang_zhang 20, rsi 14, ema 21, macd_signal 26, stochastic 14 1, "
        "adx 14 14, di 14, bollinger 20, bandwidth 20, volume 20, efficiency 10"
    ),
    "h1": (
        "ret 1, ret 3, ret 5, ret 10, ret 20, realised 10, realised 20, parkinson 20, atr 14, rsi 14, sma 20, ema 21, "
        "macd_signal 26, stochastic 14 1, adx 14 14, di 14, bollinger 20, bandwidth 20, volume 20, obv 20, "
        "efficiency 10, skew 20"
    ),
    "h4": (
        "ret 1, ret 3, ret 5, ret 10, realised 10, atr 14, rsi 14, sma 10, stochastic 14 1, bollinger 10, volume 10, "
        "efficiency 10"
    ),
    "d1": "ret 1, ret 2, ret 5, gap 1, realised 5, atr 5, rsi 5, sma 5, stochastic 5 1, volume 5",
}  # fmt: skip
#: Functions of the time of the decision alone.
TIMES = ("time_day_sin", "time_day_cos", "time_week_sin", "time_week_cos", "time_since_open")
#: The first feature of the base timeframe whose value is the ATR by which labels are scaled.
ATR = "m5_atr_14"


def _features() -> Iterator[Feature]:
    for timeframe, entries in TABLE.items():
        for entry in entries.split(","):
            word, *numbers = entry.split()
            n, p = [*map(int, numbers), 0][:2]
            name = f"{timeframe}_{'_'.join([word, *numbers])}"
            if word in FILTERS:
                weights = FILTERS[word](n)
                yield Feature(name, timeframe, len(weights), prices.filtered, len(weights), 0, weights)
            elif word == "keltner":
                weights = exponential(n)
                yield Feature(name, timeframe, len(weights), prices.keltner, len(weights), p, weights)
            else:
                kernel, bars, kind = KERNELS[word]
                p = FIXED.get(word, p)
                yield Feature(name, timeframe, bars(n, p), kernel, n, p, kind=kind)


FEATURES: tuple[Feature, ...] = tuple(_features())
NAMES: tuple[str, ...] = (*(feature.name for feature in FEATURES), *TIMES)
#: What tells how far the price may move, and not whereto: the inputs of the volatility-only model.
UNDIRECTED: tuple[str, ...] = (
    *(feature.name for feature in FEATURES if feature.kind in ("volatility", "volume")), *TIMES,
)  # fmt: skip


def described() -> list[dict[str, Any]]:
    """Every feature as JSON, for features.json."""
    own = [{"name": f.name, "timeframe": f.timeframe, "bars": f.bars, "kind": f.kind} for f in FEATURES]
    return own + [{"name": name, "timeframe": "m5", "bars": 1, "kind": "time"} for name in TIMES]
