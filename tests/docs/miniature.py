"""Changes to the processes of a page's commands: trainings are tiny, and a fault can be injected."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

# Imported here so that forked processes have the modules already.
import torch

import tests.imported  # noqa: F401
import training.budget.account
import training.cli
import training.persist.lease
from tests.docs.page import FAULT, STEPS, once
from training.data.files import write_atomic
from training.domains.music.midi_generator.recipe import MidiGeneratorRecipe as MidiGenerator
from training.engine.loop.run import Run, StepBatches
from training.export.package import Package
from training.export.proof import Trial, require
from training.recipe import Loss, TrainingProgress

#: Settings of every training of a page, which has nine songs and a few steps.
TINY = ("training.epochs=50", "training.log_every=4", "logging.tensorboard=false")


class QuickTime:
    """A stand-in for `time`, 90 times as fast: waiting 90 seconds for a lease takes one."""

    time = time.time

    @staticmethod
    def monotonic() -> float:
        return 90 * time.monotonic()

    @staticmethod
    def sleep(seconds: float) -> None:
        time.sleep(seconds / 90)


def prepared(words: list[str]) -> list[str]:
    """Apply the changes to this process; returns the arguments of the command to run instead of `words`."""
    torch.set_num_threads(1)
    training.budget.account.slowness = lambda: 1.0  # it would measure the host's speed
    training.cli._refresh_report = lambda workspace: None
    MidiGenerator.graphs = lambda recipe, model: []  # type: ignore[method-assign]  # exporting a graph takes seconds
    MidiGenerator.samples = _one_sample  # type: ignore[method-assign]
    training.persist.lease.time = QuickTime  # type: ignore[attr-defined]
    fault, _, argument = os.environ.get(FAULT, "").partition(":")
    if fault:
        FAULTS[fault](argument)
    if words[:1] == ["train"]:
        tiny = (*TINY, f"training.max_steps={os.environ[STEPS]}")
        words = [*words, "--preset", "debug", *(word for setting in tiny for word in ("--set", setting))]
    return words


def _one_sample(_recipe: MidiGenerator, _model: Any, _held_out: Any, folder: Path, _seed: int) -> list[Path]:
    path = folder / "happy.mid"
    path.write_bytes(b"MThd")
    return [path]


def hold(argument: str) -> None:
    """After step N, when everything that is due is saved, write this process's id to a file, and wait until that file
    is deleted or a stop is requested. `argument`: "N,FILE"."""
    step, name = argument.split(",")
    file = Path(name)

    def wait(run: Run) -> None:
        if run.state.progress.step == int(step) and not once(file).exists():
            run.saver.finish()
            once(file).touch()
            write_atomic(file, str(os.getpid()).encode())
            while file.exists() and not run.signals.name:
                time.sleep(0.002)

    _before_each_step(wait)


def _before_each_step(call: Callable[[Run], None]) -> None:
    real = Run.advance

    def advance(run: Run, batches: StepBatches) -> None:
        call(run)
        real(run, batches)

    Run.advance = advance  # type: ignore[method-assign]


def not_finite(argument: str) -> None:
    """From step N on, losses are not finite."""

    def losses(recipe: MidiGenerator, model: Any, batch: Any, progress: TrainingProgress) -> dict[str, Loss]:
        found = real(recipe, model, batch, progress)
        if progress.step >= int(argument):
            found = {name: replace(loss, total=loss.total * math.nan) for name, loss in found.items()}
        return found

    real, MidiGenerator.losses = MidiGenerator.losses, losses  # type: ignore[method-assign]


def budget_ends(argument: str) -> None:
    """After step N the budget is used up."""

    def left(run: Run) -> None:
        if run.state.progress.step >= int(argument):
            run.pace.allowance = replace(run.pace.allowance, left=lambda: 0.0)

    _before_each_step(left)


def differs(_: str) -> None:
    """An exported file differs from its model."""

    def graph(package: Package, model: Any) -> None:
        weights(package, model)
        require("midi_generator.onnx", [Trial({"batch": 2, "sequence": 64}, {"logits": 0.0213})], 1e-4)

    weights, Package._weights = Package._weights, graph  # type: ignore[method-assign]


FAULTS = {"hold": hold, "not_finite": not_finite, "budget_ends": budget_ends, "differs": differs}
