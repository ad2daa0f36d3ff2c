"""Training runs for the rows about training: a toy whose weights remember every sample that they saw, small runs of
the real families, each in a separate process that may be killed."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: what is forked must not have started a pool of threads

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
import torch._dynamo  # an optimizer's first step would import it, in every process again

from soak.harness import Soak, Trial, TrialResult, each
from soak.processes import Ended, expect, forked, start
from tests.engine import toy
from training.data.manifest import Row
from training.data.store import Record
from training.engine.checkpoints import checkpoint_file
from training.engine.checkpoints import resume as _resume  # noqa: F401
from training.engine.checkpoints.checkpoint_folder import CheckpointFolder
from training.engine.checkpoints.index import LAST
from training.engine.loop import loop as _loop  # noqa: F401  here once, not in every process
from training.engine.tracking import tracker as _tracking  # noqa: F401
from training.recipe import Recipe
from training.registry import load_recipe
from training.stages.train import train as train_stage
from training.workspace import Workspace

ROOM = 2000  # samples that the weights of a toy can remember
SAMPLES, VAL_SAMPLES = 22, 9  # samples of a toy: the last global batch of an epoch is a smaller one
STEPS = 24  # 4 epochs of 22 samples in global batches of 4

#: Everything that has a state: dropout, averaged weights, accumulation, patience; and a save at every step.
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
    """Its state holds the number of every sample it was trained on, in order: a checkpoint says what its weights saw,
    whatever became of the processes that trained them."""

    def __init__(self, settings: toy.Model, scale: np.ndarray):
        super().__init__(settings, scale)
        self.register_buffer("history", torch.full((ROOM,), -1))
        self.register_buffer("seen_so_far", torch.zeros((), dtype=torch.int64))

    def remember(self, numbers: torch.Tensor) -> None:
        at = int(self.seen_so_far)
        self.history[at : at + len(numbers)] = numbers
        self.seen_so_far += len(numbers)


class Toy(toy.ToyRecipe):
    """The tests' toy, with a memory. Its `progresses` and `models` are not kept."""

    def build(self, constants: dict[str, np.ndarray]) -> toy.ToyModel:
        return Remembering(self.settings.model, constants["scale"])

    def losses(self, model: torch.nn.Module, batch: dict[str, torch.Tensor], moment: Any) -> dict[str, Any]:
        getattr(model, "model", model).remember(batch["number"])  # it may be compiled
        self.before_loss(moment.step)
        return super().losses(model, batch, moment)

    def before_loss(self, step: int) -> None:
        """Where a row puts its fault in."""


def train(root: Path, kind: type[Recipe] = Toy, *, rows: int = SAMPLES, **settings: Any) -> Any:
    """Train a toy in `root` to its end, in this process."""
    torch.set_num_threads(1)
    return toy.run(root, kind, train_rows=rows, val_rows=VAL_SAMPLES, **merged(RICH, settings))


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Nested settings with changes."""
    both = dict(base)
    for key, value in changes.items():
        old = both.get(key)
        both[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return both


# -- real families -------------------------------------------------------------------------------------------------


def train_family(root: Path, family: str, **settings: Any) -> Any:
    """Train a real family at its debug preset on three made-up songs, in this process."""
    torch.set_num_threads(1)
    overrides = ["logging.tensorboard=false"]
    overrides += [f"{section}.{key}={value}" for section, values in settings.items() for key, value in values.items()]
    recipe = load_recipe(family, "debug", None, overrides)
    return train_stage(recipe, Workspace(root), device="cpu", load=songs(family).__getitem__)


@cache
def songs(family: str) -> dict[str, list[Row]]:
    """Rows as `prepare` would have made them, of random notes, by split. Made before a fork, they are there."""
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
    """With records that have keys, as those of a store."""
    records = {}
    for name, arrays in row.records.items():
        key = hashlib.sha256(f"{name} {row.values['id']}".encode()).digest()
        records[name] = Record(None, key)  # type: ignore[arg-type]  # no store: its arrays are here
        records[name]._arrays = arrays
    return Row(row.values | dict.fromkeys(records, f"nowhere/{row.values['id']}"), row.place, records)


# -- what became of a run ------------------------------------------------------------------------------------------


def folder_of(root: Path, family: str = "toy") -> Path:
    """Where a run's checkpoints are."""
    return root / "checkpoints" / family


def saved(root: Path, family: str = "toy", name: str = LAST) -> dict[str, Any]:
    """A checkpoint's content."""
    return checkpoint_file.read(folder_of(root, family) / name)


def history(root: Path) -> list[int]:
    """The samples that the weights in last.pt saw, in order."""
    model = saved(root)["model"]
    return model["history"][: int(model["seen_so_far"])].tolist()


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Where two nested values are not the same, bit for bit."""
    if type(one) is not type(other):
        return [f"{path}: {type(one).__name__} and {type(other).__name__}"]
    if isinstance(one, torch.Tensor):
        same = one.dtype == other.dtype and torch.equal(one, other)
        return [] if same else [f"{path}: up to {float((one - other).abs().max()) if one.shape == other.shape else ''}"]
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return [f"{path}: other keys"]
        return [found for key in one for found in differences(one[key], other[key], f"{path}.{key}")]
    if isinstance(one, list | tuple):
        if len(one) != len(other):
            return [f"{path}: {len(one)} and {len(other)} long"]
        pairs = enumerate(zip(one, other, strict=True))
        return [found for n, (a, b) in pairs for found in differences(a, b, f"{path}[{n}]")]
    return [] if one == other else [f"{path}: {one} and {other}"]


def expect_same(root: Path, reference: Path, family: str = "toy", but: tuple[str, ...] = ()) -> None:
    """Two finished runs have the same state, bit for bit: weights, averages, optimizer, patience, progress (all but the
    seconds). `but`: further parts of the progress that may differ."""
    parts = ("model", "ema", "optimizer", "scaler", "constants", "early_stopping", "metrics", "progress")
    one, other = ({part: state[part] for part in parts} for state in (saved(root, family), saved(reference, family)))
    for state in (one, other):
        state["progress"] = {key: value for key, value in state["progress"].items() if key not in ("seconds", *but)}
    found = differences(one, other)
    expect(not found, f"{len(found)} differences from the uninterrupted run: {'; '.join(found[:3])}")


def expect_done(ended: Ended, code: int = 0) -> None:
    """It ended without a signal, with this exit code."""
    expect(not ended.timed_out, f"did not end within {ended.seconds:.0f} s\n{ended.tail}")
    expect(ended.code == code, f"ended with {ended.code} in place of {code}\n{ended.tail}")


# -- rows ----------------------------------------------------------------------------------------------------------

Setup = Callable[[Path], Any]


def beside(
    setups: dict[str, Setup], function: Callable[[Trial], Any], seconds: float = 180.0,
    name: Callable[[int], str] = str, needs: Callable[[int], str] | None = None,
) -> Callable[[Soak], Iterator[TrialResult]]:  # fmt: skip
    """A row whose trials look at runs that were made once before: `setups` says how, by the name of their folder in
    `soak.folder`. `needs`: the one that the trial of an index looks at, where
    not all are needed."""

    def run(soak: Soak) -> Iterator[TrialResult]:
        for title in {needs(index) for index in soak.indices} if needs else setups:
            ended = forked(setups[title], soak.folder / title, seconds=300)
            if ended.code != 0 or ended.timed_out:
                yield TrialResult(f"the run to compare with ({title})", False, ended.tail, judged=False)
                return
        yield from each(function, seconds, name)(soak)

    return run


def step_of(root: Path, family: str = "toy") -> int:
    """Optimizer steps in the newest checkpoint that is listed; -1: there is none yet."""
    return next((entry.step for entry in CheckpointFolder(folder_of(root, family)).listed().values()), -1)


def kill_somewhere(
    run: Callable[[], Any], root: Path, source: random.Random, steps: range, family: str = "toy", seconds: float = 60.0
) -> int:
    """Start `run`, and kill it with SIGKILL at a random moment: somewhere in its start, or some time after a step of
    `steps` (in the step that follows, its save, its validation). Returns the step of the newest checkpoint then."""
    goal = source.choice([-2, *steps])  # -2: before anything is saved
    child = start(run)
    until = time.monotonic() + seconds
    while child.running and goal > -2 and step_of(root, family) < goal and time.monotonic() < until:
        time.sleep(0.002)
    pace = (time.monotonic() - child.began) / max(8, goal)  # of a step, roughly
    time.sleep(source.uniform(0, 2 * pace if goal > -2 else 0.3))
    child.kill()
    ended = child.wait(10)
    expect(ended.code in (-signal.SIGKILL, 0), f"it ended with {ended.code}, and was to be killed\n{ended.tail}")
    return step_of(root, family) if ended.code else ENDED


ENDED = 1 << 30  # it was quicker than the kill
