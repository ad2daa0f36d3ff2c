"""How often the verdict on a market without any edge is that there is one.

python -m benchmarks.market.nulls --out DIR [--seeds N] [--minutes N] [--family FAMILY] [--preset demo]

Every seed is a symbol: a market of the demo's rules without direction. The job's own commands prepare all of them,
train the family on each, and judge it on the validation split and on the sealed one. Prints a line a seed. The same
command continues where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from training import cli
from training.data.files import write_atomic
from training.data.identity import MARKER
from training.domains.market.bars.times import MINUTE
from training.domains.market.demo.making import open_minutes
from training.domains.market.demo.world import make
from training.domains.market.evaluation.baselines import VOLATILITY

COST = "{tick: 0.25, spread: 0.5, slippage: [0.5, 1.0]}"  # as those of the demo's symbols
FIRST = 100  # the seed of the first market
ALLOWED = 1  # of twenty


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--minutes", type=int, default=150_000)
    parser.add_argument("--family", default="lightgbm")
    parser.add_argument("--preset", default="demo")
    options = parser.parse_args()
    bars, costs = _made(options.out / "bars", options.seeds, options.minutes)
    work = options.out / "job"
    common = ["--out", str(work)]
    for words in (
        ["prepare", "--domain", "market", "--bars", str(bars), "--costs", str(costs), *common],
        ["each", "train", options.family, "--preset", options.preset, "--device", "cpu", *common],
        ["each", "evaluate", options.family, "--device", "cpu", "--test", *common],
    ):
        code = cli.main(words)
        if code:
            return code
    metrics = json.loads((work / "exports" / "metrics.json").read_text(encoding="utf-8"))["families"]
    print("| market | IC | above 0 | better than volatility alone | verdict | the same on the sealed test |")
    print("|---|---|---|---|---|---|")
    flagged = 0
    for run, entry in sorted(metrics.items()):
        edge = _has_edge(entry) or _has_edge(entry["test"])
        flagged += edge
        ic = entry["metrics"]["ic"]["model"]
        cells = [run, f"{ic['value']:+.3f} ({ic['low']:+.3f} to {ic['high']:+.3f})", _yes(ic["low"] > 0),
                 _yes(_better(entry)), entry["verdict"]["word"], entry["test"]["verdict"]["word"]]  # fmt: skip
        print(f"| {' | '.join(cells)} |")
    allowed = ALLOWED * options.seeds // 20
    print(f"{flagged} of {len(metrics)} markets without an edge have one by the rule (before costs, on either split); "
          f"allowed: {allowed}.")  # fmt: skip
    return int(flagged > allowed)


def _made(folder: Path, seeds: int, minutes: int) -> tuple[Path, Path]:
    """The folder of the markets and the file of their costs, which are written unless they are there."""
    costs = folder.parent / "costs.yaml"
    names = [f"NULL{seed:02}" for seed in range(seeds)]
    folder.mkdir(parents=True, exist_ok=True)
    minute = open_minutes(minutes)
    time = pl.Series(minute * MINUTE).cast(pl.Datetime("ns", "UTC"))
    for seed, name in enumerate(names, FIRST):
        path = folder / f"{name}_1m.parquet"
        if not path.exists():
            world = make(minute, seed, has_direction=False)
            columns: dict[str, np.ndarray] = {
                column: getattr(world, column) for column in ("open", "high", "low", "close", "volume")
            }
            frame = pl.DataFrame({"time": time, **columns})
            write_atomic(path, lambda place, frame=frame: frame.write_parquet(place))
    write_atomic(folder / MARKER, b'{"synthetic": true}\n')
    write_atomic(costs, "".join(f"{name}: {COST}\n" for name in names).encode())
    return folder, costs


def _better(entry: dict[str, Any]) -> bool:
    gap = entry["metrics"]["log_loss"]["baselines"][VOLATILITY].get("gap") or {"high": 0.0}
    return gap["high"] < 0


def _has_edge(entry: dict[str, Any]) -> bool:
    """The rule of the verdict, before costs: better than volatility alone, and the IC's interval above 0."""
    return _better(entry) and entry["metrics"]["ic"]["model"]["low"] > 0


def _yes(true: bool) -> str:
    return "yes" if true else "no"


if __name__ == "__main__":
    sys.exit(main())
