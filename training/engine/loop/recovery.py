"""Recovery of a run: smaller micro-batches after an out-of-memory error; a rollback to the last good checkpoint with a
lower learning rate after repeated non-finite steps."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from training.engine.checkpoints.checkpoint_file import read
from training.engine.checkpoints.checkpoint_folder import CheckpointFolder
from training.engine.loop.guards import Diverged
from training.engine.step.step_context import OutOfMemory
from training.errors import TrainingError

if TYPE_CHECKING:
    from training.engine.loop.run import Run

ROLLBACKS = 2  # in a run; at the next divergence it fails
SMALLER = 0.5  # factor of each rollback on the learning rate


def halve(run: Run, error: OutOfMemory) -> None:
    """Halve the size of micro-batches, on all ranks; global batches and the order of samples stay the same."""
    plan = run.plan
    if plan.micro_batch_size == 1:
        raise TrainingError(
            f"Step {error.step + 1}: memory ran out ({error.reason}), and a micro-batch is one sample already. Use a "
            "smaller model, shorter samples, or a device with more memory."
        )
    run.plan = run.state.plan = plan.halved()
    run.state.progress.halvings = run.plan.halvings
    run.tracker.say(
        f"step {error.step + 1}: out of memory ({error.reason}). Micro-batches of {run.plan.micro_batch_size} samples "
        f"in place of {plan.micro_batch_size} from here on, twice as many a step: the global batch of "
        f"{plan.global_batch} and the order of samples stay."
    )
    gc.collect()
    if run.ranks.device.type == "cuda":
        torch.cuda.empty_cache()


def roll_back(run: Run, error: Diverged) -> None:
    """Roll back to the last good checkpoint, with a lower learning rate. Raises TrainingError after ROLLBACKS."""
    state, before = run.state, run.state.progress
    advice = (
        "Try a lower optim.lr, a longer scheduler.warmup_steps, bfloat16 in place of float16, or look at the samples "
        "named in the log. See docs/recovery.md."
    )
    if before.rollbacks >= ROLLBACKS:
        raise TrainingError(
            f"{error} Rolling back to the last good checkpoint with a lower learning rate did not help "
            f"({ROLLBACKS} times). The weights saved last are finite. {advice}"
        )
    run.settle_saves()
    # The first time to the newest checkpoint; if that did not help, to the best one, which is older.
    find = _best_or_latest if before.rollbacks else CheckpointFolder.latest
    path = run.ranks.on_rank_zero(lambda: find(CheckpointFolder(run.folder)))
    if path is None:
        raise TrainingError(f"{error} There is no complete checkpoint to go back to. {advice}")
    state.load(run.ranks.from_first_host(lambda: read(path)), str(path))
    progress = state.progress
    progress.rollbacks, progress.rate = before.rollbacks + 1, before.rate * SMALLER
    progress.skipped = progress.skipped_before_rollback = run.guard.skipped
    progress.seconds, progress.total_steps = before.seconds, before.total_steps
    while state.plan.halvings < before.halvings:
        state.plan = state.plan.halved()
    progress.halvings, run.plan = state.plan.halvings, state.plan
    run.forget()
    run.tracker.rewind(progress.step)
    run.tracker.say(
        f"{error} Back to {path.name} (step {progress.step}); the learning rate is {progress.rate:g} of the planned "
        "one from here on."
    )
    run.save(wait=True)  # else a kill before the next save would undo the rollback


def _best_or_latest(checkpoints: CheckpointFolder) -> Path | None:
    return checkpoints.best() or checkpoints.latest()
