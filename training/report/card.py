"""exports/README.md: a model card in the format of the Hugging Face Hub, from the receipt and the metrics.

Its front matter holds only keys of the Hub's specification, with the types that it requires. No licence is stated: it
is for whoever publishes the files to choose one.
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
from training.domain import CardText, Domain
from training.export.receipt import read_receipt
from training.export.table import SHOWN, file_summary
from training.pretrained import base_in
from training.registry import domains, family_of, item_of
from training.report.facts import METRICS
from training.report.measures import other_weights
from training.report.plots import number
from training.sampling_unit import UNIT
from training.units import duration, size
from training.workspace import Workspace

NAME = "README.md"
#: Kind of an exported file -> the tag of its format.
FORMATS = {"onnx": "onnx", "coreml": "coreml", "weights": "safetensors"}


def write_card(workspace: Workspace) -> Path | None:
    """Write the card of what is in exports/ and return its path; None, without a card, before anything was exported.
    Raises ExportError for a damaged receipt, ValueError for damaged metrics, and HostError if the card cannot be
    written."""
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
    """The card: YAML between two lines of dashes, then Markdown. Metrics of weights other than the exported ones are
    left out."""
    families = receipt["families"]
    judged = {
        name: about for name, about in judged.items() if name in families and not other_weights(about, families[name])
    }
    front = yaml.safe_dump(front_matter(receipt, judged), sort_keys=False, allow_unicode=True)
    parts = [f"---\n{front}---\n", "# " + " and ".join(dict.fromkeys(plain(e["title"]) for e in families.values()))]
    if receipt["synthetic"]:
        parts.append(
            "> **Trained on synthetic data** (`synthetic: true`): a small data set that a program generated. These "
            "files show that the chain from data to export works. They are of no other use."
        )
    described: set[str] = set()  # families whose description is in the card: a fan-out has it once, not for each item
    for name, entry in families.items():
        about = _about(name) if family_of(name) not in described else None
        described.add(family_of(name))
        parts.append(_family(name, entry, judged.get(name, {}), about))
    words = " and ".join(dict.fromkeys(one.data_words for name in families if (one := _domain(name)))) or "data"
    bases = dict.fromkeys(f"- {plain(base.words)}" for entry in families.values() if (base := base_in(entry)))
    of_bases = ", and with the licence of the base model:\n\n" + "\n".join(bases) if bases else "."
    parts.append(
        "## Licence\n\nNone is stated. Whoever publishes these files chooses one (`license` in the front matter), in "
        f"keeping with the rights in the {words} that they were trained on{of_bases}"
    )
    parts.append(
        "## Where this comes from\n\nThis card was written by Athanor from `receipt.json` (what made each file, with "
        "its SHA-256) and `metrics.json`. `python -m training verify` proves the files against `golden/` on any "
        "machine; `report.html` shows all of it."
    )
    return "\n\n".join(parts) + "\n"


def front_matter(receipt: Mapping[str, Any], judged: Mapping[str, Any]) -> dict[str, Any]:
    """The card's metadata for the Hub; families without a finite metric are not in `model-index`."""
    front: dict[str, Any] = {
        "library_name": "onnx",
        "tags": _tags(receipt),
    }
    bases = [base.name for entry in receipt["families"].values() if (base := base_in(entry)) and base.revision]
    if bases:  # names on the Hub
        front["base_model"] = list(dict.fromkeys(bases))
    index = []
    for name, entry in receipt["families"].items():
        values = [
            {"type": key, "name": f"held-out {key.replace('_', ' ')}", "value": value}
            for key, about in (judged.get(name, {}).get("metrics") or {}).items()
            if (value := _value(about.get("model"))) is not None
        ]
        if not values:
            continue
        synthetic = " of generated demo data (synthetic)" if entry["synthetic"] else ""
        unit = one.unit if (one := _domain(name)) else UNIT
        index.append({
            "name": name,
            "results": [{
                "task": {"type": "other", "name": about.task if (about := _about(name)) else family_of(name)},
                "dataset": {"type": "private", "name": f"Held-out {unit.many}{synthetic}", "split": "validation"},
                "metrics": values,
            }],
        })  # fmt: skip
    if index:
        front["model-index"] = index
    return front


def _domain(name: str) -> Domain | None:
    """The domain of a run's family; None if the family is not registered here."""
    family = family_of(name)
    return next((one for one in domains().values() if any(facts.name == family for facts in one.families)), None)


def _about(name: str) -> CardText | None:
    found = _domain(name)
    return found.card(family_of(name)) if found else None


def _tags(receipt: Mapping[str, Any]) -> list[str]:
    """The domains' tags, then those of the exported formats."""
    entries = receipt["families"]
    kinds = {about.get("kind") for entry in entries.values() for about in entry["files"].values()}
    tags = [tag for name in entries if (one := _domain(name)) for tag in one.tags]
    tags += [tag for kind, tag in FORMATS.items() if kind in kinds] + ["athanor"]
    return list(dict.fromkeys(tags)) + (["synthetic-data"] if receipt["synthetic"] else [])


def _heading(name: str, entry: Mapping[str, Any]) -> str:
    item = item_of(name)
    return plain(f"{entry['title']}: {item}" if item else entry["title"])


def _family(name: str, entry: Mapping[str, Any], judged: Mapping[str, Any], about: CardText | None) -> str:
    trained = entry.get("trained") or {}
    lines = [f"## {_heading(name, entry)}", about.about if about else ""]
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
        f"| `{file}` | {size(about['bytes'])} | {plain(file_summary(about))} |"
        for file, about in entry["files"].items() if about.get("kind") in SHOWN
    ))  # fmt: skip
    for graph in (entry.get("graphs") or {}).values():
        lines.append(_signature(graph))
    words = one.data_words if (one := _domain(name)) else "data"
    data = "synthetic (generated by a program)" if entry["synthetic"] else f"the owner's {words}; not published"
    base = base_in(entry)
    facts = [
        ("base model", plain(base.words) if base else ""),
        ("training data", data),
        ("data digest", f"`{trained.get('data_digest', '')}`"),
        ("seed", str(trained.get("seed", ""))),
        ("steps", str((entry.get("checkpoint") or {}).get("step", ""))),
        ("time", duration(trained["seconds"]) if isinstance(trained.get("seconds"), int | float) else ""),
        ("hardware", plain(str((trained.get("hardware") or {}).get("device", "")))),
        ("code", f"`{trained.get('code_version', '')}`"),
    ]
    lines.append("### Training\n\n" + "\n".join(f"- {key}: {value}" for key, value in facts if value))
    notes = [*(about.limits if about else ()), *(str(note) for note in entry.get("notes") or [])]
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
    """Inputs and outputs of a graph; tensors that are numbered (`past_0`, `past_1`, of a cache) share one line."""
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
    """`text` on one line, escaped so that Markdown and HTML show it as it is."""
    text = re.sub(r"([\\`*_{}\[\]#|!])", r"\\\1", " ".join(str(text).split()))
    return text.replace("<", "&lt;").replace(">", "&gt;")
