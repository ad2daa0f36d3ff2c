"""Small trainings of a WaveNet and of an LSTM that kill themselves with SIGKILL inside an optimizer step, once
something is saved. What they end with is the capture's file."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from training.data.rows import Row
from training.data.store import Record
from training.domains.amp.captures import write_capture
from training.domains.amp.student.objective import Criterion
from training.engine.checkpoints.checkpoint_folder import CheckpointFolder
from training.registry import load_recipe
from training.stages.train import train
from training.stages.trained import load_trained
from training.workspace import Workspace

from . import small

CAPTURES = {"wavenet": small.fitted, "lstm": small.lstm}
STEPS = 6
#: Losses of an optimizer step: of its windows, in which an LSTM makes an update each.
LOSSES = {"wavenet": 1, "lstm": 2}
COMMON = ("logging.tensorboard=false", "training.save_minutes=1e-9", f"training.max_steps={STEPS}",
          "training.epochs=9", "material.length=4409", "lstm.window=2204", "lstm.warmup=256", "material.samples=12",
          "material.oversampling=2", "optim.lr=4e-3", "scheduler.warmup_steps=1", "training.eval_every=1",
          "data.batch_size=4",
          "training.early_stopping.constraint.at_most=0")  # fmt: skip


@dataclass(frozen=True)
class Kill:
    """SIGKILL when the loss after `after` others is computed in the training of a capture, as soon as a checkpoint of
    at least one step is listed."""

    item: str
    after: int


def rows(item: str) -> dict[str, list[Row]]:
    """Rows of three seconds of guitar, the last of which is held out. Their arrays have a key, as those of a store:
    another one a split, since nothing here knows spans."""
    every = small.rows(CAPTURES[item]())
    return {"train": [_keyed(row, "train") for row in every[:2]], "val": [_keyed(row, "val") for row in every[2:]]}


def _keyed(row: Row, split: str) -> Row:
    records = {}
    for key, arrays in row.records.items():
        record = Record(None, hashlib.sha256(f"{split} {key}".encode()).digest())  # type: ignore[arg-type]  no store
        record._arrays = dict(arrays)
        records[key] = record
    return Row({**row.values, **{key: f"/x/{split} {key}" for key in records}}, row.place, records)


def run(root: Path, kill: Kill | None = None) -> None:
    """Train what is not trained yet, in this process, and write root/ITEM.nam."""
    torch.set_num_threads(1)
    workspace = Workspace(root)
    for item in CAPTURES:
        recipe = load_recipe(f"amp/{item}", "debug", None, COMMON)
        with _killing(workspace, kill if kill and kill.item == item else None):
            train(recipe, workspace, device="cpu", load=rows(item).__getitem__)
        pair = load_trained(f"amp/{item}", workspace).model
        write_capture(pair.capture, list(pair.students), root / f"{item}.nam")


def saved_step(root: Path, item: str) -> int:
    """The last step of which a checkpoint is listed; -1: none is."""
    listed = CheckpointFolder(Workspace(root).checkpoints(f"amp/{item}")).listed().values()
    return max((entry.step for entry in listed), default=-1)


@contextmanager
def _killing(workspace: Workspace, kill: Kill | None) -> Iterator[None]:
    if kill is None:
        yield
        return
    real, seen = Criterion.__call__, 0

    def loss(self: Criterion, *words: Any) -> Any:
        nonlocal seen
        if torch.is_grad_enabled():
            if seen == kill.after:
                _end(workspace, kill)
            seen += 1
        return real(self, *words)

    Criterion.__call__ = loss  # type: ignore[method-assign]
    try:
        yield
    finally:
        Criterion.__call__ = real  # type: ignore[method-assign]


def _end(workspace: Workspace, kill: Kill) -> None:
    until = time.monotonic() + 300
    while saved_step(workspace.root, kill.item) < 1:  # it is written in the background
        assert time.monotonic() < until, f"nothing was saved before loss {kill.after}"
        time.sleep(0.002)
    os.kill(os.getpid(), signal.SIGKILL)
