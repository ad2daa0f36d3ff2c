"""From a folder of bars to the decisions of every symbol, once: a symbol whose file, settings and code have not changed
is not computed again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.data.encode import Quarantined, encode_files
from training.data.files import printable, write_atomic
from training.data.identity import is_marked_synthetic
from training.data.writing import file_name, write_manifests
from training.domain import Job
from training.domains.market import building, places
from training.domains.market import decisions as of_market
from training.domains.market.bars import keeping
from training.domains.market.bars.cleaning import Health, clean
from training.domains.market.bars.files import files_of, others_in, read_cuts
from training.domains.market.bars.reading import ENCODER
from training.domains.market.bars.times import zone_of
from training.domains.market.decisions import CLASSES, Decisions
from training.domains.market.demo.making import state_path
from training.domains.market.features.declared import described
from training.domains.market.labels.costs import (
    Costs,
    barriers_of,
    costs_of,
    read_costs,
    remark_on_tick,
    unused_costs,
)
from training.domains.market.rows import DECISIONS_PATH
from training.domains.market.splits.purging import EMBARGO, PURGE, Spans, overlapping, split_in_time
from training.domains.market.summary import report
from training.errors import DataError, TrainingError, UsageError
from training.workspace import exclusive

HORIZON = 20
LEAST_BARS = 20_000  # base bars; with fewer, no split is left that could show anything
LISTED = 50  # quarantined bars in the summary; all are in quarantine.jsonl
SECOND = 1_000_000_000
CODE = ("bars", "features", "labels", "splits", "building.py", "decisions.py", "demo")  # what decides the decisions


@dataclass(frozen=True)
class Settings:
    """What the user's options decide about all symbols."""

    zone: str | None
    stamp: str
    adjusted: bool
    horizon: int
    costs: Mapping[str, Costs]
    cuts: Mapping[str, list[int]]
    seed: int

    @classmethod
    def of(cls, job: Job) -> Settings:
        """Raises UsageError, DataError for files that cannot be read."""
        options = job.options
        rolls = job.path("rolls")
        horizon = options.get("horizon")
        return cls(
            zone_of(options.get("timezone")), options.get("stamp") or "open", bool(options.get("adjusted")),
            HORIZON if horizon is None else int(horizon), read_costs(job.path("costs")),
            read_cuts(rolls) if rolls else {}, job.seed,
        )  # fmt: skip

    def trade(self, symbol: str) -> building.Trade:
        return building.Trade(barriers_of(symbol, self.horizon), costs_of(symbol, self.costs))


def prepare(job: Job) -> None:
    """Read the bars of every symbol; write decisions, manifests, quarantine and summary.

    A symbol that is refused is left out. Raises DataError if none is left, UsageError; HostError while another process
    prepares data in the workspace.
    """
    with exclusive(job.workspace.manifests, "preparing data"):
        _prepare(job)


def _prepare(job: Job) -> None:
    folder = job.path("bars")
    if folder is None:
        raise UsageError("--bars is needed: the folder of SYMBOL_1m.parquet or SYMBOL_1m.csv.")
    settings = Settings.of(job)
    paths = files_of(folder, job.options.get("symbols"))
    _say_unused(job, folder, settings)
    for symbol in paths:
        settings.trade(symbol)  # costs that are missing are reported before anything is computed
    records, refused = encode_files([*paths.values()], ENCODER, job.workspace.cache, job.workers, job.say)
    quarantine = list(refused.values())
    abouts: dict[str, dict[str, Any]] = {}
    rows: dict[str, list[dict[str, Any]]] = {}
    for symbol, path in paths.items():
        if path not in records:
            continue
        try:
            about, faults = _symbol(job, settings, symbol, path, records[path])
        except DataError as error:
            quarantine.append(Quarantined(printable(path), "bars", str(error)))
            continue
        abouts[symbol] = about
        quarantine += faults
        for split, of_split in _rows(job, symbol).items():
            rows[file_name(f"{places.MANIFEST}/{symbol}", split)] = of_split
    if not abouts:
        reasons = "\n".join(item.reason for item in quarantine)
        raise DataError(f"No symbol of {printable(folder)} can be used.\n{reasons}")
    write_atomic(places.features_path(job.workspace), _json(described()))
    summary = {
        "synthetic": is_marked_synthetic(folder),
        "items": [*abouts],
        "horizon": settings.horizon,
        "stamp": settings.stamp,
        "timezone": settings.zone,
        "symbols": abouts,
        "quarantined": [asdict(item) for item in quarantine[:LISTED]],
        "quarantined_count": len(quarantine),
        "digest": hashlib.sha256("".join(about["sha256"] for about in abouts.values()).encode()).hexdigest(),
        "manifests": sorted(rows),
    }
    changed = write_manifests(job.workspace.manifests, rows, summary, quarantine)
    report(summary, job.workspace.relative(job.workspace.manifests), changed, job.say)


def _say_unused(job: Job, folder: Path, settings: Settings) -> None:
    others = others_in(folder)
    if others:
        job.say(f"  not used, as their names are not SYMBOL_1m: {', '.join(map(printable, others))}")
    unused = unused_costs(settings.costs, files_of(folder))
    if unused:
        job.say(f"  {unused}")


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n"


# -- one symbol --------------------------------------------------------------------------------------------------------


def _symbol(
    job: Job, settings: Settings, symbol: str, path: Path, record: Any
) -> tuple[dict[str, Any], list[Quarantined]]:
    """What is known of a symbol, and its bars that are not used. Its decisions are computed unless they are there."""
    trade = settings.trade(symbol)
    key = _key(settings, trade, symbol, record.key)
    place = places.about_path(job.workspace, symbol)
    known = _known(job, symbol, place, key)
    if known is None:
        known = _computed(job, settings, trade, symbol, path, record) | {"key": key}
        write_atomic(place, _json(known))
    faults = [
        Quarantined(printable(path), "bars", f"{fault['time']}: {fault['reason']}", f"{path.name}:{fault['line']}")
        for fault in known["health"]["faults"]
    ]
    about = {name: value for name, value in known.items() if name != "key"}
    about["health"] = {name: value for name, value in known["health"].items() if name != "faults"}
    return about, faults


def _known(job: Job, symbol: str, place: Path, key: str) -> dict[str, Any] | None:
    """What an earlier run found, if its inputs are the same and its files are there."""
    try:
        known = json.loads(place.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    path = places.decisions_path(job.workspace, symbol)
    files = path.is_file() and places.minutes_path(job.workspace, symbol).is_file()
    same = known.get("key") == key and files and hashlib.sha256(path.read_bytes()).hexdigest() == known["sha256"]
    return known if same else None


def _key(settings: Settings, trade: building.Trade, symbol: str, content: bytes) -> str:
    """Digest of everything that decides a symbol's decisions: the file, the settings and the code."""
    total = hashlib.sha256(content)
    own = [symbol, settings.zone, settings.stamp, settings.adjusted, settings.cuts.get(symbol), settings.seed]
    total.update(repr([*own, trade, settings.horizon]).encode())
    here = Path(__file__).parent
    for name in CODE:
        place = here / name
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            total.update(path.read_bytes())
    return total.hexdigest()


def _computed(
    job: Job, settings: Settings, trade: building.Trade, symbol: str, path: Path, record: Any
) -> dict[str, Any]:
    minutes, health = clean(
        symbol, record, zone=settings.zone, stamp=settings.stamp, adjusted=settings.adjusted,
        cuts=settings.cuts.get(symbol, ()),
    )  # fmt: skip
    remark = remark_on_tick(minutes.close, trade.costs.tick)
    health.remarks += [remark] if remark else []
    decisions = building.build(minutes, trade)
    bars = len(np.unique(minutes.time // (5 * 60 * SECOND)))
    if bars < LEAST_BARS:
        raise DataError(f"{symbol} has {bars:,} bars of five minutes; {LEAST_BARS:,} are needed (some four months).")
    splits = splits_of(decisions)
    keeping.write(places.minutes_path(job.workspace, symbol), minutes)
    of_market.write(places.decisions_path(job.workspace, symbol), decisions)
    _oracle(job, settings, trade, symbol, path, decisions)
    content = places.decisions_path(job.workspace, symbol).read_bytes()
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "decisions": len(decisions),
        "features": len(decisions.names),
        "first": _date(minutes.time[0]),
        "last": _date(minutes.time[-1]),
        "days": len(np.unique(decisions.day)),
        "labels": {name: int((decisions.label == code).sum()) for code, name in enumerate(CLASSES)},
        "cost": float(np.median(decisions.cost)),
        "barriers": asdict(trade.barriers),
        "costs": asdict(trade.costs),
        "session": minutes.session.plain(),
        "usual_gap": health.usual_gap,
        "splits": {name: {"decisions": len(index)} | _edges(decisions, index) for name, index in splits.items()},
        "health": _health(health),
    }


def _health(health: Health) -> dict[str, Any]:
    return asdict(health) | {"bad_ticks": len(health.bad_ticks)}


def _date(time: int) -> str:
    return str(np.datetime64(int(time), "ns").astype("datetime64[D]"))


def _oracle(job: Job, settings: Settings, trade: building.Trade, symbol: str, path: Path, decisions: Decisions) -> None:
    """For a demo's market: what could be known at best, kept for the evaluation."""
    state = state_path(path.parent, symbol)
    place = places.oracle_path(job.workspace.root, symbol)
    if not (is_marked_synthetic(path.parent) and state.is_file()):
        place.unlink(missing_ok=True)
        return
    from safetensors.numpy import save

    from training.domains.market.demo.oracle import simulate
    from training.domains.market.features.declared import ATR, NAMES

    relative = decisions.features[:, NAMES.index(ATR)].astype(np.float64)
    place.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(place, save(simulate(state, decisions, relative, trade.barriers, settings.seed)))


# -- splits and rows ---------------------------------------------------------------------------------------------------


def splits_of(decisions: Decisions) -> dict[str, np.ndarray]:
    """Split -> indices of its decisions. Raises DataError if one is empty, TrainingError if two overlap."""
    spans = Spans(decisions.decided, decisions.ends)
    splits = split_in_time(spans, decisions.day, PURGE, EMBARGO)
    empty = [name for name, index in splits.items() if not len(index)]
    if empty:
        raise DataError(f"Too few decisions ({len(decisions):,}) for the splits: {', '.join(empty)} would be empty.")
    names = [*splits]
    for number, name in enumerate(names):
        for other in names[number + 1 :]:
            count = overlapping(spans.take(splits[name]), spans.take(splits[other]))
            if count:
                raise TrainingError(f"{count} labels of {other} overlap {name}: the splits leak. Please report this.")
    return splits


def _edges(decisions: Decisions, index: np.ndarray) -> dict[str, Any]:
    return {"from": _date(decisions.decided[index[0]]), "to": _date(decisions.decided[index[-1]])}


def _rows(job: Job, symbol: str) -> dict[str, list[dict[str, Any]]]:
    """Split -> manifest rows, one for each trading day."""
    path = places.decisions_path(job.workspace, symbol)
    decisions = of_market.read(path)
    return {split: [*_days(decisions, index, symbol, path)] for split, index in splits_of(decisions).items()}


def _days(decisions: Decisions, index: np.ndarray, symbol: str, path: Path) -> Iterator[dict[str, Any]]:
    # a day whose decisions are interrupted by a purge becomes two rows
    cuts = np.flatnonzero((np.diff(decisions.day[index]) != 0) | (np.diff(index) != 1)) + 1
    for part in np.split(index, cuts):
        day = str(np.datetime64(int(decisions.day[part[0]]), "D"))
        yield {
            DECISIONS_PATH: str(path),
            "id": f"{symbol} {day} {part[0]}",
            "symbol": symbol,
            "first": int(part[0]),
            "last": int(part[-1]) + 1,
            "begin": int(decisions.decided[part[0]] // SECOND),
            "end": int(-(-decisions.ends[part].max() // SECOND)),
            "day": f"{symbol} {day}",
        }
