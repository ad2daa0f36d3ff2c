"""Every key that all families share changes an observable result; a key that nothing reads fails here.

The sections of a family are tested with the family.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.engine import toy
from tests.engine.test_engine_tracking import FAKE_WANDB
from training.config import dotted_keys
from training.data.rows import NO_SCHEMA
from training.engine.checkpoints import checkpoint_file
from training.engine.checkpoints.checkpoint_folder import CheckpointFolder
from training.engine.loading import loader as engine_loader
from training.engine.process import heartbeat
from training.errors import AthanorError, DataError
from training.settings import RunSettings
from training.stages import splits
from training.workspace import Workspace


def leaves() -> list[str]:
    """Keys that hold a value, not a section."""
    every = list(dotted_keys(RunSettings))
    return [key for key in every if not any(other.startswith(key + ".") for other in every)]


def nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


# -- observable results of a run: functions of (folder, monkeypatch, settings) -------------------------------------


def weights(root, _patch, settings):
    torch.set_num_threads(1)
    model = checkpoint_file.read(toy.run(root, **settings).last)["model"]
    return torch.cat([tensor.flatten() for tensor in model.values()]).tolist()


def steps(root, _patch, settings):
    return toy.run(root, **settings).step


def files(root, _patch, settings):
    toy.run(root, **settings)
    return sorted(p.name.split(".tfevents")[0] for p in root.rglob("*") if p.is_file())


def records(root, _patch, settings):
    return len((toy.run(root, **settings).run / "metrics.jsonl").read_text().splitlines())


def average(root, _patch, settings):
    return checkpoint_file.read(toy.run(root, **settings).last)["ema"] is None


def saves(root, patch, settings):
    done = []
    save = CheckpointFolder.save
    patch.setattr(CheckpointFolder, "save", lambda *a, **k: (done.append(1), save(*a, **k))[1])
    toy.run(root, **settings)
    return len(done)


def loader(root, patch, settings):
    seen = []

    class Watched(engine_loader.Worker):
        def request(self, micro_batch):
            seen.append("request")
            super().request(micro_batch)

        def receive(self, seconds):
            seen.append(self.pid)
            return super().receive(seconds)

    patch.setattr(engine_loader, "Worker", Watched)
    toy.run(root, **settings)
    pids = [at for at, what in enumerate(seen) if what != "request"]
    return len({seen[at] for at in pids}), pids[:1]  # processes; batches requested before the first is waited for


def compiles(root, patch, settings):
    done = []
    patch.setattr(torch, "compile", lambda model, **_: (done.append(1), model)[1])
    toy.run(root, **settings)
    return len(done)


def tracker(root, patch, settings):
    packages, log = root / "packages", root / "log.jsonl"
    packages.mkdir(parents=True)
    (packages / "wandb.py").write_text(FAKE_WANDB)
    patch.syspath_prepend(str(packages))
    patch.setenv("PYTHONPATH", str(packages))
    patch.setenv("FAKE_WANDB", str(log))
    toy.run(root, **settings)
    options = json.loads(log.read_text().splitlines()[0])["options"] if log.exists() else {}
    return {key: options.get(key) for key in ("mode", "project")}


def refusal(root, _patch, settings):
    """The error of the run, such as that of an unknown name; `ran` if there is none."""
    try:
        toy.run(root, **settings)
    except AthanorError as error:
        return str(error)
    return "ran"


def validations(root, _patch, settings):
    lines = (toy.run(root, **settings).run / "metrics.jsonl").read_text().splitlines()
    return [record["step"] for record in map(json.loads, lines) if record["kind"] == "validation"]


def best(root, _patch, settings):
    """The step of best.pt: the last one, as the error falls, if lower is better."""
    return checkpoint_file.read(toy.run(root, **settings).best)["progress"]["step"]


def reports_unmet_constraint(root, _patch, settings):
    """Whether the log reports at the end that no evaluation satisfied the constraint."""
    return "No evaluation satisfied" in (toy.run(root, **settings).run / "log.txt").read_text()


class Appraised(toy.ToyRecipe):
    """Its metrics: the number of rows, and the seconds that it may take."""

    def appraise(self, model, rows, seconds):
        return {"rows": (float(len(rows)), 1.0), "seconds": (seconds, 1.0)}


def appraised(root, _patch, settings):
    metrics = toy.run(root, Appraised, **settings).metrics
    return {name: metrics.get(name) for name in ("rows", "seconds")}


def watchdog_limits(root, patch, settings):
    waits = []
    patch.setattr(heartbeat.faulthandler, "dump_traceback_later", lambda seconds, **_: waits.append(seconds))
    toy.run(root, **settings)
    return set(waits)


def split_of(split: str) -> Callable:
    def manifest(root, _patch, settings):
        with pytest.raises(AthanorError) as refused:
            splits.load_split(toy.recipe(**settings), Workspace(root / "nowhere"), split, schema=NO_SCHEMA)
        return str(refused.value)

    return manifest


def stores(root, patch, settings):
    used = []

    def encode_all(rows, encoders, cache, *a, **k):
        used.append(cache)
        raise DataError("seen")

    patch.setattr(splits, "encode_all", encode_all)
    patch.setattr(splits.manifest, "load", lambda *a, **k: [])
    with pytest.raises(DataError, match="seen"):
        splits.load_split(toy.recipe(**settings), Workspace(root), "train", schema=NO_SCHEMA)
    return str(used[0].relative_to(root) if used[0].is_relative_to(root) else used[0])


STOPPING = {"enabled": True, "patience": 1, "min_delta": 1e6}
IMPATIENT = {"training": {"epochs": 5, "early_stopping": STOPPING}}
EVERY = {"training": {"save_every": 1}}
FEW = {"training": {"appraise_rows": 3}}
LOOSE = {"training": {"early_stopping": {"constraint": {"metric": "val_loss", "at_most": 1e9}}}}
LOOSE_BELOW = {"training": {"early_stopping": {"constraint": {"metric": "val_loss", "at_least": 0.0}}}}
WORKER = {"data": {"num_workers": 1}, "training": {"epochs": 1}}
#: key -> (another value, the function whose result it changes, settings under which it has an effect)
CASES: dict[str, tuple[Any, Callable, dict[str, Any]]] = {
    "seed": (7, weights, {}),
    "training.epochs": (2, steps, {}),
    "training.min_epochs": (4, steps, IMPATIENT),
    "training.max_steps": (4, steps, {}),
    "training.max_minutes": (1e-9, steps, {}),
    "training.early_stopping.enabled": (False, steps, IMPATIENT),
    "training.early_stopping.patience": (3, steps, IMPATIENT),
    "training.early_stopping.min_delta": (0.0, steps, IMPATIENT),
    "training.early_stopping.monitor": ("colour", refusal, {}),
    "training.early_stopping.direction": ("higher", best, {}),
    "training.early_stopping.constraint.metric": ("colour", refusal, LOOSE),
    "training.early_stopping.constraint.at_most": (-1.0, reports_unmet_constraint, LOOSE),
    "training.early_stopping.constraint.at_least": (1e9, reports_unmet_constraint, LOOSE_BELOW),
    "training.amp": (True, weights, {}),
    "training.amp_dtype": ("float16", weights, {"training": {"amp": True}}),
    "training.grad_accum_steps": (2, steps, {}),
    "training.resume_from": ("nowhere.pt", refusal, {}),
    "training.log_every": (5, records, {}),
    "training.eval_every": (3, records, {}),
    "training.eval_steps": (4, validations, {}),
    "training.save_steps": (4, files, {}),
    "training.appraise_rows": (3, appraised, {}),
    "training.appraise_seconds": (7.0, appraised, FEW),
    "training.save_every": (1, files, {}),
    "training.keep": (1, files, EVERY),
    "training.save_minutes": (1e-9, saves, {}),
    "training.hang_minutes": (60.0, watchdog_limits, {}),
    "training.ema_decay": (0.9, average, {}),
    "training.compile": (True, compiles, {}),
    "data.train_manifest": ("mine.jsonl", split_of("train"), {}),
    "data.val_manifest": ("mine.jsonl", split_of("val"), {}),
    "data.batch_size": (2, steps, {}),
    "data.num_workers": (0, loader, WORKER),
    "data.prefetch_factor": (5, loader, WORKER),
    "data.cache_dir": ("/elsewhere", stores, {}),
    "optim.lr": (0.02, weights, {}),
    "optim.weight_decay": (0.5, weights, {}),
    "optim.betas": ((0.5, 0.6), weights, {}),
    "optim.eps": (0.1, weights, {}),
    "optim.grad_clip": (0.001, weights, {}),
    "scheduler.name": ("linear", weights, {}),
    "scheduler.warmup_steps": (5, weights, {}),
    "scheduler.warmup_ratio": (0.5, weights, {}),
    "scheduler.min_lr_ratio": (0.9, weights, {}),
    "scheduler.decay_fraction": (0.9, weights, {"scheduler": {"name": "wsd"}}),
    "logging.tensorboard": (True, files, {}),
    "logging.wandb": ("offline", tracker, {}),
    "logging.wandb_project": ("songs", tracker, {"logging": {"wandb": "offline"}}),
}


def test_every_key_has_a_case():
    assert sorted(CASES) == sorted(leaves())


def merge(base: dict, over: dict) -> dict:
    return {
        key: merge(base.get(key, {}), over[key]) if isinstance(over.get(key), dict) else over.get(key, base.get(key))
        for key in {**base, **over}
    }


@pytest.mark.parametrize("key", CASES)
def test_a_key_changes_what_a_run_does(key, tmp_path, monkeypatch):
    value, seen, base = CASES[key]
    # results must not contain run ids, which hold the time of day
    with monkeypatch.context() as patch:
        before = seen(tmp_path / "before", patch, base)
    with monkeypatch.context() as patch:
        after = seen(tmp_path / "after", patch, merge(base, nested(key, value)))
    assert before != after
    if seen is weights:  # and not because two equal runs differ
        assert before == weights(tmp_path / "again", None, base)
