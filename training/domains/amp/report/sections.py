"""The sections of the report: what can be heard, noise over the fretboard, cost, and the captures."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.domain import Section
from training.domains.amp.families import AMP, SIDES
from training.export.layout import Layout
from training.judgement import Interval
from training.report.plots import chart
from training.report.reading import attempt, objects, read_json
from training.workspace import Workspace

HERE = Path(__file__).parent
STYLE, SCRIPT = HERE / "amp.css", HERE / "amp.js"
MOST = 4  # captures with players: a page of many minutes of sound would be too large to open
AUDIBLE = -10.0  # dB of noise-to-mask ratio
LOWEST = -60.0  # dB; what is lower is drawn there: it is not heard
#: Predictor of the evaluation -> what the charts call it.
LINES = {"teacher": "before", "student": "after", "T_2": "2x oversampling"}
SOUNDS = {"guitar": "Guitar, held out", "sweep": "A sine from 110 Hz to 3.5 kHz"}


def sections(workspace: Workspace) -> Iterator[Section]:
    """The sections of the job in `workspace`; those without data yet are left out."""
    problems: list[str] = []
    metrics = attempt(lambda: read_json(workspace.exports / "metrics.json"), problems) or {}
    judged = sorted(_judged(metrics), key=lambda one: -one["nmr"])
    heard = [found for one in judged if (found := _heard(workspace, one, problems)) is not None]
    if heard:
        facts = {"captures": heard[:MOST], "more": len(heard) - MOST}
        yield Section("listen", "Before and after", HERE / "listen.html.j2", facts, "after verdict", SCRIPT, STYLE,
                      tuple(problems))  # fmt: skip
    if judged:
        facts = {"captures": judged, "audible": AUDIBLE}
        yield Section("fretboard", "Noise over the fretboard", HERE / "fretboard.html.j2", facts, style=STYLE)
    costs = [found | {"share": one["share"]} for one in judged if (found := _cost(workspace, one["item"])) is not None]
    if costs:
        yield Section("cpu", "What playing costs", HERE / "cost.html.j2", {"captures": costs}, style=STYLE)
    summary = attempt(lambda: read_json(workspace.manifests / "summary.json"), [])
    if summary is not None:
        facts = {
            "summary": summary,
            "guitar": [{"name": Path(path).name, **about} for path, about in summary["di"].items()],
        }
        yield Section("captures", "Captures", HERE / "captures.html.j2", facts, "data", style=STYLE)


# -- noise -------------------------------------------------------------------------------------------------------------


def _judged(metrics: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The evaluated captures, each with its charts."""
    for run, entry in objects(metrics.get("families")):
        family, _, item = run.partition("/")
        about = entry.get("amp")
        if family != AMP.name or not about:
            continue
        tones = about["tones"]
        verdict = entry.get("verdict") or {}
        yield {
            "item": item, "verdict": verdict.get("word", ""), "why": verdict.get("why", []),
            "nmr": _excess(tones, "student"), "before": _excess(tones, "teacher"), "twice": _excess(tones, "T_2"),
            "oversample": bool(about.get("oversample_instead")),
            "share": float(about.get("share", 1.0)),
            "rows": list(_beside_twice(entry.get("metrics") or {})),
            "charts": [
                *(one for level in _levels(tones) for one in _charts(tones, level)),
                *_by_level(about.get("levels", [])),
            ],
        }  # fmt: skip


def _beside_twice(metrics: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Each figure of the student and of 2x oversampling, and their difference on the same notes or clips."""
    for name, metric in metrics.items():
        other = metric["baselines"].get("T_2", {})
        if "gap" in other:
            unit = " %" if metric["unit"] == "%" else f" {metric['unit']}"
            sides = {"after": metric["model"], "twice": other, "gap": other["gap"]}
            texts = {
                side: Interval(one["value"], one["low"], one["high"]).formatted(unit) for side, one in sides.items()
            }
            yield {"name": metric.get("title", name), "better": metric["better"], **texts}


def _levels(tones: Sequence[Mapping[str, Any]]) -> list[float]:
    return sorted({float(tone["level"]) for tone in tones}, reverse=True)


def _charts(tones: Sequence[Mapping[str, Any]], level: float) -> Iterator[Any]:
    chosen = sorted((tone for tone in tones if float(tone["level"]) == level), key=lambda tone: tone["note"])
    notes = [tone["note"] for tone in chosen]
    for key, title in (("nmr", "Noise-to-mask ratio, dB"), ("hesr", "Error of the harmonics, dB")):
        lines = [
            (name, notes, [max(LOWEST, float(tone[key][predictor])) for tone in chosen])
            for predictor, name in LINES.items()
            if all(tone.get(key, {}).get(predictor) is not None for tone in chosen)
        ]
        if key == "nmr":
            lines.append((f"audible above {AUDIBLE:g} dB", [notes[0], notes[-1]], [AUDIBLE, AUDIBLE]))
        else:
            lines = [line for line in lines if line[0] != LINES["teacher"]]
        found = chart(f"{title}, by MIDI note, tones at {level:g} dB", lines) if lines else None
        if found is not None:
            yield found


def _by_level(tones: Sequence[Mapping[str, Any]]) -> Iterator[Any]:
    """Noise over the level, a chart a note."""
    for note in sorted({tone["note"] for tone in tones}):
        chosen = sorted((tone for tone in tones if tone["note"] == note), key=lambda tone: tone["level"])
        levels = [float(tone["level"]) for tone in chosen]
        lines = [
            (name, levels, [max(LOWEST, float(tone["nmr"][predictor])) for tone in chosen])
            for predictor, name in LINES.items()
        ]
        lines.append((f"audible above {AUDIBLE:g} dB", [levels[0], levels[-1]], [AUDIBLE, AUDIBLE]))
        found = chart(f"Noise-to-mask ratio, dB, by level in dB, a tone of {chosen[0]['f0']:,.0f} Hz", lines)
        if found is not None:
            yield found


def _excess(tones: Sequence[Mapping[str, Any]], predictor: str) -> float:
    """Mean over tones of the dB above AUDIBLE; 0 for a tone that is not above it."""
    values = [max(AUDIBLE, float(tone["nmr"][predictor])) - AUDIBLE for tone in tones if predictor in tone["nmr"]]
    return float(np.mean(values)) if values else float("nan")


# -- sound -------------------------------------------------------------------------------------------------------------


def _heard(workspace: Workspace, judged: Mapping[str, Any], problems: list[str]) -> dict[str, Any] | None:
    """The players and pictures of a capture; None before its export."""
    folder = workspace.exports / Layout.of(f"{AMP.name}/{judged['item']}").samples
    sounds = []
    for name, title in SOUNDS.items():
        sides = {side: folder / f"{name}_{side}.flac" for side in SIDES}
        if all(path.is_file() for path in sides.values()):
            uris = attempt(
                lambda sides=sides: {side: _uri(path, "audio/flac") for side, path in sides.items()}, problems
            )
            pictures = [
                {"side": side, "src": _uri(path, "image/png")}
                for side in ("before", "after")
                if (path := folder / f"{name}_{side}.png").is_file()
            ]
            if uris:
                sounds.append({"name": name, "title": title, "sides": uris, "pictures": pictures})
    return {**judged, "sounds": sounds} if sounds else None


def _uri(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _cost(workspace: Workspace, item: str) -> dict[str, Any] | None:
    path = workspace.exports / Layout.of(f"{AMP.name}/{item}").artefact("cost.json")
    try:
        return {"item": item, "rows": json.loads(path.read_text(encoding="utf-8"))["rows"]}
    except FileNotFoundError:
        return None
