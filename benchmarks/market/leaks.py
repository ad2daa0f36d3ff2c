"""Which of the two nets sees which leak, and how often a clean market is flagged.

python -m benchmarks.market.leaks [--minutes N] [--seeds N]

Prints the table of docs/market.md. The market has no edge (NULL); models are LightGBM's, out of fold, in five worlds of
random signs. Seeds are markets of different random numbers.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from tests.domains.market.leaks import MUTANTS
from training.domains.market.bars.cleaning import Minutes, clean
from training.domains.market.bars.times import MINUTE
from training.domains.market.building import Trade, build
from training.domains.market.demo.making import open_minutes
from training.domains.market.demo.world import make
from training.domains.market.detector import statistics, structure
from training.domains.market.features.declared import NAMES
from training.domains.market.labels.costs import COSTS, barriers_of
from training.domains.market.splits.purging import Spans

TRADE = Trade(barriers_of("MES", 20), COSTS["MES"])


def market(count: int, seed: int) -> Minutes:
    """A market of the demo's rules without an edge."""
    minute = open_minutes(count)
    world = make(minute, seed, has_direction=False)
    raw = {name: getattr(world, name) for name in ("open", "high", "low", "close", "volume")}
    return clean("MES", raw | {"time": minute * MINUTE, "naive": np.zeros(1), "first_line": np.ones(1)})[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=int, default=100_000)
    parser.add_argument("--seeds", type=int, default=20)
    options = parser.parse_args()
    of = market(options.minutes, 1)
    decisions = build(of, TRADE)
    print("| pipeline | IC of 5 worlds | p | by what it earns | by structure |\n|---|---|---|---|---|", flush=True)
    for name, pipeline in MUTANTS.items():
        earned = statistics.examine(of, TRADE, pipeline, "signs", 1)
        built = structure.examine(of, Spans(decisions.decided, decisions.ends), pipeline, NAMES, 1)
        seen = "seen" if earned.reasons else "no"
        why = f"seen: {'; '.join(built.reasons)}" if built.reasons else "no"
        print(f"| {name} | {earned.mean:+.3f} | {earned.probability:.2g} | {seen} | {why} |", flush=True)
    flagged, began = 0, time.monotonic()
    for seed in range(options.seeds):
        earned = statistics.examine(market(options.minutes, 100 + seed), TRADE, MUTANTS["clean"], "signs", seed)
        flagged += bool(earned.reasons)
        print(f"seed {seed}: IC {earned.mean:+.3f}, p {earned.probability:.2g}", flush=True)
    print(f"{flagged} of {options.seeds} clean markets flagged ({time.monotonic() - began:.0f} s)")


if __name__ == "__main__":
    main()
