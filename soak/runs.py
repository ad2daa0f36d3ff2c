"""Training runs for the rows about training: of a toy whose state records every sample that it was trained on, and
small ones of the real families. Each runs in a separate process that may be killed."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: a process with a thread pool cannot be forked safely

import hashlib
import random
import signal
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._dynamo  # imported here, as an optimizer's first step would otherwise import it in every forked process

from soak.harness import Soak, Trial, TrialResult, each
from soak.processes import Ended, expect, forked, start
from tests.engine import toy
from training.data.manifest import Row
from training.data.store import Record
from training.engine.checkpoints import checkpoint_file
from training.engine.checkpoints import resume as _resume  # noqa: F401
from training.engine.checkpoints.checkpoint_folder import CheckpointFolder
from training.engine.checkpoints.index import LAST
from training.engine.loop import loop as _loop  # noqa: F401  imported here once, not in every forked process
from training.engine.tracking import tracker as _tracking  # noqa: F401
from training.recipe import Recipe
from training.registry import load_recipe
from training.stages.train import train as train_stage
from training.workspace import Workspace

HISTORY = 2000  # samples that a toy's state can record
SAMPLES, VAL_SAMPLES = 22, 9  # samples of a toy: the last global batch of an epoch is smaller than the others
STEPS = 24  # 4 epochs of 22 samples in global batches of 4

#: Settings with everything that has a state (dropout, averaged weights, accumulation, patience), and a save per step.
RICH: dict[str, Any] = {
    "model": {"dropout": 0.4},
    "training": {
        "ema_decay": 0.9,
        "grad_accum_steps": 2,
        "epochs": 4,
        "save_every": 1,
        "keep": 2,
        "save_minutes": 1e-9,
        "early_stopping": {"enabled": True, "patience": 3, "min_delta": 0.5},
    },
    "data": {"batch_size": 2, "num_workers": 0},
}


class Remembering(toy.ToyModel):
    """Its state holds the number of every sample that it was trained on, in order. So a checkpoint shows what its
    weights were trained on, even if the processes that trained them were killed."""

    def __init__(self, settings: toy.Model, scale: np.ndarray):
        super().__init__(settings, scale)
        self.register_buffer("history", torch.full((HISTORY,), -1))
        self.register_buffer("seen_so_far", torch.zeros((), dtype=torch.int64))

    def remember(self, numbers: torch.Tensor) -> None:
        at = int(self.seen_so_far)
        self.history[at : at + len(numbers)] = numbers
        self.seen_so_far += len(numbers)


class Toy(toy.ToyRecipe):
    """The tests' toy with a `Remembering` model. Its `progresses` and `models` are not kept."""

    def build(self, constants: dict[str, np.ndarray]) -> toy.ToyModel:
        return Remembering(self.settings.model, constants["scale"])

    def losses(self, model: torch.nn.Module, batch: dict[str, torch.Tensor], progress: Any) -> dict[str, Any]:
        getattr(model, "model", model).remember(batch["number"])  # a compiled model has the original as `model`
        self.before_loss(progress.step)
        return super().losses(model, batch, progress)

    def before_loss(self, step: int) -> None:
        """Called before each micro-batch's loss; rows override it to make a fault happen."""


def train(root: Path, kind: type[Recipe] = Toy, *, rows: int = SAMPLES, **settings: Any) -> Any:
    """Train a toy in `root` to its end, in this process."""
    torch.set_num_threads(1)
    return toy.run(root, kind, train_rows=rows, val_rows=VAL_SAMPLES, **merged(RICH, settings))


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Nested settings with `changes` applied; `base` is not modified."""
    both = dict(base)
    for key, value in changes.items():
        old = both.get(key)
        both[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return both


# -- real families -------------------------------------------------------------------------------------------------


def train_family(root: Path, family: str, **settings: Any) -> Any:
    """Train a real family with its debug preset on three generated songs, in this process."""
    torch.set_num_threads(1)
    overrides = ["logging.tensorboard=false"]
    overrides += [f"{section}.{key}={value}" for section, values in settings.items() for key, value in values.items()]
    recipe = load_recipe(family, "debug", None, overrides)
    return train_stage(recipe, Workspace(root), device="cpu", load=songs(family).__getitem__)


@cache
def songs(family: str) -> dict[str, list[Row]]:
    """Rows by split, as `prepare` would make them of random notes. Call it before forking: the forks then have them."""
    numbers = {"train": range(3), "val": range(50, 52)}
    return {split: [_stored(_song(family, number)) for number in numbers[split]] for split in numbers}


def _song(family: str, number: int) -> Row:
    if family == "spectocloud":
        from tests.domains.music.spectocloud.corpus import make_row

        return make_row(number)
    from tests.domains.music.midi_generator.conftest import make_row, make_score
    from training.domains.music.midi import tokens

    feelings = ([0.8, 0.5, 0.7], [-0.7, -0.4, 0.6], [-0.6, 0.8, 0.9])
    return make_row(tokens.encode(make_score(number, 60)), feelings[number % 3], f"song{number}")


def _stored(row: Row) -> Row:
    """`row` with records that have keys, as those of a store do."""
    records = {}
    for name, arrays in row.records.items():
        key = hashlib.sha256(f"{name} {row.values['id']}".encode()).digest()
        records[name] = Record(None, key)  # type: ignore[arg-type]  # no store: its arrays are here
        records[name]._arrays = arrays
    return Row(row.values | dict.fromkeys(records, f"nowhere/{row.values['id']}"), row.place, records)


# -- the result of a run -------------------------------------------------------------------------------------------


def folder_of(root: Path, family: str = "toy") -> Path:
    """The folder of a run's checkpoints."""
    return root / "checkpoints" / family


def saved(root: Path, family: str = "toy", name: str = LAST) -> dict[str, Any]:
    """The content of a checkpoint."""
    return checkpoint_file.read(folder_of(root, family) / name)


def history(root: Path) -> list[int]:
    """The samples that the weights in last.pt were trained on, in order."""
    model = saved(root)["model"]
    return model["history"][: int(model["seen_so_far"])].tolist()


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """The places where two nested values differ, compared bit for bit."""
    if type(one) is not type(other):
        return [f"{path}: types {type(one).__name__} and {type(other).__name__}"]
    if isinstance(one, torch.Tensor):
        same = one.dtype == other.dtype and torch.equal(one, other)
        return [] if same else [f"{path}: up to {float((one - other).abs().max()) if one.shape == other.shape else ''}"]
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return [f"{path}: different keys"]
        return [found for key in one for found in differences(one[key], other[key], f"{path}.{key}")]
    if isinstance(one, list | tuple):
        if len(one) != len(other):
            return [f"{path}: lengths {len(one)} and {len(other)}"]
        pairs = enumerate(zip(one, other, strict=True))
        return [found for n, (a, b) in pairs for found in differences(a, b, f"{path}[{n}]")]
    return [] if one == other else [f"{path}: {one} and {other}"]


def expect_same(root: Path, reference: Path, family: str = "toy", but: tuple[str, ...] = ()) -> None:
    """Require that two finished runs have the same state, bit for bit: weights, averages, optimizer, patience, progress
    (except the seconds). `but`: further parts of the progress that may differ."""
    parts = ("model", "ema", "optimizer", "scaler", "constants", "early_stopping", "metrics", "progress")
    one, other = ({part: state[part] for part in parts} for state in (saved(root, family), saved(reference, family)))
    for state in (one, other):
        state["progress"] = {key: value for key, value in state["progress"].items() if key not in ("seconds", *but)}
    found = differences(one, other)
    expect(not found, f"{len(found)} differences from the uninterrupted run: {'; '.join(found[:3])}")


def expect_done(ended: Ended, code: int = 0) -> None:
    """Require that a process ended in time with this exit code (negative: by this signal)."""
    expect(not ended.timed_out, f"did not end within {ended.seconds:.0f} s\n{ended.tail}")
    expect(ended.code == code, f"ended with {ended.code} in place of {code}\n{ended.tail}")


# -- rows ----------------------------------------------------------------------------------------------------------

Setup = Callable[[Path], Any]


def beside(
    setups: dict[str, Setup], function: Callable[[Trial], Any], seconds: float = 180.0,
    name: Callable[[int], str] = str, needs: Callable[[int], str] | None = None,
) -> Callable[[Soak], Iterator[TrialResult]]:  # fmt: skip
    """A row like `each(function, seconds, name)` whose trials are compared with reference runs, which are made once
    before. `setups`: the functions that make them, by the name of their folder in `soak.folder`. `needs`: the one
    reference of the trial with an index; without it, all are made."""

    def run(soak: Soak) -> Iterator[TrialResult]:
        for title in {needs(index) for index in soak.indices} if needs else setups:
            ended = forked(setups[title], soak.folder / title, seconds=300)
            if ended.code != 0 or ended.timed_out:
                yield TrialResult(f"the reference run ({title})", False, ended.tail, judged=False)
                return
        yield from each(function, seconds, name)(soak)

    return run


def step_of(root: Path, family: str = "toy") -> int:
    """The optimizer steps in the newest checkpoint that is listed; -1 if there is none yet."""
    return next((entry.step for entry in CheckpointFolder(folder_of(root, family)).listed().values()), -1)


def kill_somewhere(
    run: Callable[[], Any], root: Path, source: random.Random, steps: range, family: str = "toy",
    seconds: float = 60.0, start_too: bool = True,
) -> int:  # fmt: skip
    """Start `run`, and kill it with SIGKILL at a random moment: during its start (if `start_too`), or some time after
    one of `steps` (in the step that follows, its save, its validation). Returns the step of the newest checkpoint then;
    ENDED if the run ended before it was killed."""
    goal = source.choice([*([-2] if start_too else []), *steps])  # -2: before anything is saved
    child = start(run)
    until = time.monotonic() + seconds
    while child.running and goal > -2 and step_of(root, family) < goal and time.monotonic() < until:
        time.sleep(0.002)
    pace = (time.monotonic() - child.began) / max(8, goal)  # seconds per step, roughly
    time.sleep(source.uniform(0, 2 * pace if goal > -2 else 0.3))
    child.kill()
    ended = child.wait(10)
    expect(ended.code in (-signal.SIGKILL, 0), f"ended with {ended.code} before it was killed\n{ended.tail}")
    return step_of(root, family) if ended.code else ENDED


ENDED = 1 << 30  # returned by kill_somewhere in place of a step: the run ended before the kill
