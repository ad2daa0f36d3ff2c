"""The plan node that walks the paths of combinatorial cross-validation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from training.data.files import write_atomic
from training.domain import Job, Node
from training.domains.market import places


def cross_validate(job: Job) -> None:
    """Writes runs/paths.json, by symbol."""
    from training.data.summary import summary_of
    from training.domains.market import decisions as of_market
    from training.domains.market.evaluation.paths import walk_paths
    from training.domains.market.prepare import splits_of

    found = {}
    for symbol in (summary_of(job.workspace) or {})["items"]:
        decisions = of_market.read(places.decisions_path(job.workspace, symbol))
        known = decisions.take(slice(0, int(splits_of(decisions)["val"][-1]) + 1))
        found[symbol] = walk_paths(known)
        of = found[symbol]
        luck = (
            "" if of["overfitting"] is None else f"; probability of overfitting {of['overfitting']['probability']:.2f}"
        )
        job.say(
            f"  {symbol}: Sharpe ratio a year {of['sharpe']['mean']:.2f} on average of {len(of['paths'])} paths "
            f"({of['sharpe']['low']:.2f} to {of['sharpe']['high']:.2f}){luck}"
        )
    write_atomic(places.paths_path(job.workspace), json.dumps(found).encode() + b"\n")


def _inputs(job: Job) -> Sequence[Path]:
    from training.data.summary import summary_of

    return [places.decisions_path(job.workspace, symbol) for symbol in (summary_of(job.workspace) or {})["items"]]


NODES = (
    Node(
        "cpcv", "Combinatorial cross-validation", "training.domains.market.evaluation.node:cross_validate", ("leaks",),
        inputs=_inputs, outputs=lambda job: [places.paths_path(job.workspace)],
    ),
)  # fmt: skip
