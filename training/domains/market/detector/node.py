"""The plan node: looks for leaks before anything is evaluated or exported, and stops the job where it finds one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from training.data.files import write_atomic
from training.data.summary import summary_of
from training.domain import Job, Node
from training.domains.market import places
from training.errors import TrainingError

SIZE = 1 << 16  # of the seed of the worlds


def look_for_leaks(job: Job) -> None:
    """Examine every symbol; writes runs/detector.json. Raises TrainingError where a leak is found."""
    symbols = _symbols(job)
    found = {symbol: _symbol(job, symbol, about, len(symbols)) for symbol, about in symbols.items()}
    write_atomic(places.detector_path(job.workspace), json.dumps(found, indent=1).encode() + b"\n")
    reasons = [f"  {symbol}: {reason}" for symbol, of in found.items() for reason in of["reasons"]]
    if reasons:
        raise TrainingError(
            "The future leaks into the decisions, so no figure means anything; no verdict is given and nothing is "
            "exported:\n" + "\n".join(reasons)
        )


def _symbols(job: Job) -> dict[str, dict[str, Any]]:
    return (summary_of(job.workspace) or {})["symbols"]


def _symbol(job: Job, symbol: str, about: dict[str, Any], symbols: int) -> dict[str, Any]:
    from training.domains.market import decisions as of_market
    from training.domains.market.bars import keeping
    from training.domains.market.building import Trade
    from training.domains.market.detector import statistics, structure
    from training.domains.market.detector.pipeline import Pipeline
    from training.domains.market.labels.costs import Barriers, Costs
    from training.domains.market.splits.purging import Spans

    minutes = keeping.read(places.minutes_path(job.workspace, symbol))
    decisions = of_market.read(places.decisions_path(job.workspace, symbol))
    spans, pipeline = Spans(decisions.decided, decisions.ends), Pipeline()
    built = structure.examine(minutes, spans, pipeline, decisions.names, job.seed)
    out = {"structure": asdict(built), "reasons": built.reasons}
    null = job.options.get("null")
    if null:
        trade = Trade(Barriers(**about["barriers"]), Costs(**about["costs"]))
        earned = statistics.examine(minutes, trade, pipeline, null, job.seed % SIZE, symbols=symbols)
        out |= {"statistics": asdict(earned), "reasons": [*built.reasons, *earned.reasons]}
        job.say(
            f"  {symbol}, {null}: information coefficient {earned.mean:+.3f} on average of "
            f"{len(earned.correlations)} worlds, p = {earned.probability:.2g}"
        )
    job.say(f"  {symbol}: {'; '.join(out['reasons']) or 'no leak was found'}")
    return out


def _inputs(job: Job) -> Sequence[Path]:
    return [path for symbol in _symbols(job) for path in (
        places.minutes_path(job.workspace, symbol), places.decisions_path(job.workspace, symbol),
        places.about_path(job.workspace, symbol),
    )]  # fmt: skip


NODES = (
    Node(
        "leaks", "Look for leaks", "training.domains.market.detector.node:look_for_leaks", inputs=_inputs,
        outputs=lambda job: [places.detector_path(job.workspace)],
    ),
)  # fmt: skip
