"""A training run: the acts that the loop is made of."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.engine.checkpoints.index import BEST, LAST, epoch_name
from training.engine.checkpoints.saver import Saver
from training.engine.loading.batches import BatchPlan, MicroBatch
from training.engine.loading.loader import Loader, Stopped
from training.engine.loop.guards import NonFinite
from training.engine.loop.meter import Meter, line
from training.engine.loop.pace import Allowance, Pace
from training.engine.loop.recovery import halve
from training.engine.loop.state import ALL_STEPS, OUT_OF_BUDGET, State
from training.engine.loop.validate import HeldOut, Interruption, held_out_micro_batches
from training.engine.process.distributed import Ranks
from training.engine.process.heartbeat import beat
from training.engine.process.signals import Signals
from training.engine.step import schedule
from training.engine.step.compiled import compiled
from training.engine.step.peak_flops import device_peak
from training.engine.step.step_context import OutOfMemory, StepContext, StepResult, is_out_of_memory
from training.engine.tracking.tracker import Tracker
from training.errors import DataError, TrainingError
from training.recipe import Batch, Dataset, TrainingProgress

EXPORTED = 8  # times the float32 weights: what exports amount to at most (full and step graphs, int8, CoreML, weights)
SHOWN = 7  # validation metrics on a console line


@dataclass(frozen=True)
class Work:
    """This rank's part of one step."""

    step: int  # 0 is the first
    micro_batches: Sequence[MicroBatch]
    batches: Sequence[Batch]
    waited: float  # seconds


class Run:
    """One run in one process. `folder`: its checkpoints. `provenance`: goes into every checkpoint. `allowance`: the
    time that it may take. `saved` and `validated`: called on the first rank after every save and every evaluation; both
    return at once."""

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
        self.guard = NonFinite(state.progress.total_steps, tracker.say, state.progress.skipped)
        self.pending: list[StepResult] = []  # steps whose values were not read yet
        self.lag = 1 if self.ranks.device.type == "cuda" else 0  # read a step late, so that the GPU is never waited for
        self.asked_to_stop = False
        self.clock_due = False
        self.names: list[str] = []  # what the next save is called besides last.pt
        self.saved_at = self.counted_at = time.monotonic()
        self.validated = validated
        self.tell = tracker.say if state.ranks.is_first else print  # of what one rank alone sees
        rhythm = self.settings.training.eval_every * self.plan.steps_per_epoch
        self.pace = Pace(allowance, rhythm) if allowance else None

    # -- before the first step -------------------------------------------------------------------------------------

    def rehearse(self) -> None:
        """Whatever could fail after hours fails now: two held-out batches are judged, and a fresh run is saved."""
        state = self.state
        first = self.plan.micro_batches(0, 0)[0]
        batch = self.train.collate([self.train.item(first.epoch, index) for index in first.indices])
        batch = {key: value.to(self.ranks.device) for key, value in batch.items()}
        self.step_context = StepContext(
            self.recipe, self.model, state.optimizer, state.precision, self.ranks, list(self.recipe.counts(batch))
        )
        flops = self.recipe.flops(state.model, batch)
        best = device_peak(self.ranks.device, state.precision)
        self.meter = Meter(flops / len(first.indices) if flops else None, best and best * self.ranks.world)
        self._rehearse_validation()
        # asked of the first rank: another host's disk holds no checkpoints
        there = self.ranks.on_rank_zero(lambda: (self.folder / LAST).exists())
        if state.progress.step == 0 or not there:
            self.save(wait=True)
        weights = sum(parameter.numel() * 4 for parameter in state.model.parameters())
        self.ranks.on_rank_zero(lambda: self.saver.require_room(EXPORTED * weights))
        rising, asked = (
            schedule.warmup(state.progress.total_steps, self.settings.scheduler),
            self.settings.scheduler.warmup_steps,
        )
        if rising < asked:
            self.tracker.say(
                f"scheduler.warmup_steps {asked} is more than half the run: the rate rises over {rising} steps."
            )
        self.tracker.begin(state.progress.step, state.progress.total_steps)

    def _rehearse_validation(self) -> None:
        micro_batches = held_out_micro_batches(len(self.held_out_dataset), self.plan.micro_batch_size)
        before, lack = time.monotonic(), ""
        try:
            self._held_out().rehearse(self.model, self.held_out_dataset, micro_batches[:2])
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            lack = str(error).splitlines()[0]
        if self.ranks.any(bool(lack)):
            halve(self, OutOfMemory(self.state.progress.step, lack or "on another rank"))
            self._rehearse_validation()
        elif self.pace:
            rounds = math.ceil(len(micro_batches) / self.ranks.world)
            self.pace.evaluation = (time.monotonic() - before) / len(micro_batches[:2]) * rounds

    def _held_out(self) -> HeldOut:
        return HeldOut(
            self.held_out_dataset, self.recipe, self.ranks, self.state.precision, self.plan.micro_batch_size,
            say=self.tell, stop=self._told_to_stop,
        )  # fmt: skip

    @contextmanager
    def feed(self) -> Iterator[Iterator[Work]]:
        """The work from where the run stands to the end of its epochs; loaders live as long as the block."""
        steps = range(self.state.progress.step, self.state.planned)
        plan, rank = self.plan, self.ranks.rank
        micro_batches = (micro_batch for step in steps for micro_batch in plan.micro_batches(step, rank))
        with (
            Loader(
                self.train, micro_batches, self.settings.data, self.ranks.device, say=self.tell, stop=self._told_to_stop
            ) as loader,
            self._held_out() as self.held_out,
        ):
            yield self._work(steps, iter(loader))

    def _work(self, steps: range, batches: Iterator[Batch]) -> Iterator[Work]:
        for step in steps:
            own = self.plan.micro_batches(step, self.ranks.rank)
            before = time.perf_counter()
            try:
                brought = [next(batches) for _ in own]
            except Stopped:
                brought = []  # the ranks agree in `advance`, and leave
            yield Work(step, own, brought, time.perf_counter() - before)

    def _told_to_stop(self) -> bool:
        return bool(self.signals.name)

    # -- a step ----------------------------------------------------------------------------------------------------

    def advance(self, work: Work) -> None:
        """One optimizer step; none, if any rank was asked to stop, or the time is over. Raises OutOfMemory or Diverged,
        on all ranks at the same step."""
        state, progress, training = self.state, self.state.progress, self.settings.training
        first = self.ranks.is_first
        flags = (bool(self.signals.name), first and self._save_wanted(), self._fitting() if first else 0)
        counts, (stop, clock, total) = self.step_context.agree(self.step_context.local_counts(work.batches), flags)
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
        """Steps of the whole run, by rank 0's clock."""
        progress = self.state.progress
        if not self.pace:
            return progress.total_steps
        return self.pace.fitting(progress.step, progress.total_steps, self.state.planned)

    def _replan(self, total: int) -> bool:
        """BatchPlan the run's length anew; whether there is a step to do."""
        progress = self.state.progress
        if total != progress.total_steps:
            if self.pace and not self.pace.said:
                self.pace.said = True
                self.tracker.say(
                    f"the budget allows about {total} of {self.state.planned} steps "
                    f"({total / self.plan.steps_per_epoch:.1f} epochs): the learning rate falls to its floor by then."
                )
            progress.total_steps = total
        return progress.step < total

    def _settle(self, lag: int = 0) -> None:
        """Read all but the newest `lag` outcomes, and judge whether they counted."""
        while len(self.pending) > lag:
            result = self.pending.pop(0)
            totals, objective, norm = result.read()
            if result.rescaled and math.isfinite(objective):
                continue  # float16 looking for its factor
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
        """By the clock; or because the save before failed, which the next one tells."""
        return self.saver.failed or time.monotonic() - self.saved_at > 60 * self.settings.training.save_minutes

    # -- what is due -----------------------------------------------------------------------------------------------

    def evaluation_due(self) -> bool:
        """At the end of every `eval_every`-th epoch, and at the end of the run; once."""
        state, progress = self.state, self.state.progress
        if progress.evaluated >= progress.step or self.asked_to_stop or progress.finished:
            return False
        regular = state.at_epoch_end() and state.epoch % self.settings.training.eval_every == 0
        return regular or progress.step >= progress.total_steps

    def evaluate(self) -> None:
        """Judge the (averaged) weights on the held-out split; note the best; decide whether to stop early."""
        state, progress, training = self.state, self.state.progress, self.settings.training
        self._settle()
        before = time.perf_counter()
        self.ranks.broadcast(dict(state.model.named_buffers()))
        try:
            with self.meter.pause(), state.ema.applied() if state.ema else nullcontext():
                state.metrics = self.held_out.judge(self.model)
        except Interruption:
            self.asked_to_stop = True
            return
        progress.evaluated = progress.step
        if self.pace:
            self.pace.evaluation = time.perf_counter() - before
            self.pace.rested()
        value = state.metrics[training.early_stopping.monitor]
        state.patience.consider(value)
        better = value < progress.best_value
        if better:
            progress.best_value, progress.best_step = value, progress.step
            progress.best_metrics = dict(state.metrics)
            self.names.append(BEST)
        shown = dict(list(state.metrics.items())[:SHOWN])  # a recipe puts the telling ones first; all are on record
        told = "  ".join(f"{name} {number:.4g}" for name, number in shown.items())
        self.tracker.say(f"validation after {self.where}: {told}" + ("  (best)" if better else ""))
        seconds = {"seconds": time.perf_counter() - before}
        self.tracker.record("validation", progress.step, {"epoch": state.epoch, **state.metrics, **seconds})
        if self.ranks.is_first:
            self.validated()
        if state.patience.exhausted(state.epoch, training.min_epochs):
            stopping = training.early_stopping
            progress.finished = (
                f"early stopping: {stopping.monitor} has not improved by {stopping.min_delta:g} "
                f"in {stopping.patience} evaluations"
            )
            self.tracker.say(f"{progress.finished}.")

    def save_due(self) -> bool:
        """For a new best, an epoch to keep, the clock, a request to stop, and the end of the run."""
        state, progress, training = self.state, self.state.progress, self.settings.training
        if state.at_epoch_end() and state.epoch % training.save_every == 0 and progress.archived < state.epoch:
            progress.archived = state.epoch
            self.names.append(epoch_name(state.epoch))
        if progress.step >= progress.total_steps and not progress.finished and not self.asked_to_stop:
            progress.finished = ALL_STEPS if progress.total_steps >= state.planned else OUT_OF_BUDGET
        return bool(self.names or self.clock_due or self.asked_to_stop or progress.finished)

    def save(self, *, wait: bool = False) -> None:
        """last.pt, and the further names that are due; by rank 0. Written while training goes on, but for the last and
        where `wait` asks for it."""
        self._settle()
        progress = self.state.progress
        with self.meter.pause():
            if progress.finished and not math.isfinite(progress.best_value):
                raise TrainingError(
                    f"No evaluation gave a finite {self.settings.training.early_stopping.monitor}: nothing was "
                    "learnt that "
                    "could be exported. Look at the validation data, or try a lower optim.lr."
                )
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
            self.pace.rested()

    def _write(self, content: Mapping[str, Any], wait: bool) -> None:
        state, progress = self.state, self.state.progress
        monitor = self.settings.training.early_stopping.monitor
        value = state.metrics.get(monitor) if progress.evaluated == progress.step else None
        entry = {"step": progress.step, "epoch": state.epoch, "value": value, "run_id": self.provenance["run_id"]}
        self.saver.save(content, entry, self.names, wait=wait)

    def forget(self) -> None:
        """The run stands somewhere else now: nothing of the steps before counts."""
        self.pending.clear()
        self.names.clear()
        self.meter.reset()
        self.guard.begin_anew()
        if self.pace:
            self.pace.rested()

    def settle_saves(self) -> None:
        """Wait until what was saved is on the disk. Raises HostError, on all ranks, if it is not."""
        self.ranks.on_rank_zero(self.saver.finish)

    @property
    def finished(self) -> str:
        """Why the run has ended; empty while it goes on."""
        return self.state.progress.finished

    @property
    def where(self) -> str:
        """The place in the run, for people."""
        progress = self.state.progress
        position = progress.step % self.plan.steps_per_epoch
        epoch = f"epoch {self.state.epoch}" if not position else f"{position} steps into epoch {self.state.epoch + 1}"
        return f"step {progress.step}/{progress.total_steps} ({epoch})"


def batch_plan(samples: int, held_out: int, settings: Any, ranks: Ranks) -> BatchPlan:
    """The run's plan. Raises DataError where there is nothing to train on or to judge by (T15)."""
    for count, split in ((samples, "training"), (held_out, "validation")):
        if count == 0:
            raise DataError(
                f"The {split} split holds no example: nothing can be trained. Look at the manifest and "
                "prepare's summary."
            )
    return BatchPlan(samples, settings.data.batch_size, settings.training.grad_accum_steps, ranks.world, settings.seed)
