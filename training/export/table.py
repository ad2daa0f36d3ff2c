"""The exported files as a table for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from training.export.receipt import figure
from training.units import size

#: Kinds of files that are shown one by one; golden files and samples are counted.
SHOWN = ("onnx", "int8", "coreml", "weights", "artefact")


def table(rows: Iterable[tuple[str, int, str]]) -> str:
    """Rows of (name, bytes, summary) as aligned lines."""
    listed = [(name, size(count), what) for name, count, what in rows]
    wide = max((len(name) for name, _, _ in listed), default=0)
    return "\n".join(f"  {name:<{wide}}  {amount:>9}  {what}".rstrip() for name, amount, what in listed)


def file_summary(about: Mapping[str, Any]) -> str:
    """The measurements of one file in the receipt, as a line."""
    if about["kind"] == "onnx":
        trials = [*about["parity"]["trials"], *([about["parity"]["stepped"]] if "stepped" in about["parity"] else [])]
        worst = max(figure(v, float("inf")) for trial in trials for v in trial["error"].values())
        batches = sorted({t["sizes"]["batch"] for t in trials if "batch" in t["sizes"]})
        at = f" at batch {', '.join(map(str, batches))}" if batches else ""
        stepped = f", {about['parity']['stepped']['sizes']['steps']} steps" if "stepped" in about["parity"] else ""
        return f"agrees with the model{at}{stepped}: {worst:.1e} (allowed {about['parity']['tolerance']:g})"
    if about["kind"] == "int8":
        if "change" not in about:
            return f"outputs move by {about['largest_error']:.1%}; no task metric"
        changes = about["change"]["relative_change"]
        after = about["change"]["int8"]
        return ", ".join(f"{k} {figure(after[k]):.4g} ({figure(v, float('inf')):+.2%})" for k, v in changes.items())
    if about["kind"] == "coreml":
        return f"{about['status']}; {about['precision']}, {about['target']}"
    if about["kind"] == "artefact":
        measured = ", ".join(f"{name} {measured_text(value)}" for name, value in about["measured"].items())
        return f"proved by {about['prover']}" + (f": {measured}" if measured else "")
    return f"{about['values']:,} numbers"


def measured_text(value: Any) -> str:
    """A plain value as a short text: a number with four digits; of a list or mapping, only its length."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict | list):
        return f"({len(value)})"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
