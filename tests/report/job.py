"""A small finished job of a toy domain with everything that a page can show, and hostile names wherever a user's names
can appear."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from training.budget import book as books
from training.budget.account import ledger_path
from training.export import receipt
from training.workspace import Workspace

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"
STEPS = 60


@pytest.fixture(autouse=True)
def toy_domains(monkeypatch):
    """Registers the domains of toy/domain.py in this process and in those that it starts."""
    monkeypatch.setenv("ATHANOR_DOMAINS", "tests.report.toy.domain:TOY,tests.report.toy.domain:OTHER")


def make(root: Path, *, synthetic: bool = True, family: str = "alpha", title: str = "Alpha",
         base: dict[str, Any] | None = None) -> Workspace:  # fmt: skip
    """Write the job to `root`."""
    workspace = Workspace(root)
    run = write_run(workspace, family)
    workspace.manifests.mkdir(parents=True)
    (workspace.manifests / "summary.json").write_text(json.dumps({
        "synthetic": synthetic, "quarantined": [{"path": f"sad/{EVIL}.txt", "reason": "not a letter"}],
    }))  # fmt: skip
    session = books.Session(id="a", stage="train", families=(family,), began=books.now(), seconds=90, exit=0,
                            price=2.0)  # fmt: skip
    books.store(ledger_path(workspace), books.Book(job=books.Job(began=books.now(), sessions=(session,), hours=1.0)))
    workspace.exports.mkdir()
    (workspace.exports / "letters.json").write_text(json.dumps({"letters": ["x", EVIL]}))
    export(workspace, family, title, run.name, synthetic, base)
    write_metrics(workspace, {family: judged(title, synthetic=synthetic)})
    return workspace


def write_run(workspace: Workspace, name: str, factor: float = 1.0) -> Path:
    """Write a run's log, whose last line is incomplete, and its settings; returns the run's folder."""
    run = workspace.runs(name) / "20260101-000000-aaaa"
    run.mkdir(parents=True)
    records = []
    for step in range(2, STEPS + 1, 2):
        loss = 3 * 0.95**step * factor
        records.append({"kind": "train", "step": step, "loss": loss, "lr": 1e-3, "samples_per_second": 50.0,
                        "input_wait": 0.02, "total_steps": STEPS, "seconds_left": float(STEPS - step)})  # fmt: skip
        if step % 20 == 0:
            records.append({"kind": "validation", "step": step, "epoch": step // 20, "val_loss": loss + 0.1,
                            EVIL: loss})  # fmt: skip
    (run / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records) + '{"kind": "tra')
    (run / "settings.yaml").write_text("training: {early_stopping: {monitor: val_loss}}\n")
    return run


def export(workspace: Workspace, name: str, title: str, run_id: str, synthetic: bool,
           base: dict[str, Any] | None = None) -> None:  # fmt: skip
    """Add an entry to the receipt."""
    parity = {"tolerance": 1e-4, "trials": [{"sizes": {"batch": 2}, "error": {"y": 1.5e-7}}]}
    receipt.merge_family(workspace.exports, name, {
        "title": title, "synthetic": synthetic, "checkpoint": {"sha256": "c" * 64},
        "trained": {"run_id": run_id, "data_digest": "d" * 64, "seed": 42, "seconds": 3700.0,
                    "libraries": {"torch": "2"}, "hardware": {"device": "NVIDIA H200", "processes": 8, "cpu": "EPYC"}},
        "base": base, "metrics": {},
        "cost": {"seconds": 3700.0, "money": 2.06, "currency": "USD"}, "exported": {}, "graphs": {},
        "files": {f"{name}.onnx": {"kind": "onnx", "sha256": "e" * 64, "bytes": 123456, "parity": parity}},
        "notes": [f"A note of {EVIL}"],
    })  # fmt: skip


def judged(title: str, *, synthetic: bool = True, word: str = "learnt", value: float = 0.05) -> dict[str, Any]:
    """What metrics.json holds of a family or an item."""
    mean = {"value": 0.1, "low": 0.09, "high": 0.11, "gap": {"value": -0.05, "low": -0.06, "high": -0.04}}
    bar = {"model": {"value": value, "low": value - 0.01, "high": value + 0.01}, "better": "lower", "unit": "windows",
           "meaning": EVIL, "floor": 0.08, "baselines": {"plain_mean": mean, EVIL: {"value": 0.2}}}  # fmt: skip
    return {"title": title, "synthetic": synthetic, "metrics": {"error": bar}, "rows": {"train": 1044, "held_out": 12},
            "subject": {"checkpoint_sha256": "c" * 64},
            "verdict": {"word": word, "why": ["It beats the plain mean.", f"Not {EVIL}."]}}  # fmt: skip


def write_metrics(workspace: Workspace, families: dict[str, Any]) -> None:
    (workspace.exports / "metrics.json").write_text(json.dumps({"format": 1, "families": families}))
