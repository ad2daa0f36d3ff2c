"""A training run of a stepped family: the operations that the loop calls."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.engine.checkpoints.index import BEST, epoch_name, step_name
from training.engine.checkpoints.saver import Saver
from training.engine.loading.batches import MicroBatch
from training.engine.loading.loader import Loader, Stopped
from training.engine.loop.appraise import Appraiser
from training.engine.loop.evaluation import conclude, index_value, require_best
from training.engine.loop.guards import NonFinite
from training.engine.loop.meter import Meter, line
from training.engine.loop.pace import Allowance, Pace
from training.engine.loop.progress import ALL_STEPS
from training.engine.loop.state import State
from training.engine.loop.validate import HeldOut, Interruption, require_metrics
from training.engine.process.heartbeat import beat
from training.engine.process.signals import Signals
from training.engine.step import schedule
from training.engine.step.compiled import compiled
from training.engine.step.peak_flops import device_peak
from training.engine.step.step_context import StepContext, StepResult
from training.engine.tracking.tracker import Tracker
from training.recipe import Batch, Dataset, TrainingProgress

if TYPE_CHECKING:
    from training.data.rows import Row


@dataclass(frozen=True)
class StepBatches:
    """The micro-batches of this rank for one step, with their data."""

    step: int  # 0 is the first
    micro_batches: Sequence[MicroBatch]
    batches: Sequence[Batch]
    waited: float  # seconds that the step waited for them

    @property
    def counted(self) -> list[Batch]:
        """The batches that are no padding."""
        pairs = zip(self.micro_batches, self.batches, strict=False)  # none of the batches if a stop was requested
        return [batch for micro_batch, batch in pairs if not micro_batch.padding]


class Run:
    """One run in one process.

    `folder`: its checkpoints. `provenance`: stored in every checkpoint. `held_out_rows`: the rows of `held_out`, for
    Stepped.appraise. `allowance`: the time that it may take. `saved` and `validated`: called on rank 0 after every save
    and every evaluation; both must return at once.
    """

    def __init__(
        self,
        state: State,
        train: Dataset,
        held_out: Dataset,
        *,
        tracker: Tracker,
        signals: Signals,
        folder: Path,
        provenance: Mapping[str, Any],
        held_out_rows: Sequence[Row] = (),
        allowance: Allowance | None = None,
        saved: Callable[[], None] = lambda: None,
        validated: Callable[[], None] = lambda: None,
    ):
        self.state, self.train, self.held_out_dataset = state, train, held_out
        self.tracker, self.signals, self.folder, self.provenance = tracker, signals, folder, provenance
        self.recipe, self.plan, self.ranks = state.recipe, state.plan, state.ranks
        self.settings = self.recipe.settings
        self.model = state.model
        if self.settings.training.compile:
            self.model = compiled(self.recipe, state.model, lambda: self.plan.micro_batch_size, tracker.say)
        self.saver = Saver(folder, self.settings.training.keep, tracker.say, saved)
        self.guard = NonFinite(
            state.progress.total_steps, tracker.say, state.progress.skipped, state.progress.skipped_before_rollback
        )  # fmt: skip
        self.pending: list[StepResult] = []  # steps whose values have not been read yet
        self.lag = 1 if self.ranks.device.type == "cuda" else 0  # steps; read later, so as not to wait for a GPU
        self.asked_to_stop = False
        self.clock_due = False
        self.names: list[str] = []  # what the next save is called besides last.pt
        self.saved_at = self.counted_at = time.monotonic()
        self.validated = validated
        self.report = tracker.say if state.ranks.is_first else print  # for events that only one rank notices
        self.appraiser = Appraiser(self.recipe, held_out_rows, state.ranks, state.precision, state.uneven_passes)
        self.pace = Pace(allowance, self.steps_per_evaluation) if allowance else None

    # -- before the first step -------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Create the step context and the meter, from the first micro-batch of the run."""
        state = self.state
        first = self.plan.micro_batches(0, 0)[0]
        batch = self.train.collate([self.train.item(first.epoch, index) for index in first.indices])
        batch = {key: value.to(self.ranks.device) for key, value in batch.items()}
        self.step_context = StepContext(
            self.recipe, self.model, state.optimizer, state.precision, self.ranks, list(self.recipe.counts(batch)),
            state.sharding,
        )  # fmt: skip
        flops = self.recipe.flops(state.model, batch)
        best = device_peak(self.ranks.device, state.precision)
        self.meter = Meter(flops / len(first.indices) if flops else None, best and best * self.ranks.world)

    @property
    def steps_per_evaluation(self) -> int:
        """The most steps between two evaluations."""
        training = self.settings.training
        return min(training.eval_every * self.plan.steps_per_epoch, training.eval_steps or self.state.planned)

    def new_held_out(self) -> HeldOut:
        """The held-out split, in micro-batches of the present size."""
        return HeldOut(
            self.held_out_dataset, self.recipe, self.ranks, self.state.precision, self.plan.micro_batch_size,
            say=self.report, stop=self._stop_requested, uneven_passes=self.state.uneven_passes,
        )  # fmt: skip

    @contextmanager
    def feed(self) -> Iterator[Iterator[StepBatches]]:
        """The batches of each step from the present one to the last. The data loaders are closed afterwards."""
        steps = range(self.state.progress.step, self.state.planned)
        plan, rank = self.plan, self.ranks.rank
        micro_batches = (micro_batch for step in steps for micro_batch in plan.micro_batches(step, rank))
        with (
            Loader(
                self.train,
                micro_batches,
                self.settings.data,
                self.ranks.device,
                say=self.report,
                stop=self._stop_requested,
            ) as loader,
            self.new_held_out() as self.held_out,
        ):
            yield self._steps(steps, iter(loader))

    def _steps(self, steps: range, batches: Iterator[Batch]) -> Iterator[StepBatches]:
        for step in steps:
            own = self.plan.micro_batches(step, self.ranks.rank)
            before = time.perf_counter()
            try:
                fetched = [next(batches) for _ in own]
            except Stopped:
                fetched = []  # `advance` shares the request with the other ranks, so that all stop
            yield StepBatches(step, own, fetched, time.perf_counter() - before)

    def _stop_requested(self) -> bool:
        return bool(self.signals.name)

    # -- a step ----------------------------------------------------------------------------------------------------

    def advance(self, work: StepBatches) -> None:
        """One optimizer step; none if a stop was requested on any rank, or if the time is over. Raises OutOfMemory or
        Diverged, on all ranks at the same step."""
        state, progress, training = self.state, self.state.progress, self.settings.training
        first = self.ranks.is_first
        flags = (bool(self.signals.name), first and self._save_wanted(), self._fitting() if first else 0)
        counts, (stop, clock, total) = self.step_context.agree(self.step_context.local_counts(work.counted), flags)
        self.asked_to_stop, self.clock_due = stop > 0, clock > 0
        if self.asked_to_stop or not self._replan(int(total)):
            return
        rate = progress.rate * schedule.factor(work.step, progress.total_steps, self.settings.scheduler)
        for group in state.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * rate
        samples = self.plan.step_samples(work.step)
        moment = TrainingProgress(work.step, progress.total_steps)
        result = self.step_context.step(
            work.step, self.settings.seed, work.micro_batches, work.batches, counts, moment, samples
        )
        if state.ema:
            state.ema.update(work.step)
        progress.step = work.step + 1
        self.signals.immediate = False
        self.pending.append(result)
        self.meter.stepped(progress.step, samples, work.waited)
        if self.pace:
            self.pace.stepped()
        self.tracker.advance()
        beat()
        if progress.step % training.log_every == 0 or progress.step == progress.total_steps:
            self._log()
        else:
            self._settle(self.lag)

    def _fitting(self) -> int:
        """Steps of the run for which there is time, by the clock of rank 0."""
        progress = self.state.progress
        if not self.pace:
            return progress.total_steps
        return self.pace.fitting(progress.step, progress.total_steps, self.state.planned)

    def _replan(self, total: int) -> bool:
        """Set the length of the run to `total` steps; returns whether there is a step left to do."""
        progress = self.state.progress
        if total != progress.total_steps:
            if self.pace and not self.pace.reported:
                self.pace.reported = True
                self.tracker.say(
                    f"there is time for about {total} of {self.state.planned} steps "
                    f"({total / self.plan.steps_per_epoch:.1f} epochs); the learning rate reaches its minimum by then."
                )
            progress.total_steps = total
        return progress.step < total

    def _settle(self, lag: int = 0) -> None:
        """Read all but the newest `lag` step results, and count those that were not finite. Raises Diverged."""
        while len(self.pending) > lag:
            result = self.pending.pop(0)
            totals, objective, norm = result.read()
            if result.rescaled and math.isfinite(objective):
                continue  # the gradient scaler has skipped the step and lowered its scale, which is normal
            if self.guard.consider(result.step + 1, objective, norm, result.samples):
                self.meter.add(result, totals, objective, norm)
            self.state.progress.skipped = self.guard.skipped

    def _log(self) -> None:
        self._settle()
        progress, names = self.state.progress, self.step_context.names
        values = self.meter.values(progress.step, progress.total_steps, self.state.optimizer.param_groups[0]["lr"])
        epoch = math.ceil(progress.step / self.plan.steps_per_epoch)
        epochs = math.ceil(progress.total_steps / self.plan.steps_per_epoch)
        self.tracker.say(line(progress.step, progress.total_steps, epoch, epochs, values, names))
        counted = {"skipped": progress.skipped, "total_steps": progress.total_steps}
        self.tracker.record("train", progress.step, {"epoch": epoch, **values, **counted})
        self.meter.reset()

    def _save_wanted(self) -> bool:
        """Whether `save_minutes` have passed, or the last save failed, which the next one raises."""
        return self.saver.failed or time.monotonic() - self.saved_at > 60 * self.settings.training.save_minutes

    # -- what is due -----------------------------------------------------------------------------------------------

    def evaluation_due(self) -> bool:
        """Whether to evaluate now: every `eval_every` epochs and `eval_steps` steps, at the end of the run, and before
        step 1 if the initial weights are a result (Stepped.starts_trained)."""
        state, progress, training = self.state, self.state.progress, self.settings.training
        if progress.step == 0:
            return self.recipe.starts_trained and not progress.best_metrics and not self.asked_to_stop
        if progress.evaluated >= progress.step or self.asked_to_stop or progress.finished:
            return False
        regular = state.at_epoch_end() and state.epoch % training.eval_every == 0
        regular = regular or bool(training.eval_steps and progress.step % training.eval_steps == 0)
        return regular or progress.step >= progress.total_steps

    def evaluate(self) -> None:
        """Evaluate the (averaged) weights on the held-out split; record the best; decide whether to stop early."""
        state, progress, training = self.state, self.state.progress, self.settings.training
        self._settle()
        before = time.perf_counter()
        self.ranks.broadcast(dict(state.model.named_buffers()))
        try:
            with self.meter.pause(), state.ema.applied() if state.ema else nullcontext():
                metrics = self.held_out.evaluate(self.model)
                state.metrics = metrics | self.appraiser.appraise(state.model)
        except Interruption:
            self.asked_to_stop = True
            return
        require_metrics(state.metrics, self.recipe)
        progress.evaluated = progress.step
        seconds = time.perf_counter() - before
        if self.pace:
            self.pace.evaluation = seconds
            self.pace.restart_timer()
        if conclude(
            progress, state.patience, state.metrics, training, self.tracker,
            epoch=state.epoch, where=self.where, seconds=seconds,
        ):  # fmt: skip
            self.names.append(BEST)
        if self.ranks.is_first:
            self.validated()

    def save_due(self) -> bool:
        """Whether to save now: a new best, an epoch or step to keep, `save_minutes`, a stop request, or the end."""
        state, progress, training = self.state, self.state.progress, self.settings.training
        if state.at_epoch_end() and state.epoch % training.save_every == 0 and progress.archived < state.epoch:
            progress.archived = state.epoch
            self.names.append(epoch_name(state.epoch))
        if training.save_steps and progress.step % training.save_steps == 0 and progress.archived_step < progress.step:
            progress.archived_step = progress.step
            self.names.append(step_name(progress.step))
        if progress.step >= progress.total_steps and not progress.finished and not self.asked_to_stop:
            complete = progress.total_steps >= state.planned
            progress.finished = ALL_STEPS if complete or self.pace is None else self.pace.allowance.reason()
        return bool(self.names or self.clock_due or self.asked_to_stop or progress.finished)

    def save(self, *, wait: bool = False) -> None:
        """Save last.pt and the further names that are due, on rank 0. Training continues while the file is written,
        except for the last save of a process and with `wait`. Raises HostError."""
        self._settle()
        progress = self.state.progress
        with self.meter.pause():
            if progress.finished:
                require_best(progress, self.settings.training.early_stopping, self.tracker.say)
            now = time.monotonic()
            progress.seconds += now - self.counted_at
            self.counted_at = now
            content = self.state.to_checkpoint(self.provenance)
            held = wait or bool(progress.finished) or self.asked_to_stop
            self.ranks.on_rank_zero(lambda: self._write(content, held))
            self.saved_at = time.monotonic()
            self.clock_due = False
            self.names.clear()
        if self.pace:
            self.pace.saving = self.saved_at - now
            self.pace.restart_timer()

    def _write(self, content: Mapping[str, Any], wait: bool) -> None:
        state, progress = self.state, self.state.progress
        stopping = self.settings.training.early_stopping
        value = index_value(state.metrics, stopping) if progress.evaluated == progress.step else None
        entry = {"step": progress.step, "epoch": state.epoch, "value": value, "run_id": self.provenance["run_id"]}
        self.saver.save(content, entry, self.names, wait=wait)

    def forget(self) -> None:
        """After a rollback: drop the pending results, averages and timings of the steps before it."""
        self.pending.clear()
        self.names.clear()
        self.meter.reset()
        self.guard.reset()
        if self.pace:
            self.pace.restart_timer()

    def settle_saves(self) -> None:
        """Wait until the last save is on the disk. Raises HostError, on all ranks, if it failed."""
        self.ranks.on_rank_zero(self.saver.finish)

    @property
    def finished(self) -> str:
        """The reason why the run has ended; empty while it continues."""
        return self.state.progress.finished

    @property
    def where(self) -> str:
        """The position in the run, as text for the log."""
        progress = self.state.progress
        position = progress.step % self.plan.steps_per_epoch
        epoch = (
            f"epoch {self.state.epoch}"
            if not position
            else f"{position} step{'s' * (position > 1)} into epoch {self.state.epoch + 1}"
        )
        return f"step {progress.step}/{progress.total_steps} ({epoch})"
