"""What the page shows, gathered from the files that a job writes. Nothing is measured here. What is missing is left
out: the job may still be at its beginning."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from training.budget import book as books
from training.budget.account import ledger_path
from training.domain import DemoText
from training.export.receipt import read_receipt
from training.export.table import SHOWN, file_summary
from training.pretrained import base_in
from training.registry import domains, family_of, item_of
from training.report import groups, measures
from training.report.family import Family
from training.report.groups import Group, Quarantined
from training.report.parts import Part, domains_of, parts
from training.report.plots import chart, number
from training.report.reading import attempt, objects, read_json, read_lines
from training.report.runs import RunLog
from training.report.standing import Standing, stand, title_of
from training.sampling_unit import UNIT, Unit
from training.units import duration, size
from training.workspace import Workspace

METRICS, SUMMARY = "metrics.json", "summary.json"
OPENINGS = "test_openings.jsonl"  # under runs/: each use of the sealed test split
MOST_CHARTS = 12
WORDS = {"learnt": "learnt", "weak": "weak", "not learnt": "failed"}  # a verdict's word -> its CSS class
NOT_CURVES = {"step", "epoch", "kind", "seconds"}


@dataclass
class Facts:
    """Everything on the page."""

    written: str
    synthetic: bool
    state: str
    running: bool
    finished: bool  # the job is done and its exports are verified
    families: list[Family]  # those with one model
    groups: list[Group]  # those with one model per item
    parts: list[Part]  # the domains' own sections
    demos: list[tuple[str, DemoText]]  # (domain, what its demo is for), where the data is synthetic
    stages: list[tuple[str, str, str]]
    spent: list[tuple[str, str]]
    openings: list[dict[str, str]]  # of the sealed test split
    data: Mapping[str, Any] | None  # summary.json
    problems: list[str]
    receipt: Mapping[str, Any] | None


def gather(workspace: Workspace) -> Facts:
    """Everything that the page shows of the job in `workspace` now. A damaged file is listed in `problems`."""
    problems: list[str] = []
    receipt = attempt(lambda: read_receipt(workspace.exports), problems)
    metrics = attempt(lambda: read_json(workspace.exports / METRICS), problems) or {}
    summary = attempt(lambda: read_json(workspace.manifests / SUMMARY), problems)
    book = attempt(lambda: books.read(ledger_path(workspace)), problems)
    out = attempt(lambda: groups.quarantined(workspace), problems) or {}
    judged = dict(objects(metrics.get("families")))
    exported = (receipt or {"families": {}})["families"]
    titles = {name: str(about.get("title") or family_of(name)) for name, about in {**judged, **exported}.items()}
    job = stand(workspace, titles, book or books.Book())
    problems += [one.run.problem for one in job.families if one.run is not None and one.run.problem]
    units = {facts.name: one.unit for one in domains().values() for facts in one.families}
    families = [
        _family(one, exported.get(one.name), judged.get(one.name) or {}, units.get(family_of(one.name), UNIT))
        for one in job.families
    ]
    names = {one.name for one in families} | set(out)
    synthetic = any(one.get("synthetic") for one in (receipt or {}, summary or {})) or any(
        f.synthetic for f in families
    )
    found = domains_of(workspace, names, summary)
    return Facts(
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        synthetic=synthetic,
        state=job.text,
        running=job.running,
        finished=job.book is not None and job.book.done is not None,
        families=_single(families, out),
        groups=groups.group(families, {family_of(n): title_of(family_of(n), titles.get(n)) for n in names}, out),
        parts=parts(workspace, found, problems),
        demos=[(one.title, one.demo_text()) for one in found] if synthetic else [],
        stages=job.stages,
        spent=job.spent,
        openings=_openings(attempt(lambda: read_lines(workspace.root / "runs" / OPENINGS), problems) or []),
        data=summary,
        problems=problems,
        receipt=receipt,
    )


def _single(families: list[Family], out: Mapping[str, Quarantined]) -> list[Family]:
    """The families that have one model; a quarantined one shows the reason."""
    found = [one for one in families if not item_of(one.name)]
    known = {one.name for one in found}
    found += [Family(name, title_of(name), "") for name in out if not item_of(name) and name not in known]
    for one in found:
        if one.name in out:
            one.state = out[one.name].text
            one.caveat = out[one.name].reason or one.caveat
    return found


def _openings(records: list[dict[str, Any]]) -> list[dict[str, str]]:
    keys = ("time", "run", "purpose", "checkpoint_sha256", "data_digest")
    return [{key: str(record.get(key) or "") for key in keys} for record in records]


# -- a family ------------------------------------------------------------------------------------------------------


def _family(standing: Standing, entry: Any, judged: Mapping[str, Any], unit: Unit) -> Family:
    out = Family(
        standing.name, standing.title, standing.text, standing.running, share=standing.share, unit=unit,
        synthetic=bool((entry or {}).get("synthetic") or judged.get("synthetic")), receipt=entry,
    )  # fmt: skip
    rows = measures.row_counts(judged)
    if isinstance(rows.get("held_out"), int):
        count = rows["held_out"]
        out.judged_on = f"{count:,} held-out {unit.one if count == 1 else unit.many}"
        if isinstance(rows.get("train"), int):
            out.judged_on += f"; {rows['train']:,} were trained on"
    verdict = judged.get("verdict") or {}
    if verdict.get("word"):
        out.word = str(verdict["word"])
        out.look = WORDS.get(out.word, "none")
        out.why = [str(sentence) for sentence in verdict.get("why") or []]
        if standing.running:
            out.caveat = "This is the verdict on the weights of an earlier training; a new one is running."
        elif measures.other_weights(judged, entry):
            out.caveat = "This is the verdict on other weights than those that are exported: evaluate or export again."
    out.metrics = measures.metrics(judged)
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
    lowest = run.overfitting
    if lowest is not None:
        low, last = (f"{r['val_loss']:.4g} at step {r['step']:,}" for r in (lowest, run.validation[-1]))
        out.overfitting = (
            f"The held-out loss rose in the last two evaluations while the training loss fell: {low}, {last}. It is "
            "probably overfitting; the exported weights are those of the dashed line."
        )
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
    if base := base_in(entry):
        out.numbers.append(("base model", base.words))
    out.notes = [str(note) for note in entry.get("notes") or []]
    for name, about in entry["files"].items():
        if about.get("kind") in SHOWN:
            out.files.append(
                {"name": name, "kind": about["kind"], "size": size(about["bytes"]), "summary": file_summary(about)}
            )


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
