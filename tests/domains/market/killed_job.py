"""A small job of the market domain that kills itself with SIGKILL inside a fold, once something is saved: trees, a
network, and the ensemble of both as one ONNX file."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from training.data.rows import Row
from training.data.store import Record
from training.domains.market.networks.together import Together
from training.domains.market.rows import DECISIONS_PATH
from training.domains.market.trees.growing import Chunk
from training.domains.market.trees.with_xgboost import XGBoostLibrary
from training.engine.checkpoints.checkpoint_folder import CheckpointFolder
from training.registry import load_recipe
from training.stages.train import train
from training.stages.trained import load_trained
from training.workspace import Workspace

from .random_decisions import some_decisions, splits

ITEM = "X"
FOLDS = 3
CHUNK, ROUNDS, STEPS = 10, 40, 6
FAMILIES = ("xgboost", "gru")
COMMON = ("logging.tensorboard=false", "training.save_minutes=1e-9")
OWN = {
    "xgboost": (f"training.epochs={ROUNDS}", "trees.depth=2", "trees.rate=0.3", "trees.bins=15", "trees.rows=0.6",
                "trees.columns=0.6", "trees.leaf=5"),
    "gru": (f"training.max_steps={STEPS}", "training.epochs=9", "training.ema_decay=0.9", "training.eval_every=1",
            "model.dropout=0.3", "model.layers=2"),
    "ensemble": (),
}  # fmt: skip


@dataclass(frozen=True)
class Kill:
    """SIGKILL while model `fold` of a family (0, 1 ...; FOLDS: the final one) is updated, in the chunk of rounds or in
    the step that begins after `after` of them, as soon as a checkpoint of at least one is listed."""

    family: str
    fold: int
    after: int


def rows(root: Path) -> dict[str, list[Row]]:
    """Rows whose decisions have a key, as those of a store: another one a split, since nothing here knows spans."""
    found = {}
    for split, of_split in splits(some_decisions(), str(root)).items():
        record = Record(None, hashlib.sha256(split.encode()).digest())  # type: ignore[arg-type]  no store
        record._arrays = of_split[0].records[DECISIONS_PATH]
        found[split] = [Row(row.values, row.place, {DECISIONS_PATH: record}) for row in of_split]
    return found


def run(root: Path, kill: Kill | None = None) -> None:
    """Train what is not trained yet, in this process, and write root/ensemble.onnx."""
    torch.set_num_threads(1)
    workspace, given = Workspace(root), rows(root)
    folds = (f"folds.count={FOLDS}", "folds.purge=2", "folds.embargo=10")
    for family in (*FAMILIES, "ensemble"):
        overrides = [*COMMON, *OWN[family], *(folds if family != "ensemble" else ())]
        recipe = load_recipe(f"{family}/{ITEM}", "debug", None, overrides)
        with _killing(workspace, kill if kill and kill.family == family else None):
            train(recipe, workspace, device="cpu", load=given.__getitem__)
    trained = load_trained(f"ensemble/{ITEM}", workspace)
    (graph,) = trained.recipe.graphs(trained.model)
    graph.write(root / "ensemble.onnx")


@contextmanager
def _killing(workspace: Workspace, kill: Kill | None) -> Iterator[None]:
    if kill is None:
        yield
        return
    owner, name = (XGBoostLibrary, "grow") if kill.family == "xgboost" else (Together, "forward")
    real: Callable[..., Any] = getattr(owner, name)
    seen = 0

    def grow(self: Any, table: Any, margins: Any, chunk: Chunk, trees: Any) -> Any:
        nonlocal seen
        if chunk.first >= kill.after:
            if seen == kill.fold:
                _end(workspace, kill)
            seen += 1
        return real(self, table, margins, chunk, trees)

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        nonlocal seen
        if self.training:
            if seen == kill.after:
                for network in self.networks[: kill.fold]:
                    network(x)
                _end(workspace, kill)
            seen += 1
        return real(self, x)

    setattr(owner, name, grow if kill.family == "xgboost" else forward)
    try:
        yield
    finally:
        setattr(owner, name, real)


def _end(workspace: Workspace, kill: Kill) -> None:
    folder, until = CheckpointFolder(workspace.checkpoints(f"{kill.family}/{ITEM}")), time.monotonic() + 300
    while max((entry.step for entry in folder.listed().values()), default=-1) < 1:  # it is written in the background
        assert time.monotonic() < until, f"nothing was saved before {kill.after}"
        time.sleep(0.002)
    os.kill(os.getpid(), signal.SIGKILL)
