"""Costs of a round trip, and the barriers of each symbol and horizon."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

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
    """Symbol -> its costs, from the user's YAML file. Raises DataError that names the symbol and the key."""
    if path is None:
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{printable(path)} is no YAML: {error}") from None
    if not isinstance(content, dict):
        raise DataError(f"{printable(path)}: a line for each symbol is needed: {EXAMPLE.format(symbol='MES')}")
    return {str(symbol): _costs(path, str(symbol), entry) for symbol, entry in content.items()}


def _costs(path: Path, symbol: str, entry: Any) -> Costs:
    known = {"tick", "spread", "slippage"}
    try:
        if not isinstance(entry, dict) or set(entry) != known:
            raise ValueError(f"the keys are {', '.join(sorted(known))}")
        calm, wild = entry["slippage"]
        numbers = [float(entry["tick"]), float(entry["spread"]), float(calm), float(wild)]
        if not all(np.isfinite(numbers)) or numbers[0] <= 0 or min(numbers) < 0:
            raise ValueError("a tick is above 0, and costs are not below it")
    except (TypeError, ValueError) as error:
        raise DataError(f"{printable(path)}: {symbol}: {error}. A line is {EXAMPLE.format(symbol=symbol)}") from None
    return Costs(*numbers)
