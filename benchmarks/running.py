"""A training run of the engine on a given dataset, driven step by step by the benchmarks."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.engine.loop.run import Run, StepBatches
from training.engine.loop.sanity_check import sanity_check
from training.engine.loop.session import batch_plan
from training.engine.loop.state import State
from training.engine.process.distributed import joined
from training.engine.process.signals import Signals
from training.engine.step.compiled import compiled
from training.engine.tracking.tracker import Tracker
from training.recipe import Dataset, Recipe


@dataclass
class EngineRun:
    """A started training run; call it to train some steps."""

    run: Run
    work: Iterator[StepBatches]
    waited: float = 0.0  # seconds that steps waited for their input

    def __call__(self, steps: int) -> None:
        """Train `steps` steps, each as in training/engine/loop/loop.py."""
        run = self.run
        for _ in range(steps):
            if run.evaluation_due():
                run.evaluate()
            if run.save_due():
                run.save()
            work = next(self.work)
            self.waited += work.waited
            run.advance(work)


@contextlib.contextmanager
def running(
    recipe: Recipe, train: Dataset, held_out: Dataset, folder: Path, *, device: str = "cpu",
    constants: Mapping[str, Any] | None = None, options: Mapping[str, Any] | None = None,
) -> Iterator[EngineRun]:  # fmt: skip
    """Start a training of `recipe` on `train`, past its sanity check; checkpoints and logs are written to `folder`.
    `options`: additional options for torch.compile."""
    with joined(device) as ranks:
        plan = batch_plan(len(train), len(held_out), recipe.settings, ranks)
        state = State(recipe, plan, ranks, constants or {})
        logs = folder / "run"
        with Tracker(
            logs, {}, recipe.settings.logging, title=recipe.title, step=0, active=ranks.is_first
        ) as tracker:  # fmt: skip
            run = Run(
                state, train, held_out, tracker=tracker, signals=Signals(), folder=folder / "checkpoints",
                provenance={"run_id": "benchmark"},
            )  # fmt: skip
            if options:
                run.model = compiled(recipe, state.model, lambda: run.plan.micro_batch_size, tracker.say, **options)
            with run.saver:
                sanity_check(run)
                with run.feed() as work:
                    yield EngineRun(run, work)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Discard standard output."""
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield
