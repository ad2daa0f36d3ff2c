"""Decisions of new bars in blocks, each with the history that its features and windows need: so memory does not grow
with the length of a file, and every decision has the same bits as in a computation of the complete file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from training.domains.market.bars.cleaning import Minutes
from training.domains.market.bars.sessions import MOST_MISSING
from training.domains.market.bars.timeframes import BASE, TIMEFRAMES, bars_of, latest, stretches
from training.domains.market.features.computing import Computed, compute
from training.domains.market.features.declared import FEATURES

SIZE = 20_000  # decisions in a block

#: Timeframe -> how many bars its features need, and one more: a file's first bar may be left out as incomplete.
NEEDED = {
    timeframe: 1 + max((feature.bars for feature in FEATURES if feature.timeframe == timeframe), default=1)
    for timeframe in TIMEFRAMES
}


@dataclass(frozen=True, eq=False)
class Block:
    """Features of some decisions and of those before them that a window needs. `first`: index of the first decision
    that belongs to the block."""

    computed: Computed
    first: int


def blocks(minutes: Minutes, window: int, size: int = SIZE) -> Iterator[Block]:
    """The decisions of all bars, in order. `window`: how many decisions a model looks at."""
    bars = {timeframe: bars_of(minutes, timeframe) for timeframe in TIMEFRAMES}
    base = bars[BASE]
    run = stretches(minutes, base, MOST_MISSING)
    for begin in range(0, len(base), size):
        end = min(begin + size, len(base))
        earliest = max(0, begin - window + 1)
        first = base.first[earliest]
        for timeframe, of in bars.items():
            index = latest(of, base.complete[earliest : earliest + 1], base.segment[earliest : earliest + 1])[0]
            # where there is no bar yet, all that there is belongs to its history
            first = min(first, of.first[max(0, index - NEEDED[timeframe] + 1)] if index >= 0 else 0)
        # the minute after the last bar shows that it is complete
        last = min(len(minutes), base.last[end - 1] + 1)
        computed = compute(minutes.between(int(first), int(last)))
        here = np.searchsorted(base.complete, computed.decided)  # the same bars in the complete file
        kept = np.flatnonzero((here >= earliest) & (here < end))
        own = replace(
            computed, values=computed.values[kept], decided=computed.decided[kept], bar=computed.bar[kept],
            run=run[here[kept]],
        )  # fmt: skip
        yield Block(own, int(np.searchsorted(own.decided, base.complete[begin])))
