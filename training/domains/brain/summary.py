"""Prints the summary of `prepare`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from training.data.files import printable

SHOWN = 5


def report(summary: Mapping[str, Any], folder: str, changed: bool, say: Callable[[str], None]) -> None:
    """Print what was read, what looks wrong, and how it is split. `folder`: of the manifests, as it is shown."""
    if summary["synthetic"]:
        say("  synthetic: true (simulated film and BOLD)")
    runs, subjects = summary["runs"], summary["subjects"]
    say(
        f"  {len(subjects)} subjects, {len(runs)} {'run' if len(runs) == 1 else 'runs'}, {summary['voxels']:,} voxels "
        f"({summary['mask']} mask), TR {summary['tr']:g} s ({summary['tr_source']})"
    )
    if summary["left_out"]:
        say(f"  left out of training: subject {', '.join(summary['left_out'])}")
    listed = ", ".join(f"{name} {volumes}" for name, volumes in summary["volumes"].items())
    say(f"  volumes by run: {listed}; features: {', '.join(summary['bands'])}")
    parts = ", ".join(f"{name} {of['volumes']} volumes in {of['blocks']}" for name, of in summary["splits"].items())
    say(f"  blocks: {parts}; {summary['gap']} volumes between held-out and other blocks are not used")
    for note in summary["notes"]:
        say(f"  note: {printable(note)}")
    for remark in summary["remarks"]:
        say(f"  {remark}")
    for alarm in summary["alarms"]:
        say(f"  ALARM: {alarm}.")
    if summary["quarantined_count"]:
        say(f"  quarantined: {summary['quarantined_count']:,} (quarantine.jsonl)")
    for item in summary["quarantined"][:SHOWN]:
        say(f"    {printable(item['path'])}: {printable(item['reason'].splitlines()[0])}")
    say(f"  data digest {summary['digest'][:16]}, manifests in {folder}")
    if not changed:
        say("  up to date: nothing has changed")
