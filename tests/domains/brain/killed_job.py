"""Trainings of the brain domain's families that kill themselves with SIGKILL while ridge is fitted, or in a step once
something is saved.

Run as a program (`python -m tests.domains.brain.killed_job PREPARED FOLDER`), it does so in forked processes and prints
as JSON what they ended with, and whether the last run has the bytes of an uninterrupted one: of one process, and of two
ranks with sharded parameters, whose log is compared with that of two replicas.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: a process with a thread pool cannot be forked safely

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import himalaya.ridge  # noqa: F401  imports here once, not in every forked process
import torch
import torch._dynamo

from soak.processes import forked, start
from soak.runs import differences
from tests.object_server import free_ports
from training.domains.brain.autoencoder.model import Autoencoder
from training.domains.brain.decoding.model import Decoding
from training.domains.brain.encoding.model import Encoding
from training.domains.brain.regression import banded, dual
from training.engine.checkpoints import checkpoint_file
from training.engine.checkpoints import resume as _resume  # noqa: F401
from training.engine.checkpoints.checkpoint_folder import CheckpointFolder
from training.engine.checkpoints.index import LAST
from training.engine.loop import loop as _loop  # noqa: F401
from training.engine.tracking import tracker as _tracking  # noqa: F401
from training.registry import load_recipe
from training.stages.splits import load_split
from training.stages.train import train as train_stage
from training.workspace import Workspace

STEPS = 5
FAMILIES = ("encoding", "decoding")
SHARDED = ("autoencoder", "decoding")  # the heads of the autoencoder are those of the encoding family
MODELS = {"encoding": Encoding, "decoding": Decoding, "autoencoder": Autoencoder}
RIDGES = {"encoding": banded, "decoding": dual}
SETTINGS = (
    "logging.tensorboard=false", f"training.max_steps={STEPS}", "training.epochs=9", "training.ema_decay=0.9",
    "training.save_minutes=1e-9", "training.eval_every=1", "model.dropout=0.3", "windows.volumes=32",
)  # fmt: skip
OWN = {"encoding": ("warm_start.searches=1",), "decoding": (), "autoencoder": ("warm_start.searches=1",)}
RIDGE = -1  # the step of a kill while ridge is fitted, after the first subject
PARTS = ("model", "ema", "optimizer", "constants", "early_stopping", "metrics")


def train(root: Path, prepared: Path, family: str, kill: int | None = None, *more: str) -> Any:
    """Train a family on the data of the workspace `prepared` in `root`, in this process. `kill`: the step in which it
    is killed, once a checkpoint is listed; or RIDGE. `more`: further settings."""
    torch.set_num_threads(1)
    recipe = load_recipe(family, "debug", None, [*SETTINGS, *OWN[family], *more])
    rows = {split: load_split(recipe, Workspace(prepared), split, say=str) for split in ("train", "val")}
    with _killing(root, family, kill):
        return train_stage(recipe, Workspace(root), device="cpu", load=rows.__getitem__)


def saved(root: Path, family: str) -> dict[str, Any]:
    """What must be the same in the last checkpoints of two runs."""
    content = checkpoint_file.read(Workspace(root).checkpoints(family) / LAST)
    return {part: content[part] for part in PARTS}


@contextmanager
def _killing(root: Path, family: str, kill: int | None) -> Iterator[None]:
    if kill is None:
        yield
        return
    owner, name = (RIDGES[family], "fit") if kill == RIDGE else (MODELS[family], "forward")
    real: Callable[..., Any] = getattr(owner, name)
    seen = 0

    def fit(*arguments: Any, **named: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **named)

    def forward(self: Any, batch: Any) -> Any:
        nonlocal seen
        if self.training:
            if seen == kill:
                _end(root, family)
            seen += 1
        return real(self, batch)

    setattr(owner, name, fit if kill == RIDGE else forward)
    try:
        yield
    finally:
        setattr(owner, name, real)


def _end(root: Path, family: str) -> None:
    folder, until = CheckpointFolder(Workspace(root).checkpoints(family)), time.monotonic() + 300
    while max((entry.step for entry in folder.listed().values()), default=-1) < 1:  # it is written in the background
        assert time.monotonic() < until, "nothing was saved"
        time.sleep(0.002)
    os.kill(os.getpid(), signal.SIGKILL)


def on_two_ranks(root: Path, *arguments: Any) -> list[int]:
    """`train` on two ranks; the exit code of each."""
    (port,) = free_ports(1)
    world = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [
        start(partial(train, root, *arguments), environment={**world, "RANK": rank, "LOCAL_RANK": rank})
        for rank in ("0", "1")
    ]
    ended = [rank.wait(120) for rank in ranks]
    for one in ended:
        if one.code > 0:
            print(one.tail, file=sys.stderr)
    return [one.code for one in ended]


def log_of(root: Path, family: str) -> tuple[list[str], list[dict[str, Any]]]:
    """The headlines of a run, one for each process that trained it, and its records."""
    (run,) = Workspace(root).runs(family).iterdir()
    lines = (run / "log.txt").read_text(encoding="utf-8").splitlines()
    records = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if "M parameters" in line], [json.loads(record) for record in records]


def sharded(prepared: Path, folder: Path, family: str) -> dict[str, Any]:
    """Two replicas; two ranks with sharded parameters; the same killed and continued."""
    replicated, complete, killed = (folder / f"{family}-{name}" for name in ("replicas", "sharded", "sharded-killed"))
    codes = [on_two_ranks(replicated, prepared, family)]
    for root, kill in ((complete, None), (killed, 3), (killed, None)):
        codes.append(on_two_ranks(root, prepared, family, kill, "model.parallel=fsdp"))
    if any(codes[-1]):
        return {"codes": codes}
    logs = {root.name.removeprefix(f"{family}-"): log_of(root, family) for root in (replicated, complete, killed)}
    return {"codes": codes, "differences": differences(saved(killed, family), saved(complete, family)), "logs": logs}


def main(prepared: Path, folder: Path) -> None:
    found: dict[str, Any] = {"sharded": {family: sharded(prepared, folder, family) for family in SHARDED}}
    for family in FAMILIES:
        complete, killed = folder / f"{family}-complete", folder / f"{family}-killed"
        codes = [forked(partial(train, complete, prepared, family), seconds=600).code]
        for kill in (RIDGE, 3, None):
            ended = forked(partial(train, killed, prepared, family, kill), seconds=600)
            codes.append(ended.code)
        same = not codes[-1] and differences(saved(killed, family), saved(complete, family))
        found[family] = {"codes": codes, "differences": same}
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
