"""Music's sections of the report: generated pieces, clouds, the effect of emotions on the music, and the corpus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from training.domain import Section
from training.domains.music import emotion
from training.domains.music.families import MIDI_GENERATOR, SPECTOCLOUD
from training.domains.music.report.samples import clouds, pieces
from training.domains.music.report.shifts import shifts
from training.report.reading import attempt, objects, read_json
from training.workspace import Workspace

HERE = Path(__file__).parent
SCRIPT, STYLE = HERE / "music.js", HERE / "music.css"
AUDIT = "audit.json"


def sections(workspace: Workspace) -> Iterator[Section]:
    """The sections of the job in `workspace`; those without data yet are left out. A damaged file is reported in the
    `problems` of its section."""
    # The report itself reads summary.json and metrics.json too, and reports damage to them; so it is not repeated here.
    summary = attempt(lambda: read_json(workspace.manifests / "summary.json"), [])
    metrics = attempt(lambda: read_json(workspace.exports / "metrics.json"), []) or {}
    counts = dict((summary or {}).get("emotions") or {})
    samples = workspace.exports / "samples"
    yield from _listen(samples / MIDI_GENERATOR.name, list(counts))
    yield from _clouds(samples / SPECTOCLOUD.name)
    yield from _emotions(metrics)
    if summary is not None:
        yield _corpus(workspace, summary, counts)


def _listen(folder: Path, labels: list[str]) -> Iterator[Section]:
    problems: list[str] = []
    found = attempt(lambda: pieces(folder, emotion.BASES), problems) or []
    if found or problems:
        facts = {"pieces": found, "labels": labels}
        yield Section(
            "listen", "Listen", HERE / "listen.html.j2", facts, "after verdict", SCRIPT, STYLE, tuple(problems)
        )


def _clouds(folder: Path) -> Iterator[Section]:
    problems: list[str] = []
    found = attempt(lambda: clouds(folder), problems) or []
    if found or problems:
        facts = {"clouds": found}
        yield Section(
            "clouds", "Clouds", HERE / "clouds.html.j2", facts, "after verdict", SCRIPT, STYLE, tuple(problems)
        )


def _emotions(metrics: Mapping[str, Any]) -> Iterator[Section]:
    found = []
    for name, judged in objects(metrics.get("families")):
        names, rows = shifts(judged)
        if rows:
            found.append({"title": str(judged.get("title") or name), "emotions": names, "shifts": rows})
    if found:
        yield Section("emotions", "Emotions", HERE / "emotions.html.j2", {"families": found}, "after results")


def _corpus(workspace: Workspace, summary: Mapping[str, Any], counts: Mapping[str, int]) -> Section:
    problems: list[str] = []
    audit = attempt(lambda: read_json(workspace.manifests / AUDIT), problems)
    most = max(counts.values(), default=1) or 1
    facts = {
        "corpus": summary,
        "splits": summary.get("rows") or summary.get("songs") or {},  # manifest -> rows of each side
        "emotions": [(name, count, 100 * count / most) for name, count in sorted(counts.items(), key=lambda c: -c[1])],
        "audit": _suspects(audit),
        "time_maps": [f"{item.get('song')}: {item.get('what')}" for item in summary.get("time_maps") or []],
    }
    return Section("corpus", "Corpus", HERE / "corpus.html.j2", facts, "data", style=STYLE, problems=tuple(problems))


def _suspects(audit: Mapping[str, Any] | None) -> list[dict[str, str]]:
    """The labels that `prepare --audit` listed as contradicted by the notes."""
    return [
        {
            "song": str(item.get("song")),
            "label": str(item.get("label")),
            "likelier": str(item.get("likelier")),
            "why": "; ".join(str(reason) for reason in item.get("why") or []),
        }
        for item in (audit or {}).get("flagged") or []
    ]
