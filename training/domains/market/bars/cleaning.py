"""Checks one-minute bars, and separates those that cannot be used. Nothing is repaired or filled in.

| found | done |
|---|---|
| exact duplicates | dropped |
| one minute with two different bars; an hour that occurs twice | quarantined; the symbol is refused above 0.1 % |
| NaN, a price <= 0, high < max(o, c), low > min(o, c), a volume < 0, no time | quarantined; refused above 1 % |
| bad tick | kept and marked: no label touches it, no order is filled by it |
| jump like a split, gap like a roll | refused, unless the prices are adjusted or the times are listed |
| a column names another contract from some bar on | nothing crosses that time |
| bars of several contracts at once, or of another symbol | refused |
| bars of seconds, five minutes, a day | refused |
| constant price | refused |
| most bars outside of the hours that most weeks have | refused |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from training.domains.market.bars import contracts, times
from training.domains.market.bars.faults import bad_ticks, jumps, usual_gap
from training.domains.market.bars.reading import PRICES
from training.domains.market.bars.sessions import Session, find_session
from training.domains.market.bars.times import MINUTE, Stamp, as_text
from training.errors import DataError, UsageError

MOST_FILLED = 0.01  # share of bars without trading above which a remark says so
SPACING_BARS = 100  # fewer bars tell nothing about how far apart they are
MOST_CONFLICTS, MOST_INVALID = 0.001, 0.01  # shares of the bars above which a symbol is refused
LEAST_COVERED = 0.5  # share of the bars that must lie in the session
SHOWN = 5


@dataclass(frozen=True, eq=False)
class Minutes:
    """Clean one-minute bars of one symbol, ascending."""

    symbol: str
    time: np.ndarray  # int64 [n]: nanoseconds UTC at which a bar opens
    open: np.ndarray  # float64 [n], as the others
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    volume: np.ndarray
    bad: np.ndarray  # bool [n]: a bad tick
    segment: np.ndarray  # int32 [n]: increases at a split or roll, which nothing may cross
    session: Session

    def __len__(self) -> int:
        return len(self.time)

    def between(self, first: int, last: int) -> Minutes:
        """The bars from index `first` to before `last`."""
        columns = {name: getattr(self, name)[first:last] for name in ("time", *PRICES, "volume", "bad", "segment")}
        return Minutes(self.symbol, **columns, session=self.session)


@dataclass(frozen=True)
class Fault:
    """A bar that was separated."""

    time: str
    reason: str
    line: int


@dataclass
class Health:
    """What was found in a file; for the summary and the report."""

    rows: int = 0
    used: int = 0
    duplicates: int = 0
    reasons: dict[str, int] = field(default_factory=dict)  # why bars were quarantined -> how many
    bad_ticks: list[str] = field(default_factory=list)
    jumps: list[dict[str, object]] = field(default_factory=list)  # splits and rolls
    usual_gap: float | None = None  # robust standard deviation of log returns over pauses; larger gaps may be rolls
    gaps: int = 0  # gaps of more than five minutes of the session
    missing: int = 0  # minutes of the session without a bar
    faults: list[Fault] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)  # what is used as it is, and should be known


def clean(
    symbol: str,
    raw: Mapping[str, np.ndarray],
    *,
    zone: str | None = None,
    stamp: Stamp = "open",
    adjusted: bool = False,
    cuts: Sequence[int] = (),
    session: Session | None = None,
    usual: float | None = None,
) -> tuple[Minutes, Health]:
    """The bars that can be used, and what was found.

    `raw`: arrays of `reading.decode`. `zone`: of naive times, unless the file names it. `adjusted`: the user states
    that no split or roll is left in the prices. `cuts`: times (nanoseconds UTC) of splits and rolls that the user
    lists. `session`, `usual`: of the symbol, if they are known: its hours, and its usual gap over a pause (see Health).

    Raises UsageError (naive times without a zone), DataError (refused, with the counts and the remedy).
    """
    zone = bytes(raw["zone"]).decode() if "zone" in raw else zone
    if raw["naive"][0] and zone is None:
        raise UsageError(
            f"{symbol}: the times have no zone. Give --timezone, such as --timezone America/New_York or --timezone UTC."
        )
    health = Health(rows=len(raw["time"]))
    contract, names = contracts.of(symbol, raw)
    lines = int(raw["first_line"][0]) + np.arange(health.rows)
    time, why = times.opens(raw["time"], zone if raw["naive"][0] else None, stamp)
    reasons = np.array([times.REASONS.get(code, "") for code in range(5)], object)[why]
    _mark_invalid(raw, reasons)
    order = np.argsort(time, kind="stable")
    table = np.stack([raw[name][order] for name in (*PRICES, "volume")], 1)
    time, lines, reasons, contract = time[order], lines[order], reasons[order], contract[order]
    keep = _drop_duplicates(time, table, reasons, health)
    time, table, lines, reasons, contract = (of[keep] for of in (time, table, lines, reasons, contract))
    contracts.refuse_several(symbol, time[reasons == ""], contract[reasons == ""], names)
    _mark_conflicts(time, reasons)
    _quarantine(symbol, time, lines, reasons, health)
    good = reasons == ""
    time, table, contract = time[good], table[good], contract[good]
    if len(time) < 2:
        raise DataError(f"{symbol}: no usable bar is left of {health.rows:,} rows.")
    if np.ptp(table[:, :4]) == 0:
        raise DataError(f"{symbol}: the price never changes ({table[0, 0]:g}): there is nothing to learn.")
    _refuse_other_spacing(symbol, time)
    session = session or _session(symbol, time)
    columns = dict(zip((*PRICES, "volume"), np.ascontiguousarray(table.T), strict=True))
    missing = session.missing(time)
    bad = bad_ticks(time, columns["high"], columns["low"], columns["close"])
    changes = contracts.changes(contract, names)
    health.usual_gap = usual_gap(time, columns["open"], columns["close"], bad) if usual is None else usual
    segment = _segments(symbol, time, columns, bad, adjusted, cuts, changes, health)
    health.remarks = _remarks(columns)
    health.used, health.gaps = len(time), int((missing > 5).sum())
    health.missing = int(missing.clip(0).sum())
    health.bad_ticks = [as_text(at) for at in time[bad].tolist()]
    return Minutes(symbol, time, **columns, bad=bad, segment=segment, session=session), health


def _refuse_other_spacing(symbol: str, time: np.ndarray) -> None:
    """Raise DataError for bars of another length: trading hours would still be found in them."""
    if len(time) < SPACING_BARS:
        return
    steps, counts = np.unique(np.diff(time) // MINUTE, return_counts=True)
    usual = int(steps[np.argmax(counts)])
    if usual != 1:
        raise DataError(
            f"{symbol}: the bars are {usual:,} minutes apart ({counts.max():,} of {len(time):,} times); one-minute "
            "bars are needed. Longer ones are computed from them."
        )


def _remarks(columns: Mapping[str, np.ndarray]) -> list[str]:
    """What can be used, but is not what it seems."""
    volume, close = columns["volume"], columns["close"]
    if not volume.any():
        return ["there are no volumes: the features of volume are 0"]
    still = np.concatenate([[False], close[1:] == close[:-1]]) & (volume == 0)
    share = (still & (columns["high"] == columns["low"])).mean()
    if share <= MOST_FILLED:
        return []
    return [
        f"{share:.0%} of the bars repeat the last price without volume: a program filled in minutes without a trade, "
        "and features and labels take them for trading. Export without them"
    ]


def _session(symbol: str, time: np.ndarray) -> Session:
    """The session of the bars. Raises DataError if most bars lie outside it: a missing minute could not be
    distinguished from a closed market then, and windows and labels would cross whatever is missing."""
    session = find_session(time)
    share = session.covers(time).mean()
    if share >= LEAST_COVERED:
        return session
    ends = np.flatnonzero(np.diff(time) > MINUTE)
    lengths = np.diff(np.concatenate([[0], ends + 1, [len(time)]]))
    pauses = np.diff(time)[ends] // MINUTE - 1
    possible = (time[-1] - time[0]) // MINUTE + 1
    raise DataError(
        f"{symbol}: no trading hours can be found: {1 - share:.0%} of its bars are in minutes of the week that most "
        f"weeks do not have. There are {len(time):,} bars in {possible:,} minutes, in {len(lengths):,} pieces (median: "
        f"{np.median(lengths):,.0f} bars, then {np.median(pauses):,.0f} minutes without one). Parts are missing, "
        "as after a download that requests more bars at a time than the server gives; or it is traded too seldom for "
        "one-minute bars. Download it again with smaller steps, or leave it out with --symbols."
    )


NOT_POSITIVE, NEGATIVE_VOLUME = "a price is 0 or less", "the volume is below 0"


def _mark_invalid(raw: Mapping[str, np.ndarray], reasons: np.ndarray) -> None:
    prices = np.stack([raw[name] for name in PRICES])
    first, high, low, last = prices
    checks = {
        "a price or the volume is no number": ~np.isfinite(prices).all(0) | ~np.isfinite(raw["volume"]),
        NOT_POSITIVE: (prices <= 0).any(0),
        "the high is below another price": high < np.maximum(np.maximum(first, last), low),
        "the low is above another price": low > np.minimum(first, last),
        NEGATIVE_VOLUME: raw["volume"] < 0,
    }
    for reason, found in checks.items():
        reasons[found & (reasons == "")] = reason


def _drop_duplicates(time: np.ndarray, table: np.ndarray, reasons: np.ndarray, health: Health) -> np.ndarray:
    """Which rows remain (bool [n]) when equal bars of one minute count once. Rows are ascending in time."""
    if not len(time):
        return np.zeros(0, bool)
    order = np.lexsort([*table.T, time])
    same = (np.diff(time[order]) == 0) & (table[order][1:] == table[order][:-1]).all(1)
    keep = np.ones(len(time), bool)
    keep[order[1:][same]] = False
    keep |= reasons != ""  # those are quarantined, each with its line
    health.duplicates = int((~keep).sum())
    return keep


CONFLICT = "one minute has two different bars"


def _mark_conflicts(time: np.ndarray, reasons: np.ndarray) -> None:
    good = np.flatnonzero(reasons == "")
    if not len(good):
        return
    same = np.diff(time[good]) == 0
    reasons[good[np.concatenate([same, [False]]) | np.concatenate([[False], same])]] = CONFLICT


#: Why most bars of a file are faulty -> what helps.
REMEDIES = {
    CONFLICT: "Export it again with UTC times.",
    times.REASONS[times.TWICE]: "Export it again with UTC times.",
    times.REASONS[times.OFF_MINUTE]: "Bars of one minute are needed, at full minutes: these times lie between, as "
    "those of ticks, of bars of seconds, or of a close at second 59.",
    NOT_POSITIVE: "Prices of 0 or less, as of futures that are back-adjusted by differences, have no returns: adjust "
    "them by ratios.",
    NEGATIVE_VOLUME: "Where -1 stands for no volume, as at Interactive Brokers, write 0.",
}
REPAIR = "Repair the file, or export it again."


def _remedy(reasons: set[str]) -> str:
    return " ".join(dict.fromkeys(REMEDIES.get(reason, REPAIR) for reason in sorted(reasons)))


def _quarantine(symbol: str, time: np.ndarray, lines: np.ndarray, reasons: np.ndarray, health: Health) -> None:
    """Count and list the bars with a reason. Raises DataError if there are too many."""
    for index in np.flatnonzero(reasons != "").tolist():
        health.reasons[reasons[index]] = health.reasons.get(reasons[index], 0) + 1
        health.faults.append(Fault(as_text(time[index]), reasons[index], int(lines[index])))
    conflicts = {CONFLICT, times.REASONS[times.TWICE]}
    groups = {
        MOST_CONFLICTS: [fault for fault in health.faults if fault.reason in conflicts],
        MOST_INVALID: [fault for fault in health.faults if fault.reason not in conflicts],
    }
    for most, faults in groups.items():
        if len(faults) > most * health.rows:
            shown = "\n".join(f"  line {fault.line}, {fault.time}: {fault.reason}" for fault in faults[:SHOWN])
            more = f"\n  ... and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
            raise DataError(
                f"{symbol}: {len(faults):,} of {health.rows:,} bars are faulty; more than {most:.1%} is refused.\n"
                f"{shown}{more}\n{_remedy({fault.reason for fault in faults})}"
            )


def _segments(
    symbol: str, time: np.ndarray, columns: Mapping[str, np.ndarray], bad: np.ndarray,
    adjusted: bool, cuts: Sequence[int], changes: Mapping[int, str], health: Health,
) -> np.ndarray:  # fmt: skip
    """int32 [n], increasing at every split and roll. `changes`: index of the first bar of another contract -> what the
    file says about it. Raises DataError if one is found that the user has not named."""
    found = jumps(time, columns["open"], columns["close"], bad, health.usual_gap)
    begins = np.zeros(len(time), bool)
    listed = np.asarray(sorted(cuts), np.int64)
    places = np.searchsorted(time, listed)
    begins[places[(places > 0) & (places < len(time))]] = True
    begins[[*changes]] = True
    named = {*places.tolist(), *changes}
    unnamed = [jump for jump in found if not any(index in named for index in range(jump.index - 2, jump.index + 3))]
    if unnamed and not adjusted:
        shown = "\n".join(f"  {as_text(time[jump.index])}: {jump.about}" for jump in unnamed[:SHOWN])
        more = f"\n  ... and {len(unnamed) - SHOWN} more" if len(unnamed) > SHOWN else ""
        raise DataError(
            f"{symbol}: the price jumps as it does at a split or when a future is rolled:\n{shown}{more}\n"
            "Use adjusted prices and give --adjusted, or list the times with --rolls FILE (CSV: symbol,time)."
        )
    begins[[jump.index for jump in found]] = True
    begins[0] = False
    about = {jump.index: jump.about for jump in found} | changes
    health.jumps = [{"time": as_text(time[index]), "about": about[index]} for index in sorted(about)]
    return np.cumsum(begins).astype(np.int32)
