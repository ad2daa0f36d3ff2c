"""From clean bars to decisions: features, labels, weights. The same for training, for the leak detector, and for
`predict`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.domains.market.bars.cleaning import Minutes
from training.domains.market.decisions import Decisions
from training.domains.market.features.computing import Computed, compute
from training.domains.market.features.declared import ATR, NAMES
from training.domains.market.labels.barriers import label
from training.domains.market.labels.costs import Barriers, Costs

RATIO = "m5_volratio_10_50"  # decides whether fills are calm or wild


@dataclass(frozen=True)
class Trade:
    """What a decision is about: the barriers, and what a round trip costs."""

    barriers: Barriers
    costs: Costs


@dataclass(frozen=True, eq=False)
class Scale:
    """What turns prices into ATRs at each decision: float64 [N] each."""

    atr: np.ndarray  # average true range, in units of the price
    relative: np.ndarray  # the same, relative to the price
    cost: np.ndarray  # of a round trip, in ATRs


def scale_of(computed: Computed, costs: Costs) -> Scale:
    """The average true range and the costs at each decision, all known at the decision."""
    relative = computed.values[:, NAMES.index(ATR)].astype(np.float64)
    atr = relative * computed.base.values[3, computed.bar]
    price = costs.of(computed.values[:, NAMES.index(RATIO)])
    return Scale(atr, relative, np.divide(price, atr, out=np.zeros_like(atr), where=atr > 0))


def build(minutes: Minutes, trade: Trade, computed: Computed | None = None) -> Decisions:
    """The decisions of one symbol that have a label. `computed`: its features, if they are known."""
    computed = compute(minutes) if computed is None else computed
    scale = scale_of(computed, trade.costs)
    moved = np.flatnonzero(scale.atr > 0)  # where the price stood still, there is no scale for barriers
    found = label(minutes, computed.base, computed.bar[moved], scale.atr[moved], scale.cost[moved], trade.barriers)
    kept = moved[found.kept]
    cost = scale.cost[kept].astype(np.float32)
    return Decisions(
        names=NAMES,
        features=computed.values[kept],
        label=found.label,
        decided=computed.decided[kept],
        entered=found.entered,
        ends=found.ends,
        weight=found.weight,
        gain=found.gain,
        gain_sold=found.gain_sold,
        up=np.float32(trade.barriers.up) + cost,
        down=np.full(len(kept), trade.barriers.down, np.float32),
        cost=cost,
        day=minutes.session.days(computed.decided[kept] - 1),
        run=computed.run[kept],
    )
