"""Sanity check before step 1: a two-batch validation and a trial save, so that an error that would occur
after hours of training occurs in the first minute."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from training.engine.checkpoints.index import LAST
from training.engine.loop.recovery import halve
from training.engine.loop.validate import held_out_micro_batches, require_metrics
from training.engine.step import schedule
from training.engine.step.step_context import OutOfMemory, out_of_memory_reason

if TYPE_CHECKING:
    from training.engine.loop.run import Run


def sanity_check(run: Run) -> None:
    """Prepare `run` for its first step, with a short validation and a save. Raises the errors of both, and HostError if
    the disk is too small for the run."""
    run.prepare()
    while True:
        try:
            _validate(run)
            break
        except OutOfMemory as error:
            halve(run, error)
    state = run.state
    # Rank 0 decides for all, as the disks of other hosts hold no checkpoints.
    there = run.ranks.on_rank_zero(lambda: (run.folder / LAST).exists())
    if state.progress.step == 0 or not there:
        run.save(wait=True)
    exports = run.recipe.room(state.model).exports or 0
    run.ranks.on_rank_zero(lambda: run.saver.require_space(exports))
    _log_warmup(run)
    run.tracker.begin(state.progress.step, state.progress.total_steps)


def _log_warmup(run: Run) -> None:
    """Log over how many steps the learning rate rises, where the configuration does not state that number."""
    total, scheduler = run.state.progress.total_steps, run.settings.scheduler
    rising = schedule.warmup(total, scheduler)
    key = "steps" if scheduler.warmup_ratio is None else "ratio"
    value = getattr(scheduler, f"warmup_{key}")
    if rising < schedule.configured_warmup(total, scheduler):
        run.tracker.say(
            f"scheduler.warmup_{key} {value} is more than half the run: the learning rate rises over {rising} steps."
        )
    elif key == "ratio":
        run.tracker.say(f"scheduler.warmup_ratio {value}: the learning rate rises over {rising} of {total} steps.")


def _validate(run: Run) -> None:
    """Evaluate two held-out batches, and appraise one row on each rank. Raises OutOfMemory, on all ranks if on one."""
    micro_batches = held_out_micro_batches(len(run.held_out_dataset), run.plan.micro_batch_size)
    before, reason = time.monotonic(), ""
    metrics: dict[str, float] = {}
    try:
        metrics = run.new_held_out().sanity_check(run.model, run.held_out_dataset, micro_batches[:2])
    except RuntimeError as error:
        reason = out_of_memory_reason(error, run.state.sharding is not None)
    if run.ranks.any(bool(reason)):
        raise OutOfMemory(run.state.progress.step, reason or "on another rank")
    taken = time.monotonic() - before
    appraised, seconds = run.appraiser.sanity_check(run.state.model)
    require_metrics(metrics | appraised, run.recipe)
    if run.pace:
        rounds = math.ceil(len(micro_batches) / run.ranks.world)
        run.pace.evaluation = taken / len(micro_batches[:2]) * rounds + seconds
