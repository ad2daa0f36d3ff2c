"""Trained baselines: models trained like the evaluated one, except for the part (an input, say) whose use is to be
shown. They are stored, so that each is trained once."""

from __future__ import annotations

import hashlib
import io
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from training.data.files import write_atomic
from training.engine.checkpoints.checkpoint_file import read
from training.engine.checkpoints.index import BEST
from training.engine.checkpoints.partial import load_state
from training.engine.checkpoints.resume import Decision
from training.engine.fit import fitted
from training.engine.loop.session import open_session
from training.engine.process.distributed import joined, sharing_cores
from training.engine.process.signals import Signals
from training.engine.tracking.tracker import Tracker
from training.errors import UsageError
from training.recipe import Fitted, Recipe, Stepped

if TYPE_CHECKING:
    import numpy as np

    from training.data.rows import Row

#: Settings that a baseline does not share with its recipe: no logging, no periodic saves, no compilation.
QUIET = {
    "log_every": 10**9, "save_every": 10**9, "save_steps": None, "eval_steps": None, "compile": False, "min_epochs": 0,
    "epochs": 10**6,
}  # fmt: skip
EVALUATIONS = 6  # about so many in a run; the best one is used, as for the evaluated model


class TrainedBaselines:
    """Trains the baselines of one checkpoint and stores them in `folder`; those of other checkpoints are removed.

    `needed`: Recipe.needed of the evaluated model.
    """

    def __init__(
        self, folder: Path, sha256: str, constants: Mapping[str, np.ndarray], train: Sequence[Row],
        held_out: Sequence[Row], device: str, needed: Mapping[str, Any] | None = None,
    ):  # fmt: skip
        self.folder, self.sha256, self.constants = folder, sha256, constants
        self.rows, self.device, self.needed = {"train": train, "val": held_out}, device, needed or {}

    def __call__(self, recipe: Recipe, name: str, begin: Mapping[str, torch.Tensor] | None, steps: int) -> Any:
        """See EvaluationContext.train_baseline."""
        request = json.dumps([self.sha256, name, begin is not None, steps, recipe.settings.model_dump(mode="json")])
        path = self.folder / f"{name}-{hashlib.sha256(request.encode()).hexdigest()[:32]}.pt"
        if path.exists():
            return self._model(recipe, torch.load(path, weights_only=True))
        print(f"  {name.replace('_', ' ')}: {steps} steps to train it")
        for old in self.folder.glob(f"{name}-*.pt"):
            old.unlink()
        weights = self._trained(recipe, begin, steps)
        content = io.BytesIO()
        torch.save(weights, content)
        write_atomic(path, content.getvalue())
        return self._model(recipe, weights)

    def _model(self, recipe: Recipe, weights: Mapping[str, Any]) -> Any:
        if isinstance(recipe, Fitted):
            return recipe.load(weights[fitted.KIND].numpy().tobytes(), None, self.constants)
        model = recipe.build(dict(self.constants))  # type: ignore[attr-defined]
        if "model" not in weights:  # stored by an earlier version: the weights alone
            weights = {"model": weights, "ema": None}
        load_state(recipe, model, weights, str(self.folder), averaged=True)
        return model.eval()

    def _trained(self, recipe: Recipe, begin: Mapping[str, torch.Tensor] | None, steps: int) -> Mapping[str, Any]:
        """The weights of the best evaluation, under the keys of a checkpoint; of a fitted family, its state."""
        work = self.folder / "training"
        shutil.rmtree(work, ignore_errors=True)
        try:
            workers = recipe.settings.data.num_workers if isinstance(recipe, Stepped) else 0
            with Signals() as signals, joined(self.device) as ranks, sharing_cores(workers):
                session = open_session(
                    self._quiet(recipe, steps), ranks, self.rows, lambda _: Decision(None, ""), constants=self.constants
                )
                if begin is not None:
                    _start_from(session, begin)
                log = recipe.settings.logging
                with Tracker(work, {}, log, title=recipe.title, step=0, active=False) as tracker:
                    session.fit(tracker, signals, work, {"run_id": ""})
            best = read(work / BEST)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        if isinstance(recipe, Fitted):
            return {fitted.KIND: best[fitted.KIND]}
        return {key: best.get(key) for key in ("model", "ema", "frozen")}

    def _quiet(self, recipe: Recipe, steps: int) -> Recipe:
        """`recipe` with settings for a run of `steps` steps with little output."""
        settings = recipe.settings
        own, epoch = settings.training, 1
        if isinstance(recipe, Stepped):
            samples = len(recipe.dataset(self.rows["train"], training=True))
            epoch = math.ceil(samples / (settings.data.batch_size * own.grad_accum_steps))
        stopping = own.early_stopping.model_copy(update={"enabled": False})
        every = max(1, round(steps / epoch / EVALUATIONS))
        own = own.model_copy(update={**QUIET, "max_steps": steps, "eval_every": every, "early_stopping": stopping})
        quiet = recipe.with_settings(settings.model_copy(update={"training": own}))
        quiet.needed = self.needed
        return quiet


def _start_from(session: Any, begin: Mapping[str, torch.Tensor]) -> None:
    if isinstance(session.recipe, Fitted):
        raise UsageError(f"{session.recipe.title} is fitted by rounds: a baseline of it cannot start from weights.")
    session.state.model.load_state_dict(begin)
    if session.state.ema:
        session.state.ema.load(begin)
