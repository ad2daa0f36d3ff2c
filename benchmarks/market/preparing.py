"""What the exact ways of preparing bars cost, against the usual ways, on one core.

Features are summed again for every window, so that they have the same bits in every file; pandas updates running sums.
Only features with a vectorised formula in pandas are compared. Labels are compared with a loop in Python. Combinatorial
splits are compared with snippet 7.1 of Lopez de Prado (2018) in pandas, as printed: three filters for each held-out
label.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.harness import Row, median, paired
from training.domains.market.bars.cleaning import Minutes, clean
from training.domains.market.bars.timeframes import BASE, Bars, bars_of, stretches
from training.domains.market.bars.times import MINUTE
from training.domains.market.demo.making import open_minutes
from training.domains.market.demo.world import make
from training.domains.market.features.computing import of_bars
from training.domains.market.features.declared import FEATURES
from training.domains.market.labels.barriers import label
from training.domains.market.labels.costs import Barriers
from training.domains.market.splits.purging import Spans, combinatorial

if TYPE_CHECKING:
    import pandas as pd

LIMITS = Barriers(3.0, 2.1, 50)


def measure(small: bool) -> list[Row]:
    minutes = _market(20_000 if small else 150_000)
    base = bars_of(minutes, BASE)
    rounds = 1 if small else 5
    return [_features(base, rounds), _labels(minutes, base, rounds), _splits(100 if small else 1_500)]


def _market(count: int) -> Minutes:
    minute = open_minutes(count)
    world = make(minute, 1, has_direction=False)
    raw = {name: getattr(world, name) for name in ("open", "high", "low", "close", "volume")}
    return clean("MES", raw | {"time": minute * MINUTE, "naive": np.zeros(1), "first_line": np.ones(1)})[0]


# -- features ----------------------------------------------------------------------------------------------------------


def _features(base: Bars, rounds: int) -> Row:
    import pandas as pd

    frame = pd.DataFrame(base.values.T, columns=["o", "h", "l", "c", "v"])
    known = {feature.name: formula for feature in FEATURES if (formula := _formula(feature.name)) is not None}
    own = [feature for feature in FEATURES if feature.name in known]
    both = paired(lambda: of_bars(base, own), lambda: [formula(frame) for formula in known.values()], rounds)
    rate = len(base) / median(both.ours)
    what = "features, exact windows against pandas"
    note = f"{len(base):,} bars, {len(own)} features; {rate:,.0f} bars a second"
    return Row("13b", what, median(both.ours), median(both.reference), "s", both.ratio, ">= 0.8x", both.ratio >= 0.8,
               note, both.spread)  # fmt: skip


def _formula(name: str) -> Callable[[pd.DataFrame], pd.Series] | None:
    """The vectorised formula of a feature in pandas; None: there is none."""
    timeframe, _, rest = name.partition("_")
    if timeframe != BASE:
        return None
    word, *numbers = rest.rsplit("_") if not rest.startswith(("garman", "rogers", "yang")) else (rest, "20")
    n = int(numbers[0]) if numbers and numbers[0].isdigit() else 0

    def move(f: pd.DataFrame) -> pd.Series:
        return np.log(f.c / f.c.shift())

    formulas: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
        "ret": lambda f: np.log(f.c / f.c.shift(n)),
        "roc": lambda f: np.log(f.c / f.c.shift(n)),
        "efficiency": lambda f: move(f).rolling(n).sum() / move(f).abs().rolling(n).sum(),
        "realised": lambda f: np.sqrt((move(f) ** 2).rolling(n).mean()),
        "parkinson": lambda f: np.sqrt((np.log(f.h / f.l) ** 2).rolling(n).mean() / (4 * np.log(2))),
        "atr": lambda f: _true_range(f).rolling(n).mean() / f.c,
        "rsi": lambda f: f.c.diff().rolling(n).sum() / f.c.diff().abs().rolling(n).sum(),
        "sma": lambda f: 1 - f.c.rolling(n).mean() / f.c,
        "ema": lambda f: 1 - f.c.ewm(span=n, adjust=False).mean() / f.c,
        "macd": lambda f: (f.c.ewm(span=12).mean() - f.c.ewm(span=26).mean()) / f.c,
        "stochastic": lambda f: (f.c - f.l.rolling(n).min()) / (f.h.rolling(n).max() - f.l.rolling(n).min()),
        "williams": lambda f: (f.c - f.l.rolling(n).min()) / (f.h.rolling(n).max() - f.l.rolling(n).min()),
        "bollinger": lambda f: (f.c - f.c.rolling(n).mean()) / (2 * f.c.rolling(n).std(ddof=0)),
        "bandwidth": lambda f: 4 * f.c.rolling(n).std(ddof=0) / f.c.rolling(n).mean(),
        "vwap": lambda f: np.log(f.c / ((f.v * (f.h + f.l + f.c) / 3).rolling(n).sum() / f.v.rolling(n).sum())),
        "volume": lambda f: f.v / f.v.rolling(n).mean(),
        "obv": lambda f: (np.sign(f.c.diff()) * f.v).rolling(n).sum() / f.v.rolling(n).sum(),
        "skew": lambda f: move(f).rolling(n).skew(),
        "kurtosis": lambda f: move(f).rolling(n).kurt(),
        "body": lambda f: (f.c - f.o) / (f.h - f.l),
    }
    return formulas.get(word)


def _true_range(frame: pd.DataFrame) -> pd.Series:
    before = frame.c.shift()
    return np.maximum(frame.h, before) - np.minimum(frame.l, before)


# -- labels ------------------------------------------------------------------------------------------------------------


def _labels(minutes: Minutes, base: Bars, rounds: int) -> Row:
    bar = np.arange(20, len(base) - LIMITS.bars - 1)
    atr = np.full(len(bar), 3.0)
    some = np.arange(0, len(bar), 20)  # the loop is slow: it labels every twentieth
    both = paired(
        lambda: label(minutes, base, bar, atr, np.zeros(len(bar)), LIMITS),
        lambda: _loop(minutes, base, bar[some], 3.0), max(1, rounds // 2),
    )  # fmt: skip
    ratio = both.ratio * len(bar) / len(some)
    note = f"{len(bar):,} decisions, {LIMITS.bars} bars; the loop labels every 20th, scaled"
    reference = median(both.reference) * len(bar) / len(some)
    return Row("13c", "labels against a loop in Python", median(both.ours), reference, "s", ratio, ">= 25x",
               ratio >= 25, note, both.spread)  # fmt: skip


def _loop(minutes: Minutes, base: Bars, bars: np.ndarray, atr: float) -> list[int]:
    run = stretches(minutes, base, 5)
    first, high, low = (getattr(minutes, name).tolist() for name in ("open", "high", "low"))
    out = []
    for bar in bars.tolist():
        begin, code = int(base.first[bar + 1]), 1
        upper, lower = first[begin] + LIMITS.up * atr, first[begin] - LIMITS.down * atr
        for b in range(bar + 1, bar + LIMITS.bars + 1):
            if code != 1 or run[b] != run[bar]:
                break
            for j in range(base.first[b], base.last[b]):
                if low[j] <= lower or high[j] >= upper:
                    code = 0 if low[j] <= lower else 2
                    break
        out.append(code)
    return out


# -- splits ------------------------------------------------------------------------------------------------------------


def _splits(count: int) -> Row:
    random = np.random.default_rng(0)
    begins = np.arange(count) * 5
    spans = Spans(begins, begins + random.integers(5, 250, count))
    both = paired(lambda: list(combinatorial(spans, purge=0, embargo=0)), lambda: _snippet(spans), 1, warm=0)
    note = f"{count:,} decisions, 15 splits"
    return Row("13d", "combinatorial purged splits against snippet 7.1", median(both.ours), median(both.reference), "s",
               both.ratio, ">= 100x", both.ratio >= 100, note, both.spread)  # fmt: skip


def _snippet(spans: Spans) -> list[pd.Series]:
    import pandas as pd

    times = pd.Series(spans.ends, index=spans.begins)
    splits = combinatorial(spans, purge=0, embargo=0)
    out = []
    for _, held in splits:
        train = times.copy()
        for begin, end in times.iloc[held].items():
            inside = train[(begin <= train.index) & (train.index <= end)].index
            ends_inside = train[(begin <= train) & (train <= end)].index
            around = train[(train.index <= begin) & (end <= train)].index
            train = train.drop(inside.union(ends_inside).union(around))
        out.append(train)
    return out
