"""Helpers: a workspace with a run, the stages that copy it to a second place and back, and the contents of a place."""

import os
from pathlib import Path

from tests.engine.test_engine_checkpoint import put
from training.data.files import sha256
from training.engine.checkpoints.checkpoint_folder import CheckpointFolder
from training.engine.checkpoints.index import BEST, epoch_name
from training.stages import persist as stage
from training.workspace import Workspace

WHERE = Path("checkpoints/toy")


def intact(folder):
    """Name -> step of every listed checkpoint, each of which must be intact."""
    listed = CheckpointFolder(folder).listed()
    assert all(sha256(folder / name) == entry.sha256 for name, entry in listed.items())
    return {name: entry.step for name, entry in listed.items()}


def tidy(folder):
    return {path.suffix for path in folder.iterdir() if path.is_file()} <= {".pt", ".json"}


def persist(here, there):
    stage.persist(Workspace(here), there)


def restore(there, here):
    stage.restore(Workspace(here), there)


def write(path, text, at=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    if at:
        os.utime(path, (at, at))


def a_run(here):
    put(here / WHERE, 1, [BEST, epoch_name(1)], 0.1)
    put(here / WHERE, 2, [epoch_name(2)], 0.5)
    write(here / "runs/toy/r/metrics.jsonl", "{}\n")
    write(here / "runs/budget.json", "{}")
    write(here / "data/manifests/midi_train.jsonl", "row\n")
    write(here / "exports/toy.onnx", "model")
    write(here / "exports/toy.mlpackage/Data/weights.bin", "w")
    write(here / "cache/store/big.bin", "can be made again")
