"""Prints the summary of `prepare`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from training.data.files import printable

SHOWN = 5


def report(summary: Mapping[str, Any], folder: str, changed: bool, say: Callable[[str], None]) -> None:
    """Print what was read, what was found in it, and what it became. `folder`: of the manifests, as it is shown."""
    if summary["synthetic"]:
        say("  synthetic: true (markets made by rules)")
    for symbol, about in summary["symbols"].items():
        health, splits = about["health"], about["splits"]
        say(f"  {symbol}: {health['used']:,} of {health['rows']:,} bars, {about['first']} to {about['last']}")
        found = {
            "exact duplicates": health["duplicates"], "gaps in the session": health["gaps"],
            "missing minutes": health["missing"], "bad ticks": health["bad_ticks"],
            "splits or rolls": len(health["jumps"]),
        } | health["reasons"]  # fmt: skip
        listed = ", ".join(f"{name} {count:,}" for name, count in found.items() if count)
        say(f"    {listed or 'no faults'}")
        for remark in health["remarks"]:
            say(f"    note: {remark}")
        parts = ", ".join(f"{name} {of['decisions']:,} ({of['from']} to {of['to']})" for name, of in splits.items())
        say(f"    {about['decisions']:,} decisions, {about['features']} features: {parts}")
        total = sum(about["labels"].values())
        shares = ", ".join(f"{name} {count / total:.0%}" for name, count in about["labels"].items())
        say(f"    horizon {summary['horizon']}: {shares}; a round trip costs {about['cost']:.2f} ATR")
    if summary["quarantined_count"]:
        say(f"  quarantined: {summary['quarantined_count']:,} (quarantine.jsonl)")
    for item in summary["quarantined"][:SHOWN]:
        say(f"    {printable(item['place'] or item['path'])}: {printable(item['reason'].splitlines()[0])}")
    say(f"  data digest {summary['digest'][:16]}, manifests in {folder}")
    if not changed:
        say("  up to date: nothing has changed")
