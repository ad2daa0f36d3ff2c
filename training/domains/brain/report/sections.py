"""The sections of the report: how the model compares, whether stimulus and BOLD are aligned, and what was split how."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from training.domain import Section
from training.report.plots import chart, number
from training.report.reading import attempt, objects, read_json
from training.workspace import Workspace

HERE = Path(__file__).parent
STYLE = HERE / "brain.css"
#: Of encoding/projections.py, encoding/slices.py and autoencoder/pictures.py, which import numpy.
PICTURE, SLICES, FRAMES = "r.png", "slices.png", "frames.png"
BANDS = {"pixels": "picture (principal components)", "motion": "motion", "sound": "sound (log-mel)", "words": "words"}


def sections(workspace: Workspace) -> Iterator[Section]:
    """The sections of the job in `workspace`; those without data yet are left out."""
    metrics = attempt(lambda: read_json(workspace.exports / "metrics.json"), []) or {}
    judged = [
        {"title": str(entry.get("title") or run), **_figures(entry), "map": _picture(workspace, run, PICTURE),
         "slices": _picture(workspace, run, SLICES), "frames": _picture(workspace, run, FRAMES)}
        for run, entry in objects(metrics.get("families")) if "brain" in entry
    ]  # fmt: skip
    if judged:
        yield Section("brain", "Ceiling and segments", HERE / "figures.html.j2", {"families": judged}, "after results",
                      style=STYLE)  # fmt: skip
    for _, entry in objects(metrics.get("families")):
        if "decoding" in entry:
            yield Section("decoding", "What was decoded", HERE / "decoding.html.j2", _decoding(entry), "after results",
                          style=STYLE)  # fmt: skip
    problems: list[str] = []
    summary = attempt(lambda: read_json(workspace.manifests / "summary.json"), problems)
    if summary is None or "scans" not in summary:
        return
    charts = [one for one in (_scan(run, of, summary["tr"]) for run, of in summary["scans"].items()) if one]
    facts = {"alarms": summary["alarms"], "remarks": summary["remarks"], "charts": charts}
    yield Section(
        "alignment", "Is the film where the BOLD says?", HERE / "alignment.html.j2", facts, "data", style=STYLE
    )
    yield Section("bold", "BOLD and splits", HERE / "bold.html.j2",
                  {"summary": summary, "runs": [_run(name, of, summary) for name, of in summary["blocks"].items()]},
                  "data", style=STYLE, problems=tuple(problems))  # fmt: skip


def _picture(workspace: Workspace, run: str, name: str) -> str:
    """A picture of a family's maps as a data URI; empty before it is exported."""
    path = workspace.exports / "samples" / run / name
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}" if path.is_file() else ""


def _figures(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the sealed test once it was opened, else of the validation blocks."""
    tested = entry.get("test")
    of = (tested or entry)["brain"]
    ceiling, matching, significant = of["ceiling"], of["matching"], of["significant"]
    return {
        "ceiling": None if ceiling["mean"] is None else number(ceiling["mean"], 3),
        "share": None if ceiling["share"] is None else f"{100 * ceiling['share']:.0f} %",
        "kind": ceiling["kind"], "bound": ceiling["bound"],
        "others": [{"kind": one["kind"], "bound": one["bound"], "mean": number(one["mean"], 3)}
                   for one in of.get("other_ceilings", [])],
        "subjects": [
            {"name": name, "r": number(r, 3), "right": matching["right"][place],
             "significant": significant["counts"][place] if significant["counts"] else None}
            for place, (name, r) in enumerate(of["r_by_subject"].items())
        ],
        "segments": matching["of"], "chance": matching["chance"], "volumes": matching["volumes"],
        "voxels": significant.get("of"), "why": significant.get("why", ""),
        "truth": {name: number(value, 3) for name, value in of.get("truth", {}).items()},
        "blocks": of["blocks"], "split": "the sealed test" if tested else "validation",
        "unseen": [_unseen(one) for one in of.get("unseen", [])],
        "regions": [_region(row) for row in of.get("regions", [])],
    }  # fmt: skip


def _unseen(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The rows of a subject who was left out of training."""

    def text(of: Mapping[str, Any]) -> str:
        return number(of["r"], 3) + (f" ({number(of['low'], 3)} to {number(of['high'], 3)})" if of["estimated"] else "")

    return {"subject": entry["subject"], "of": [
        {"minutes": f"{one['minutes']:g}", **{name: text(one[name]) for name in ("shared", "own", "null", "gap")}}
        for one in entry["of"]
    ]}  # fmt: skip


def _region(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": row["name"], "voxels": f"{row['voxels']:,}", "r": number(row["r"], 3),
        "interval": "too few blocks" if row["low"] is None else f"{number(row['low'], 3)} to {number(row['high'], 3)}",
        "ridge": "" if row["banded_ridge"] is None else number(row["banded_ridge"], 3),
        "ceiling": "unknown" if row["ceiling"] is None else number(row["ceiling"], 3),
        "share": "" if row["share"] is None else f"{100 * row['share']:.0f} %",
        "q": "not computed" if row["q"] is None else f"{row['q']:.2g}",
    }  # fmt: skip


def _decoding(entry: Mapping[str, Any]) -> dict[str, Any]:
    of, matching = entry["decoding"], entry["metrics"]["matching"]["model"]
    low, high = (f"{100 * matching[end]:.0f} %" for end in ("low", "high"))
    interval = f" ({low} to {high})" if low != high else ""  # of a few segments, all right or all wrong, there is none
    return {
        "delays": f"{min(of['delays']):g} to {max(of['delays']):g}",
        "bands": [
            {"title": BANDS.get(band, band), "r": number(r["r"], 3), "ridge": number(r["ridge"], 3),
             "null": number(r["null"], 3), "width": _width(r["r"]), "ridge_width": _width(r["ridge"])}
            for band, r in of["bands"].items()
        ],
        "subjects": [
            {"name": name, "r": number(one["r"], 3), "right": one["right"], "p": f"{one['p']:.2g}"}
            for name, one in of["subjects"].items()
        ],
        "segments": of["segments"], "volumes": of["volumes"],
        "interval": f"Mean of the subjects: {100 * matching['value']:.0f} %{interval}; chance "
                    f"{100 * of['chance']:.1f} %" + (f"; permutations: p = {of['p']:.2g}." if "p" in of else "."),
    }  # fmt: skip


def _width(r: float) -> float:
    return round(100 * min(1.0, max(0.0, r)), 1)


def _scan(run: str, of: Mapping[str, Any], tr: float) -> Any:
    """r of a ridge by the shift of the stimulus in seconds."""
    lag = of["lag"]
    title = f"run {run}: what a ridge predicts, by the shift of the stimulus in seconds"
    return chart(title, [("r", [shift * tr for shift in lag["shifts"]], lag["r"])])


def _run(name: str, blocks: list[list[Any]], summary: Mapping[str, Any]) -> dict[str, Any]:
    """The blocks of a run as parts of its length, in percent."""
    volumes = summary["volumes"][name]
    parts = [
        {"split": split, "left": round(100 * begin / volumes, 2), "width": round(100 * (end - begin) / volumes, 2),
         "begin": begin, "end": end}
        for split, begin, end in blocks
    ]  # fmt: skip
    return {"name": name, "volumes": volumes, "onset": summary["onsets"][name], "parts": parts}
