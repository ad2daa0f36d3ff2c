"""The command `predict`: bars in, a Parquet file with the probabilities at every decision out."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.data.encode import encode_files
from training.data.files import write_atomic
from training.data.summary import summary_of
from training.domain import Job
from training.domains.market import building, places
from training.domains.market.bars.cleaning import Minutes, clean
from training.domains.market.bars.files import files_of, read_cuts
from training.domains.market.bars.reading import ENCODER
from training.domains.market.bars.sessions import Session
from training.domains.market.bars.times import zone_of
from training.domains.market.decisions import CLASSES
from training.domains.market.labels.costs import Barriers, Costs
from training.domains.market.predicting.blocks import NEEDED, blocks
from training.domains.market.stacking.members import place, window_of
from training.engine.process.distributed import choose_device
from training.errors import DataError, UsageError

FAMILY = "ensemble"


def predict(job: Job, words: Sequence[str], load: Callable[[str], Any]) -> None:
    """Write the file options["out"]. Columns: ts (UTC, when the bar is complete), p_down, p_flat, p_up, edge
    (the expected return in ATRs after costs: above 0 of buying, below 0 of selling, 0 if neither pays), digest (of the
    model's checkpoint). A decision without a complete window has no row.

    Raises UsageError, DataError for bars that `prepare` would refuse.
    """
    target, symbol = Path(job.options["out"]), job.options["symbol"]
    if job.path("bars") is None or not symbol:
        raise UsageError("--bars DIR and --symbol SYMBOL are needed: the new bars, and whose they are.")
    about = _about(job, symbol)
    trained = load(f"{job.options['family'] or FAMILY}/{symbol}")
    place(trained.model, choose_device(job.options["device"]))
    trade = building.Trade(Barriers(**about["barriers"]), Costs(**about["costs"]))
    minutes = _minutes(job, symbol, Session.of(about["session"]), about["usual_gap"])
    columns = _predicted(trained, trade, minutes)
    count = len(columns["ts"])
    if not count:
        raise DataError(
            f"{symbol}: no decision of {len(minutes):,} bars has all features and a complete window. Give more "
            f"history: features look back {NEEDED['d1']} trading days."
        )
    write_atomic(target, lambda path: _frame(columns, trained.sha256).write_parquet(path))
    job.say(f"{count:,} decisions of {symbol}, {_day(columns['ts'][0])} to {_day(columns['ts'][-1])}: {target}")


def _about(job: Job, symbol: str) -> dict[str, Any]:
    path = places.about_path(job.workspace, symbol)
    if not path.is_file():
        known = (summary_of(job.workspace) or {}).get("items", ())
        raise UsageError(f"{symbol} is not prepared in {job.workspace.root}; there are: {', '.join(known) or 'none'}.")
    return json.loads(path.read_text(encoding="utf-8"))


def _minutes(job: Job, symbol: str, session: Session, usual: float | None) -> Minutes:
    """The new bars, read as `prepare` read the others: with the same session and the same usual gap, so that rolls are
    found in them wherever they begin; and the same stamp and zone unless the options say otherwise."""
    before = summary_of(job.workspace) or {}
    path = files_of(Path(job.options["bars"]), symbol)[symbol]
    records, refused = encode_files([path], ENCODER, job.workspace.cache, job.workers, job.say)
    if path in refused:
        raise DataError(f"{path}: {refused[path].reason}")
    rolls = job.path("rolls")
    zone = job.options["timezone"]
    return clean(
        symbol, records[path], zone=zone_of(zone) if zone else before.get("timezone"),
        stamp=job.options["stamp"] or before.get("stamp") or "open", adjusted=bool(job.options["adjusted"]),
        cuts=(read_cuts(rolls) if rolls else {}).get(symbol, ()), session=session,
        usual=usual,
    )[0]  # fmt: skip


def _predicted(trained: Any, trade: building.Trade, minutes: Minutes) -> dict[str, np.ndarray]:
    """The columns of the file, without the digest."""
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for block in blocks(minutes, window_of(trained.model)):
        computed = block.computed
        if not len(computed.decided):
            continue
        proba = trained.model.predict(-1, computed.values, computed.run, computed.decided)
        cost = building.scale_of(computed, trade.costs).cost.astype(np.float32)
        kept = np.flatnonzero(np.isfinite(proba).all(1))
        kept = kept[kept >= block.first]
        parts.append((computed.decided[kept], proba[kept], edge(proba[kept], cost[kept], trade.barriers)))
    if not parts:
        return {"ts": np.zeros(0, np.int64)}
    decided, proba, gain = (np.concatenate(column) for column in zip(*parts, strict=True))
    shares = {f"p_{name}": np.ascontiguousarray(proba[:, at]) for at, name in enumerate(CLASSES)}
    return {"ts": decided} | shares | {"edge": gain}


def edge(proba: np.ndarray, cost: np.ndarray, barriers: Barriers) -> np.ndarray:
    """The expected return after costs of the better side, in ATRs, float32 [n]: as trades are decided in the
    evaluation, positive for buying. `proba`: float32 [n, C]; `cost`: float32 [n], of a round trip."""
    up = (np.float32(barriers.up) + cost).astype(np.float64)
    expected = up * proba[:, 2] - np.float64(np.float32(barriers.down)) * proba[:, 0]
    return (np.sign(expected) * np.maximum(np.abs(expected) - cost, 0)).astype(np.float32)


def _frame(columns: dict[str, np.ndarray], digest: str) -> Any:
    import polars

    frame = polars.DataFrame(columns)
    ts = polars.col("ts").cast(polars.Datetime("ns")).dt.replace_time_zone("UTC")
    return frame.with_columns(ts, polars.lit(digest[:16]).alias("digest"))


def _day(time: int) -> str:
    return str(np.datetime64(int(time), "ns").astype("datetime64[D]"))
