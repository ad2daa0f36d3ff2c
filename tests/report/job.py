"""A small finished job with everything that a page can tell, and hostile names wherever a user's names can stand."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np

from training.budget import book as books
from training.budget.account import ledger_path
from training.domains.music.composing.synth import render, write_preview
from training.domains.music.midi.reader import read_score
from training.export import receipt
from training.workspace import Workspace

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"
STEPS = 60
GOLDEN = Path(__file__).parents[1] / "domains" / "music" / "golden" / "piece.mid"


_made: dict[str, Path] = {}


def make(root: Path, *, synthetic: bool = True) -> Workspace:
    """The job in `root`. Its sounds take a moment: they are made once."""
    if "job" not in _made:
        folder = Path(tempfile.mkdtemp())
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        _make_samples(folder / "samples")
        _made["job"] = folder
    return _make(root, synthetic, _made["job"] / "samples")


def _make(root: Path, synthetic: bool, samples: Path) -> Workspace:
    workspace = Workspace(root)
    run = workspace.runs("spectocloud") / "20260101-000000-aaaa"
    run.mkdir(parents=True)
    records = []
    for step in range(2, STEPS + 1, 2):
        loss = 3 * 0.95**step
        records.append({"kind": "train", "step": step, "loss": loss, "lr": 1e-3, "samples_per_second": 50.0,
                        "input_wait": 0.02, "total_steps": STEPS, "seconds_left": float(STEPS - step)})  # fmt: skip
        if step % 20 == 0:
            records.append({"kind": "validation", "step": step, "epoch": step // 20, "val_loss": loss + 0.1,
                            EVIL: loss})  # fmt: skip
    (run / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records) + '{"kind": "tra')
    (run / "settings.yaml").write_text("training: {early_stopping: {monitor: val_loss}}\n")

    workspace.manifests.mkdir(parents=True)
    (workspace.manifests / "summary.json").write_text(json.dumps({
        "synthetic": synthetic, "audio_files": 5, "midi_files": 6, "pairs": 5, "hours": 0.4, "notes": 1234,
        "songs": {"midi": {"train": 4, "val": 2}}, "emotions": {"happy": 4, EVIL: 2},
        "quarantined": [{"path": f"sad/{EVIL}.mid", "reason": "not a MIDI file"}], "unmatched_midi": [f"{EVIL}.mid"],
    }))  # fmt: skip
    suspect = {"song": f"{EVIL}/a", "label": "sad", "likelier": "happy", "probability": 0.01, "why": ["It is fast."]}
    (workspace.manifests / "audit.json").write_text(json.dumps({"format": 1, "songs": 6, "flagged": [suspect]}))
    session = books.Session(id="a", stage="train", families=("spectocloud",), began=books.now(), seconds=90, exit=0,
                            price=2.0)  # fmt: skip
    books.store(ledger_path(workspace), books.Book(job=books.Job(began=books.now(), sessions=(session,), hours=1.0)))

    shutil.copytree(samples, workspace.exports / "samples")

    parity = {"tolerance": 1e-4, "trials": [{"sizes": {"batch": 2}, "error": {"y": 1.5e-7}}]}
    receipt.merge_family(workspace.exports, "spectocloud", {
        "title": "Spectocloud", "synthetic": synthetic, "checkpoint": {"sha256": "c" * 64},
        "trained": {"run_id": run.name, "data_digest": "d" * 64, "seed": 42, "seconds": 3700.0,
                    "libraries": {"torch": "2"}, "hardware": {"device": "NVIDIA H200", "processes": 8, "cpu": "EPYC"}},
        "metrics": {}, "cost": {"seconds": 3700.0, "money": 2.06, "currency": "USD"}, "exported": {}, "graphs": {},
        "files": {"spectocloud.onnx": {"kind": "onnx", "sha256": "e" * 64, "bytes": 123456, "parity": parity}},
        "notes": [f"A note of {EVIL}"],
    })  # fmt: skip
    write_metrics(workspace, synthetic=synthetic)
    return workspace


def _make_samples(samples: Path) -> None:
    (samples / "midi_generator").mkdir(parents=True)
    notes = read_score(GOLDEN).seconds()
    for emotion in ("happy", "sad"):
        shutil.copy(GOLDEN, samples / "midi_generator" / f"{emotion}.mid")
        write_preview(samples / "midi_generator" / f"{emotion}.mp3", render(notes[:40]), seconds=3.0)
    (samples / "spectocloud").mkdir()
    listed = {}
    rng = np.random.default_rng(0)
    for number, song in enumerate((EVIL, "sad/rain")):
        name = f"{number:02d}_song"
        for end in (".npy", ".target.npy"):
            cloud = rng.random((1200, 10)).astype(np.float32)
            np.save(samples / "spectocloud" / f"{name}{end}", cloud)
        listed[name] = {"song": song, "start": 1.5 * number, "emotion": [0.5, -0.5, 0.7]}
    (samples / "spectocloud" / "clouds.json").write_text(json.dumps(listed))


def write_metrics(workspace: Workspace, *, synthetic: bool = True) -> None:
    mean = {"value": 0.1, "low": 0.09, "high": 0.11, "gap": {"value": -0.05, "low": -0.06, "high": -0.04}}
    bar = {"model": {"value": 0.05, "low": 0.04, "high": 0.06}, "better": "lower", "unit": "windows", "meaning": EVIL,
           "floor": 0.08, "baselines": {"mean_cloud": mean, EVIL: {"value": 0.2}}}  # fmt: skip
    shifts = {"tempo": {"unit": "%", "emotions": {EVIL: {"model": 3.0, "training_music": -12.5}}}}
    family = {"title": "Spectocloud", "synthetic": synthetic, "metrics": {"chamfer": bar}, "shifts": shifts,
              "subject": {"checkpoint_sha256": "c" * 64},
              "verdict": {"word": "learnt", "why": ["It beats the mean cloud.", f"Not {EVIL}."]}}  # fmt: skip
    (workspace.exports / "metrics.json").write_text(json.dumps({"format": 1, "families": {"spectocloud": family}}))
