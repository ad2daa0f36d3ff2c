"""A small finished job of music, with hostile strings wherever a user's names can occur."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np

from tests.report import job
from tests.report.job import EVIL
from training.domains.music.composing.synth import render, write_preview
from training.domains.music.midi.reader import read_score
from training.workspace import Workspace

GOLDEN = Path(__file__).parents[1] / "golden" / "piece.mid"

_made: dict[str, Path] = {}


def make(root: Path, *, synthetic: bool = True) -> Workspace:
    """The job in `root`. Its sounds take a moment to render, so they are made once per process."""
    if "job" not in _made:
        folder = Path(tempfile.mkdtemp())
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        _make_samples(folder / "samples")
        _made["job"] = folder
    workspace = job.make(root, synthetic=synthetic, family="spectocloud", title="Spectocloud")
    shutil.copytree(_made["job"] / "samples", workspace.exports / "samples")
    (workspace.manifests / "summary.json").write_text(json.dumps({
        "synthetic": synthetic, "audio_files": 5, "midi_files": 6, "pairs": 5, "hours": 0.4, "notes": 1234,
        "songs": {"midi": {"train": 4, "val": 2}}, "emotions": {"happy": 4, EVIL: 2},
        "quarantined": [{"path": f"sad/{EVIL}.mid", "reason": "not a MIDI file"}], "unmatched_midi": [f"{EVIL}.mid"],
        "alignment": {"identity": 4, "offset": 1, "rate": 0, "bent": 0}, "unaligned": [f"{EVIL}: too short"],
        "time_maps": [{"song": EVIL, "map": "offset", "seconds": 4.0, "what": "4.00 s late"}],
    }))  # fmt: skip
    suspect = {"song": f"{EVIL}/a", "label": "sad", "likelier": "happy", "probability": 0.01, "why": ["It is fast."]}
    (workspace.manifests / "audit.json").write_text(json.dumps({"format": 1, "songs": 6, "flagged": [suspect]}))
    shifts = {"tempo": {"unit": "%", "emotions": {EVIL: {"model": 3.0, "training_music": -12.5}}}}
    judged = job.judged("Spectocloud", synthetic=synthetic) | {"shifts": shifts}
    plain = job.judged("MIDI generator", synthetic=synthetic)
    job.write_metrics(workspace, {"spectocloud": judged, "midi_generator": plain})
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
