"""Costs of a round trip, and the barriers of each symbol and horizon."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.config import read_yaml
from training.data.files import printable
from training.errors import DataError, UsageError

HORIZONS = (5, 10, 15, 20)  # the labels' names; Barriers.bars is the time limit
WILD = 1.25  # volatility of the last 10 base bars relative to the last 50 above which fills are worse


@dataclass(frozen=True)
class Barriers:
    """In ATRs, and the time limit in base bars. The upper barrier is further away by the costs."""

    up: float
    down: float
    bars: int


@dataclass(frozen=True)
class Costs:
    """Of a round trip, in ticks: the spread once, and slippage at the entry and at the exit."""

    tick: float  # price of one tick
    spread: float
    calm: float  # slippage of one fill
    wild: float

    def of(self, volatility_ratio: np.ndarray) -> np.ndarray:
        """The costs in units of the price. `volatility_ratio`: the feature m5_volratio_10_50 at the decision."""
        slippage = np.where(volatility_ratio > WILD, self.wild, self.calm)
        return (self.spread + 2 * slippage) * self.tick


#: Symbol -> horizon -> barriers.
BARRIERS: dict[str, dict[int, Barriers]] = {
    "MES": {
        5: Barriers(1.5, 1.0, 12), 10: Barriers(2.0, 1.4, 25), 15: Barriers(2.5, 1.75, 38), 20: Barriers(3.0, 2.1, 50),
    },
    "MGC": {
        5: Barriers(1.2, 1.2, 12), 10: Barriers(1.6, 1.6, 25), 15: Barriers(2.0, 2.0, 38), 20: Barriers(2.5, 2.5, 50),
    },
}  # fmt: skip
#: Of other symbols; the two longer horizons have the barriers of horizon 10.
OTHERS = {5: Barriers(1.35, 1.1, 12), 10: Barriers(1.8, 1.35, 25)}
COSTS: dict[str, Costs] = {
    "MES": Costs(0.25, 0.5, 0.5, 1.0),
    "MGC": Costs(0.10, 0.3, 0.75, 1.5),
}
for _demo in ("PLANTED", "NULL"):  # the demo's markets have the price and the tick of MES
    BARRIERS[_demo], COSTS[_demo] = BARRIERS["MES"], COSTS["MES"]
EXAMPLE = "{symbol}: {{tick: 0.25, spread: 0.5, slippage: [0.5, 1.0]}}"


def barriers_of(symbol: str, horizon: int) -> Barriers:
    """The barriers of a symbol. Raises UsageError for an unknown horizon."""
    if horizon not in HORIZONS:
        raise UsageError(f"--horizon {horizon}: it is one of {', '.join(map(str, HORIZONS))}.")
    return BARRIERS.get(symbol, {}).get(horizon) or OTHERS[min(horizon, 10)]


def costs_of(symbol: str, own: Mapping[str, Costs]) -> Costs:
    """The costs of a symbol: the user's, else the known ones. Raises UsageError for a symbol without costs."""
    found = own.get(symbol) or COSTS.get(symbol)
    if found is None:
        raise UsageError(
            f"The costs of {symbol} are not known; without costs, every edge looks real. Write a file with the line\n"
            f"  {EXAMPLE.format(symbol=symbol)}\n"
            "(price of a tick; spread and slippage of a fill, calm and wild, in ticks) and give it as --costs FILE."
        )
    return found


def read_costs(path: Path | None) -> dict[str, Costs]:
    """Symbol -> its costs, from the user's YAML file. Raises UsageError for no YAML or a symbol with two lines,
    DataError that names line, symbol and key."""
    if path is None:
        return {}
    layer = read_yaml(path)
    if not layer.values:
        raise DataError(f"{printable(path)}: a line for each symbol is needed: {EXAMPLE.format(symbol='MES')}")
    for name in layer.values:
        if not isinstance(name, str):  # NO is false in YAML, and 6 a number
            raise DataError(f"{printable(path)}: YAML reads the name of a symbol as {name!r}; write it in quotes.")
    return {name: _costs(layer.places[name], name, entry) for name, entry in layer.values.items()}


def _costs(place: str, symbol: str, entry: Any) -> Costs:
    known = {"tick", "spread", "slippage"}
    try:
        if not isinstance(entry, dict) or set(entry) != known:
            raise ValueError(f"the keys are {', '.join(sorted(known))}")
        slippage = entry["slippage"]
        if not isinstance(slippage, list) or len(slippage) != 2:
            raise ValueError("slippage is two numbers, calm and wild: [0.5, 1.0]")
        values = [entry["tick"], entry["spread"], *slippage]
        wrong = [value for value in values if isinstance(value, bool) or not isinstance(value, (int, float))]
        if wrong:
            raise ValueError(f"{wrong[0]!r} is no number")
        numbers = [float(value) for value in values]
        if not all(np.isfinite(numbers)) or numbers[0] <= 0 or min(numbers) < 0:
            raise ValueError("a tick is above 0, and costs are not below it")
    except ValueError as error:
        raise DataError(f"{place}: {symbol}: {error}. A line is {EXAMPLE.format(symbol=symbol)}") from None
    return Costs(*numbers)


def unused_costs(own: Mapping[str, Costs], symbols: Iterable[str]) -> str | None:
    """A line about symbols of the costs file that no file of bars has: their names may be misspelt."""
    absent = [name for name in own if name not in set(symbols)]
    return f"costs of {', '.join(map(printable, absent))}: there are no such bars" if absent else None


# -- the tick ----------------------------------------------------------------------------------------------------------

LEAST_STEP = 1e-9  # prices relative to which nothing is a step


def step_of(prices: np.ndarray) -> float | None:
    """The step of which the prices (float64 [n]) are multiples, but for one in a hundred; None where there is none, as
    in prices that are adjusted by ratios."""
    levels = np.unique(prices)
    if len(levels) < 3:
        return None
    gaps = np.diff(levels)
    gaps = gaps[gaps > LEAST_STEP * levels[-1]]
    if not len(gaps):
        return None
    step = float(np.quantile(gaps, 0.01))
    off = np.abs(prices / step - np.round(prices / step))
    return step if (off < 0.01).mean() >= 0.99 else None


def remark_on_tick(prices: np.ndarray, tick: float) -> str | None:
    """A line where the prices move in other steps than the tick of the costs; None where they fit, or tell nothing."""
    step = step_of(prices)
    if step is None or 0.67 < step / tick < 1.5:
        return None
    return (
        f"the prices move in steps of {step:.6g}, but its costs have a tick of {tick:g}, which is a step of the price "
        "and not its value in money. Costs are counted in ticks"
    )
