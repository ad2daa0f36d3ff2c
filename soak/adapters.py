"""Row 24: a training of adapters on a frozen base model, whose checkpoints hold the adapters alone, is killed with
SIGKILL at a random moment, and must end with the bits of an uninterrupted one."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from soak.harness import Mutant, Row, Soak, Trial, TrialResult, patched
from soak.kills import loaded
from soak.processes import expect, forked
from soak.runs import ENDED, beside, expect_done, expect_same, kill_somewhere, saved
from training.domains.sql.text_to_sql import data
from training.engine.step import step_context as step
from training.registry import load_recipe
from training.stages.splits import load_split
from training.stages.train import train as train_stage
from training.workspace import Workspace

FAMILY = "text_to_sql"
STEPS = 6
READY = "ready"  # a file in the folder of questions and base, once it is complete
TRAIN_ROWS, VAL_ROWS = 14, 3
DATABASES = 3  # that the training questions are about: a bundle needs several of one
#: Beside the debug preset: averaged weights, a save at every step, and adapters with dropout.
SETTINGS = (
    "logging.tensorboard=false", f"training.max_steps={STEPS}", "training.epochs=9", "training.ema_decay=0.9",
    "training.save_minutes=1e-9", "training.appraise_rows=1", "training.eval_every=2", "lora.dropout=0.3",
    "generation.max_new_tokens=4",
)  # fmt: skip


def killed(trial: Trial) -> None:
    """Kill a run at a random moment from its start to its last file; then run the same command again."""
    place, root = _place(trial.soak), trial.folder / "run"
    before, run = _base_digest(place), partial(_train, root, place)
    while kill_somewhere(run, root, trial.random, range(-1, STEPS), FAMILY, seconds=120) == ENDED:
        shutil.rmtree(root)
    expect_done(forked(run, seconds=120))
    expect_same(root, trial.soak.folder / FAMILY, FAMILY)
    others = [name for name in saved(root, FAMILY)["model"] if ".lora_" not in name]
    expect(not others, f"the checkpoint holds more than the adapters: {others[:3]}")
    expect(_base_digest(place) == before, "the base model's file has changed")


def _run(soak: Soak) -> Iterator[TrialResult]:
    place = _place(soak)
    if not (place / READY).exists():
        ended = forked(_prepare, place, seconds=300)
        if ended.code != 0 or ended.timed_out:
            yield TrialResult("the questions and the base", False, ended.tail, judged=False)
            return
    load_recipe(FAMILY, "debug")  # imports here once, not in every forked process
    import peft  # noqa: F401
    import transformers.models.llama.modeling_llama  # noqa: F401

    yield from beside({FAMILY: partial(_train, place=place)}, killed, seconds=400)(soak)


def _place(soak: Soak) -> Path:
    """The folder of questions and base, which all passes over the row share."""
    return soak.folder.parent / "adapters"


def _prepare(place: Path) -> None:
    """A few questions of the demo, and the small base."""
    from training import cli
    from training.domain import Job
    from training.domains.sql.bases.choosing import settings_of

    code = cli.main(["prepare", "--domain", "sql", "--questions", "60", "--out", str(place)])
    expect(code == 0, f"prepare ended with {code}")
    settings_of(Job(Workspace(place), {}), load_recipe(FAMILY, "debug").settings)
    (place / READY).touch()


def _train(root: Path, place: Path) -> Any:
    """Train the adapters in `root` to the end, in this process."""
    torch.set_num_threads(1)
    recipe = load_recipe(FAMILY, "debug", None, [*SETTINGS, f"model.base={_base(place)}"])
    rows = {split: load_split(recipe, Workspace(place), split) for split in ("train", "val")}
    rows = {"train": _about_few_databases(rows["train"]), "val": [rows["val"][index] for index in range(VAL_ROWS)]}
    return train_stage(recipe, Workspace(root), device="cpu", load=rows.__getitem__)


def _about_few_databases(rows: Sequence[Any]) -> list[Any]:
    few = list(dict.fromkeys(row.values["database"] for row in rows))[:DATABASES]
    return [row for row in rows if row.values["database"] in few][:TRAIN_ROWS]


def _base(place: Path) -> Path:
    (base,) = (place / "cache/bases").glob("tiny-*")
    return base


def _base_digest(place: Path) -> str:
    return hashlib.sha256((_base(place) / "model.safetensors").read_bytes()).hexdigest()


def _groups_of_the_process(bundles: data.Bundles, epoch: int) -> list[np.ndarray]:
    source = np.random.default_rng([epoch, os.getpid()])
    orders = [source.permutation(group) for group in bundles.groups]
    return [order[at : at + bundles.bundle] for order in orders for at in range(0, len(order), bundles.bundle)]


ROWS = (
    Row(
        24, "kill -9 at a random moment of a training of adapters on a frozen base model",
        "the same command ends with the same bits of adapters, averages and optimizer; checkpoints hold the adapters "
        "alone, and the base is as it was",
        _run, full=20, small=1,
        mutants=(
            Mutant("random numbers of the process, not of the step", patched(step, "seed_torch", lambda *a: None), 4),
            Mutant("bundles of the process, not of the epoch", patched(data, "_grouped", _groups_of_the_process), 4),
            Mutant("optimizer state not restored", loaded(lambda state: state.optimizer.state.clear()), 4),
        ),
    ),
)  # fmt: skip
