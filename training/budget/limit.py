"""How long a job may take: hours, or money at a price, whichever ends first."""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from training.config import Section, build, read_yaml
from training.errors import UsageError
from training.host import gpus
from training.workspace import PROJECT

PRICES = PROJECT / "training" / "cuda_session" / "prices.yaml"
CURRENCY = "USD"
HOUR = 3600.0


class PriceTable(Section):
    """prices.yaml: USD an hour for one GPU, by the words of its name."""

    prices: Mapping[str, Annotated[float, Field(gt=0, lt=1000)]]


@dataclass(frozen=True)
class Used:
    """The time that a job has used: price in USD an hour (None: not known) -> seconds at this price."""

    by_price: Mapping[float | None, float]

    @property
    def seconds(self) -> float:
        return sum(self.by_price.values())

    def money(self, price: float | None) -> float | None:
        """The cost in USD; `price` applies to seconds without a recorded price. None if the cost is not known."""
        total = 0.0
        for own, seconds in self.by_price.items():
            paid = own if own is not None else price
            if paid is None and seconds:
                return None
            total += seconds * (paid or 0.0) / HOUR
        return total


@dataclass(frozen=True)
class Limit:
    """What a job may use; None: no limit. `price`: USD an hour for everything that is rented."""

    hours: float | None = None
    money: float | None = None
    price: float | None = None

    @property
    def given(self) -> bool:
        """Whether there is any limit."""
        return self.hours is not None or self.money is not None

    def seconds(self, used: Used) -> float:
        """The limit in seconds for the complete job, what is already `used` included: the stricter of hours and money;
        infinite if there is no limit."""
        counts = [math.inf]
        if self.hours is not None:
            counts.append(self.hours * HOUR)
        if self.money is not None and self.price is not None:
            if all(price in (None, self.price) for price in used.by_price):
                counts.append(self.money / self.price * HOUR)
            else:  # an earlier part was paid for at another price
                left = self.money - (used.money(self.price) or 0.0)
                counts.append(used.seconds + left / self.price * HOUR)
        return max(0.0, min(counts))


def limit_of(max_hours: float | None, budget: float | None, price: float | None) -> Limit:
    """The limit that the flags describe. Without --price-per-hour, the price is looked up by the names of this host's
    GPUs. Raises UsageError if there is a --budget-usd and the price is not known."""
    if price is None:
        price = _price_of_host(needed=budget is not None)
    return Limit(max_hours, budget, price)


def _price_of_host(*, needed: bool) -> float | None:
    names = gpus()
    if not names:
        if needed:
            raise UsageError(
                "--budget-usd needs to know what an hour costs, and this host shows no NVIDIA GPU whose price could be "
                f"looked up in {PRICES}. Give --price-per-hour USD."
            )
        return None
    hosts = int(os.environ.get("WORLD_SIZE", "1")) // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    if hosts > 1:
        if needed:
            raise UsageError(
                "--budget-usd among several hosts: the price of the others is not known here. Give --price-per-hour "
                "USD, of all hosts together."
            )
        return None
    table = read_prices(PRICES)
    found = [price_of(name, table) for name in names]
    unknown = sorted({name for name, price in zip(names, found, strict=True) if price is None})
    if unknown:
        if needed:
            raise UsageError(
                f"{PRICES} has no price for {', '.join(unknown)}. Give --price-per-hour USD, or add a line under "
                f"`prices`, as `{unknown[0].removeprefix('NVIDIA ')}: 1.00`."
            )
        return None
    return sum(price for price in found if price is not None)


def read_prices(path: Path) -> Mapping[str, float]:
    """The price table. Raises UsageError naming file, line and key of every mistake."""
    return build(PriceTable, read_yaml(path)).prices


def price_of(gpu: str, table: Mapping[str, float]) -> float | None:
    """USD an hour of one GPU, by its name in nvidia-smi: that of the entry whose words are all in the name, in that
    order. Of several, the entry with the most words is used ("A100 80GB" before "A100"), then the more expensive one.
    None if there is none."""
    words = _words(gpu)
    fitting = [(len(_words(name)), price) for name, price in table.items() if _within(_words(name), words)]
    return max(fitting)[1] if fitting else None


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[\s\-_/]+", name.lower()) if word]


def _within(some: list[str], words: list[str]) -> bool:
    rest = iter(words)
    return bool(some) and all(word in rest for word in some)


def amount(text: str) -> float:
    """Parse a flag's positive number. Raises ArgumentTypeError (exit 2)."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number") from None
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"it must be more than 0 (and finite), not {text}")
    return value
