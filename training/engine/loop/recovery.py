"""What a run does when a step cannot go on as it is: smaller parts where memory ran out, and the last good checkpoint
with a smaller rate where the numbers stay non-finite."""

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

RETREATS = 2  # in a run; after that it gives up
SMALLER = 0.5  # what a roll_back does to the learning rate


def halve(run: Run, lack: OutOfMemory) -> None:
    """Micro-batches of half the size, twice as many: the same global batches in the same order. On all ranks alike."""
    plan = run.plan
    if plan.micro_batch_size == 1:
        raise TrainingError(
            f"Step {lack.step + 1}: memory ran out ({lack.reason}), and a micro-batch is one sample already. Use a "
            "smaller model, or shorter samples, or a device with more memory."
        )
    run.plan = run.state.plan = plan.halved()
    run.state.progress.halvings = run.plan.halvings
    run.tracker.say(
        f"step {lack.step + 1}: out of memory ({lack.reason}). Micro-batches of {run.plan.micro_batch_size} samples in "
        f"place of {plan.micro_batch_size} from here on, twice as many a step: the global batch of {plan.global_batch} "
        "and the order of samples stay."
    )
    gc.collect()
    if run.ranks.device.type == "cuda":
        torch.cuda.empty_cache()


def roll_back(run: Run, trouble: Diverged) -> None:
    """Back to a checkpoint from before the trouble, with a smaller learning rate; TrainingError after too many."""
    state, before = run.state, run.state.progress
    advice = (
        "Try a lower optim.lr, a longer scheduler.warmup_steps, bfloat16 in place of float16, or look at the samples "
        "named in the log."
    )
    if before.retreats >= RETREATS:
        raise TrainingError(
            f"{trouble} Going back to the last good checkpoint with a smaller learning rate did not help "
            f"({RETREATS} times). The weights saved last are finite. {advice}"
        )
    run.settle_saves()
    # At first the newest; if that did not help, the best, which is older.
    find = _best_or_latest if before.retreats else CheckpointFolder.latest
    path = run.ranks.on_rank_zero(lambda: find(CheckpointFolder(run.folder)))
    if path is None:
        raise TrainingError(f"{trouble} There is no whole checkpoint to go back to. {advice}")
    state.load(run.ranks.from_first_host(lambda: read(path)), str(path))
    progress = state.progress
    progress.retreats, progress.rate = before.retreats + 1, before.rate * SMALLER
    progress.skipped, progress.seconds, progress.total_steps = before.skipped, before.seconds, before.total_steps
    while state.plan.halvings < before.halvings:
        state.plan = state.plan.halved()
    progress.halvings, run.plan = state.plan.halvings, state.plan
    run.forget()
    run.tracker.rewind(progress.step)
    run.tracker.say(
        f"{trouble} Back to {path.name} (step {progress.step}); the learning rate is {progress.rate:g} of the planned "
        "one from here on."
    )
    run.save(wait=True)  # a kill must not forget that this was tried


def _best_or_latest(checkpoints: CheckpointFolder) -> Path | None:
    return checkpoints.best() or checkpoints.latest()
