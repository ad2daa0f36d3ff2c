"""Trained baselines: models trained as the judged one was, except for what is to be shown to matter. They are kept, so
that each is trained once."""

from __future__ import annotations

import hashlib
import io
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from training.data.files import write_atomic
from training.recipe import Recipe

if TYPE_CHECKING:
    import numpy as np

    from training.data.manifest import Row

#: Of a recipe's settings, what a rival has its own way: nobody looks on, it is never stopped early, never compiled.
QUIET = {"log_every": 10**9, "save_every": 10**9, "compile": False, "min_epochs": 0, "epochs": 10**6}
EVALUATIONS = 6  # about so many on the way, of which the best counts, as it does for the judged model


class TrainedBaselines:
    """Where rivals of one checkpoint are trained and kept: under `folder`, those of other checkpoints removed."""

    def __init__(
        self, folder: Path, sha256: str, constants: Mapping[str, np.ndarray], train: Sequence[Row],
        held_out: Sequence[Row], device: str,
    ):  # fmt: skip
        self.folder, self.sha256, self.constants = folder, sha256, constants
        self.train, self.held_out, self.device = train, held_out, device

    def __call__(
        self, recipe: Recipe, name: str, begin: Mapping[str, torch.Tensor] | None, steps: int
    ) -> torch.nn.Module:
        """See EvaluationContext.rival."""
        told = json.dumps([self.sha256, name, begin is not None, steps, recipe.settings.model_dump(mode="json")])
        path = self.folder / f"{name}-{hashlib.sha256(told.encode()).hexdigest()[:32]}.pt"
        if path.exists():
            model = recipe.build(dict(self.constants))
            model.load_state_dict(torch.load(path, weights_only=True))
            return model.eval()
        print(f"  {name.replace('_', ' ')}: {steps} steps to train it")
        for old in self.folder.glob(f"{name}-*.pt"):
            old.unlink()
        model = self._trained(recipe, begin, steps)
        content = io.BytesIO()
        torch.save(model.state_dict(), content)
        write_atomic(path, content.getvalue())
        return model

    def _trained(self, recipe: Recipe, begin: Mapping[str, torch.Tensor] | None, steps: int) -> torch.nn.Module:
        from training.engine.checkpoints.checkpoint_file import read
        from training.engine.checkpoints.index import BEST
        from training.engine.checkpoints.partial import load_state
        from training.engine.loop.loop import fit
        from training.engine.loop.run import Run, batch_plan
        from training.engine.loop.state import State
        from training.engine.process.distributed import joined
        from training.engine.process.signals import Signals
        from training.engine.tracking.tracker import Tracker

        settings = recipe.settings
        examples = recipe.dataset(self.train, training=True), recipe.dataset(self.held_out, training=False)
        own = settings.training
        epoch = math.ceil(len(examples[0]) / (settings.data.batch_size * own.grad_accum_steps))
        stopping = own.early_stopping.model_copy(update={"enabled": False})
        rhythm = max(1, round(steps / epoch / EVALUATIONS))
        own = own.model_copy(update={**QUIET, "max_steps": steps, "eval_every": rhythm, "early_stopping": stopping})
        recipe = type(recipe)(settings.model_copy(update={"training": own}))
        work = self.folder / "training"
        shutil.rmtree(work, ignore_errors=True)
        try:
            with Signals() as signals, joined(self.device) as ranks:
                plan = batch_plan(len(examples[0]), len(examples[1]), recipe.settings, ranks)
                state = State(recipe, plan, ranks, self.constants)
                if begin is not None:
                    state.model.load_state_dict(begin)
                    if state.ema:
                        state.ema.load(begin)
                log = recipe.settings.logging
                with Tracker(work, {}, log, title=recipe.title, step=0, active=False) as tracker:
                    fit(Run(state, *examples, tracker=tracker, signals=signals, folder=work, provenance={"run_id": ""}))
            best = read(work / BEST)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        model = recipe.build(dict(self.constants))
        load_state(recipe, model, best, str(work / BEST), averaged=True)
        return model.eval()
