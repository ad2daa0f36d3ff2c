"""exports/README.md: a model card in the format of the Hugging Face Hub, from the receipt and the metrics.

Its front matter holds keys of the Hub's specification alone, with the types that it asks for; no licence is stated,
since that is for whoever publishes the files to choose.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from training.data.files import write_atomic
from training.export.receipt import read_receipt
from training.export.table import told
from training.report.facts import METRICS
from training.report.measures import other_weights
from training.report.plots import number
from training.units import duration, size
from training.workspace import Workspace

NAME = "README.md"
ABOUT = {
    "spectocloud": (
        "Draws the musical space that a moment of sound occupies, as a cloud of 1,200 particles: sound and emotion in, "
        "positions, colours and properties out. Small enough to run live.",
        "sound and emotion to a cloud of particles",
        [
            "It learns from clouds that a fixed renderer makes of the notes; it is judged by them, not by taste.",
            "It hears short windows of mono sound at 44,100 Hz. Speech, noise and silence are not what it knows.",
            "The emotion is an input. It does not detect what a listener feels.",
        ],
    ),
    "midi_generator": (
        "Writes music as tokens for an emotion that it is told: notes, velocities, positions, instruments and tempi, "
        "which become a MIDI file. One token at a time with a key-value cache, live if need be.",
        "emotion to symbolic music",
        [
            "Sampled without a grammar, token sequences may be illegal; the project's own sampler has one.",
            "It knows the styles of its training music alone, and a small corpus invites copying: see the metrics.",
            "Emotions are points in valence, arousal and intensity; how people hear them differs between cultures.",
        ],
    ),
}
TAGS = ["music", "audio", "midi", "onnx", "coreml", "safetensors", "athanor"]


def write_card(workspace: Workspace) -> Path | None:
    """Write the card of what is in exports/; None (and none is written) before anything was exported. Raises
    ExportError for a damaged receipt, ValueError for damaged metrics, HostError."""
    receipt = read_receipt(workspace.exports)
    if receipt is None or not receipt["families"]:
        return None
    try:
        metrics = json.loads((workspace.exports / METRICS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        metrics = {}
    judged = metrics.get("families") if isinstance(metrics, dict) else None
    path = workspace.exports / NAME
    write_atomic(path, card(receipt, judged if isinstance(judged, dict) else {}).encode())
    return path


def card(receipt: Mapping[str, Any], judged: Mapping[str, Any]) -> str:
    """The card: YAML between two lines of dashes, then Markdown. Metrics of other weights than the exported ones are no
    metrics of theirs."""
    families = receipt["families"]
    judged = {
        name: about for name, about in judged.items() if name in families and not other_weights(about, families[name])
    }
    front = yaml.safe_dump(front_matter(receipt, judged), sort_keys=False, allow_unicode=True)
    parts = [f"---\n{front}---\n", "# " + " and ".join(plain(e["title"]) for e in families.values())]
    if receipt["synthetic"]:
        parts.append(
            "> **Trained on synthetic data** (`synthetic: true`): a small corpus that a program composed, not music. "
            "These files show that the chain from data to export works. They are of no other use."
        )
    parts += [_family(name, entry, judged.get(name, {})) for name, entry in families.items()]
    parts.append(
        "## Licence\n\nNone is stated. Whoever publishes these files chooses one (`license` in the front matter), in "
        "keeping with the rights in the music that they were trained on."
    )
    parts.append(
        "## Where this comes from\n\nThis card was written by Athanor from `receipt.json` (what made each file, with "
        "its SHA-256) and `metrics.json`. `python -m training verify` proves the files against `golden/` on any "
        "machine; `report.html` shows all of it."
    )
    return "\n\n".join(parts) + "\n"


def front_matter(receipt: Mapping[str, Any], judged: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata for the Hub."""
    front: dict[str, Any] = {
        "library_name": "onnx",
        "tags": TAGS + (["synthetic-data"] if receipt["synthetic"] else []),
    }
    index = []
    for name, entry in receipt["families"].items():
        values = [
            {"type": key, "name": f"held-out {key.replace('_', ' ')}", "value": value}
            for key, about in (judged.get(name, {}).get("metrics") or {}).items()
            if (value := _value(about.get("model"))) is not None
        ]
        if not values:
            continue
        synthetic = " of a composed demo corpus (synthetic)" if entry["synthetic"] else ""
        index.append({
            "name": name,
            "results": [{
                "task": {"type": "other", "name": ABOUT[name][1] if name in ABOUT else name},
                "dataset": {"type": "private", "name": f"Held-out songs{synthetic}", "split": "validation"},
                "metrics": values,
            }],
        })  # fmt: skip
    if index:
        front["model-index"] = index
    return front


def _family(name: str, entry: Mapping[str, Any], judged: Mapping[str, Any]) -> str:
    what, _, limits = ABOUT.get(name, ("", "", []))
    trained = entry.get("trained") or {}
    lines = [f"## {plain(entry['title'])}", what]
    verdict = judged.get("verdict") or {}
    if verdict.get("word"):
        why = "\n".join(f"- {plain(sentence)}" for sentence in verdict.get("why") or [])
        lines.append(f"**Verdict: {plain(verdict['word'])}.**\n\n{why}".rstrip())
    else:
        lines.append("**Not judged**: no evaluation against baselines was made of these weights.")
    table = _metrics(judged.get("metrics") or {})
    if table:
        lines.append(f"### Held-out metrics\n\n95 % intervals in brackets.\n\n{table}")
    lines.append("### Files\n\n| file | size | measured |\n|---|---|---|\n" + "\n".join(
        f"| `{file}` | {size(about['bytes'])} | {plain(told(about))} |"
        for file, about in entry["files"].items() if about.get("kind") in ("onnx", "int8", "coreml", "weights")
    ))  # fmt: skip
    for graph in (entry.get("graphs") or {}).values():
        lines.append(_signature(graph))
    data = "synthetic (composed by a program)" if entry["synthetic"] else "the owner's music; not published"
    facts = [
        ("training data", data),
        ("data digest", f"`{trained.get('data_digest', '')}`"),
        ("seed", str(trained.get("seed", ""))),
        ("steps", str((entry.get("checkpoint") or {}).get("step", ""))),
        ("time", duration(trained["seconds"]) if isinstance(trained.get("seconds"), int | float) else ""),
        ("hardware", plain(str((trained.get("hardware") or {}).get("device", "")))),
        ("code", f"`{trained.get('code_version', '')}`"),
    ]
    lines.append("### Training\n\n" + "\n".join(f"- {key}: {value}" for key, value in facts if value))
    notes = [*limits, *(str(note) for note in entry.get("notes") or [])]
    if notes:
        lines.append("### Limits\n\n" + "\n".join(f"- {plain(note)}" for note in notes))
    return "\n\n".join(line for line in lines if line)


def _metrics(metrics: Mapping[str, Any]) -> str:
    names = list(dict.fromkeys(name for about in metrics.values() for name in about.get("baselines") or {}))
    if not metrics:
        return ""
    head = ["metric", "better", "this model", *(name.replace("_", " ") for name in names)]
    rows = [head, ["---"] * len(head)]
    for key, about in metrics.items():
        cells = [_cell(about.get("model")), *(_cell((about.get("baselines") or {}).get(name)) for name in names)]
        unit = f" ({about['unit']})" if about.get("unit") else ""
        rows.append([f"{key.replace('_', ' ')}{unit}", str(about.get("better") or ""), *cells])
    return "\n".join("| " + " | ".join(cell if cell == "---" else plain(cell) for cell in row) + " |" for row in rows)


def _cell(about: Mapping[str, Any] | None) -> str:
    value = _value(about)
    if value is None:
        return ""
    low, high = (about.get(end) for end in ("low", "high"))
    known = all(isinstance(end, int | float) and math.isfinite(end) for end in (low, high)) and low < high
    return number(value) + (f" ({number(low, 3)} to {number(high, 3)})" if known else "")


def _value(about: Mapping[str, Any] | None) -> float | None:
    value = (about or {}).get("value")
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _signature(graph: Mapping[str, Any]) -> str:
    """Inputs and outputs of a graph; a cache's many tensors in one line."""
    rows = []
    for way in ("inputs", "outputs"):
        for spec in graph.get(way) or []:
            first = re.fullmatch(r"(.*_)\d+", spec["name"])
            if first and not spec["name"].endswith("_0"):
                continue
            name = f"{first[1]}0 …" if first else spec["name"]
            shape = ", ".join(str(size) for size in spec["shape"])
            meaning = plain(spec.get("meaning") or "")
            rows.append(f"| {way[:-1]} | `{name}` | {spec['dtype']} [{plain(shape)}] | {meaning} |")
    axes = ", ".join(f"{axis} {low} to {high}" for axis, (low, high) in (graph.get("axes") or {}).items())
    head = f"### `{graph['name']}`\n\n" + (f"Dynamic axes: {plain(axes)}.\n\n" if axes else "")
    return head + "| | name | type | meaning |\n|---|---|---|---|\n" + "\n".join(rows)


def plain(text: str) -> str:
    """Text that Markdown and HTML leave as it is, on one line."""
    text = re.sub(r"([\\`*_{}\[\]#|!])", r"\\\1", " ".join(str(text).split()))
    return text.replace("<", "&lt;").replace(">", "&gt;")
