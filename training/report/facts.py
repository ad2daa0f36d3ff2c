"""What the page tells, gathered from the files that a job leaves. Nothing is measured here, and what is missing (the
job may still be at its beginning) is left out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from training.budget import book as books
from training.budget.account import ledger_path
from training.domains.music.report.samples import Piece, clouds, pieces
from training.errors import ExportError
from training.export.receipt import read_receipt
from training.export.table import told
from training.report import measures
from training.report.measures import Metric, Shift
from training.report.plots import Chart, chart, number
from training.report.runs import RunLog
from training.report.standing import Standing, stand
from training.units import duration, size
from training.workspace import Workspace

METRICS, SUMMARY, AUDIT = "metrics.json", "summary.json", "audit.json"
MOST_CHARTS = 12
WORDS = {"learnt": "learnt", "weak": "weak", "not learnt": "failed"}  # a verdict's word -> its look
NOT_CURVES = {"step", "epoch", "kind", "seconds"}


@dataclass
class Family:
    name: str
    title: str
    state: str  # for people
    running: bool = False
    synthetic: bool = False
    word: str = ""  # the verdict
    look: str = "none"
    why: list[str] = field(default_factory=list)
    caveat: str = ""  # to the verdict
    share: float | None = None  # of the steps, while it trains
    numbers: list[tuple[str, str]] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    small: list[Chart] = field(default_factory=list)
    validations: list[dict[str, str]] = field(default_factory=list)
    metrics: list[Metric] = field(default_factory=list)
    emotions: list[str] = field(default_factory=list)  # the columns of `shifts`
    shifts: list[Shift] = field(default_factory=list)
    receipt: Mapping[str, Any] | None = None
    files: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class Facts:
    """Everything on the page."""

    written: str
    synthetic: bool
    state: str
    running: bool
    finished: bool  # the job, its exports verified
    families: list[Family]
    stages: list[tuple[str, str, str]]
    spent: list[tuple[str, str]]
    corpus: Mapping[str, Any] | None
    emotions: list[tuple[str, int, float]]
    audit: list[dict[str, str]]
    pieces: list[Piece]
    clouds: list[dict[str, Any]]
    problems: list[str]
    receipt: Mapping[str, Any] | None


def gather(workspace: Workspace) -> Facts:
    """Of the job in `workspace`, as it stands now. A damaged file is told on the page, in `problems`."""
    problems: list[str] = []
    receipt = _or_told(lambda: read_receipt(workspace.exports), problems)
    metrics = _or_told(lambda: _json(workspace.exports / METRICS), problems) or {}
    summary = _or_told(lambda: _json(workspace.manifests / SUMMARY), problems)
    audit = _or_told(lambda: _json(workspace.manifests / AUDIT), problems)
    book = _or_told(lambda: books.read(ledger_path(workspace)), problems)
    judged = metrics.get("families") if isinstance(metrics.get("families"), dict) else {}
    exported = (receipt or {"families": {}})["families"]
    titles = {name: str(about.get("title") or name) for name, about in {**judged, **exported}.items()}
    job = stand(workspace, titles, book or books.Book())
    families = [_family(one, exported.get(one.name), judged.get(one.name) or {}) for one in job.families]
    synthetic = any(f.synthetic for f in families) or bool((receipt or {}).get("synthetic"))
    synthetic = synthetic or bool((summary or {}).get("synthetic"))
    counts = dict((summary or {}).get("emotions") or {})
    most = max(counts.values(), default=1) or 1
    samples = workspace.exports / "samples"
    order = ("happy", "sad", "angry", "fear", "surprise", "disgust")
    return Facts(
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        synthetic=synthetic,
        state=job.told,
        running=job.running,
        finished=job.book is not None and job.book.done is not None,
        families=families,
        stages=job.stages,
        spent=job.spent,
        corpus=summary,
        emotions=[(name, count, 100 * count / most) for name, count in sorted(counts.items(), key=lambda c: -c[1])],
        audit=_audit(audit),
        pieces=_or_told(lambda: pieces(samples / "midi_generator", order), problems) or [],
        clouds=_or_told(lambda: clouds(samples / "spectocloud"), problems) or [],
        problems=problems,
        receipt=receipt,
    )


def _json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} cannot be read: it holds no object.")
    return found


def _or_told(read: Any, problems: list[str]) -> Any:
    """What `read` returns; None where it cannot, and the page says why."""
    try:
        return read()
    except (OSError, ValueError, KeyError, ExportError) as error:
        problems.append(f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error))
        return None


# -- a family ------------------------------------------------------------------------------------------------------


def _family(standing: Standing, entry: Any, judged: Mapping[str, Any]) -> Family:
    out = Family(
        standing.name, standing.title, standing.told, standing.running, share=standing.share,
        synthetic=bool((entry or {}).get("synthetic") or judged.get("synthetic")), receipt=entry,
    )  # fmt: skip
    verdict = judged.get("verdict") or {}
    if verdict.get("word"):
        out.word = str(verdict["word"])
        out.look = WORDS.get(out.word, "none")
        out.why = [str(sentence) for sentence in verdict.get("why") or []]
        if standing.running:
            out.caveat = "This is the verdict on the weights before the training that runs now."
        elif measures.other_weights(judged, entry):
            out.caveat = "This is the verdict on other weights than those that are exported: evaluate or export again."
    out.metrics = measures.metrics(judged)
    out.emotions, out.shifts = measures.shifts(judged)
    if standing.run is not None:
        _add_run(out, standing.run)
    if entry is not None:
        _add_receipt(out, entry)
    return out


def _add_run(out: Family, run: RunLog) -> None:
    best = run.best
    trained = [r["step"] for r in run.train]
    judged = [r["step"] for r in run.validation]
    mark = float(best["step"]) if best else None
    loss = chart(
        "Loss",
        [
            ("training", trained, [_number(r.get("loss")) for r in run.train]),
            ("held-out", judged, [_number(r.get("val_loss")) for r in run.validation]),
        ],
        mark,
    )
    out.charts = [loss] if loss else []
    keys = [k for k in (run.validation[-1] if run.validation else {}) if k not in NOT_CURVES and k != "val_loss"]
    sides: list[tuple[str, list, list]] = [
        (k, judged, [_number(r.get(k)) for r in run.validation]) for k in keys[:MOST_CHARTS]
    ]
    sides += [
        (title, trained, [_number(r.get(k)) for r in run.train])
        for k, title in (("lr", "learning rate"), ("samples_per_second", "samples a second"), ("grad_norm", "gradient"))
    ]
    small = [chart(title, [(title, x, y)], mark if x is judged else None) for title, x, y in sides]
    out.small = [c for c in small if c]
    shown = ["val_loss", *keys[:5]]
    out.validations = [
        {"step": f"{r['step']:,}", "best": "best" if r is best else "", **{k: number(_number(r.get(k))) for k in shown}}
        for r in run.validation[-200:]
    ]
    if best is not None:
        out.numbers.append((f"best {run.monitor}", number(float(best[run.monitor]))))
        out.numbers.append(("at step", f"{best['step']:,}"))
    for key, title, form in (
        ("samples_per_second", "samples a second", "{:,.1f}"), ("tflops", "TFLOP/s", "{:.3g}"),
        ("mfu", "of the device's peak", "{:.1%}"), ("input_wait", "waiting for data", "{:.1%}"),
    ):  # fmt: skip
        value = run.typical(key)
        if value is not None:
            out.numbers.append((title, form.format(value)))


def _add_receipt(out: Family, entry: Mapping[str, Any]) -> None:
    trained, cost = entry.get("trained") or {}, entry.get("cost") or {}
    hardware = trained.get("hardware") or {}
    if isinstance(trained.get("seconds"), int | float):
        out.numbers.append(("training time", duration(trained["seconds"])))
    if cost.get("money") is not None:
        out.numbers.append(("cost of this model", f"{cost['money']:.2f} {cost.get('currency') or ''}".strip()))
    if hardware:
        several = f" x {hardware['processes']}" if hardware.get("processes", 1) > 1 else ""
        out.numbers.append(("trained on", f"{hardware.get('device')}{several}, {hardware.get('cpu', '')}"))
    out.notes = [str(note) for note in entry.get("notes") or []]
    for name, about in entry["files"].items():
        if about.get("kind") in ("onnx", "int8", "coreml", "weights"):
            out.files.append({"name": name, "kind": about["kind"], "size": size(about["bytes"]), "told": told(about)})


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _audit(audit: Mapping[str, Any] | None) -> list[dict[str, str]]:
    """Labels that the notes speak against, as `prepare --audit` lists them."""
    return [
        {
            "song": str(item.get("song")),
            "label": str(item.get("label")),
            "likelier": str(item.get("likelier")),
            "why": "; ".join(str(reason) for reason in item.get("why") or []),
        }
        for item in (audit or {}).get("flagged") or []
    ]
