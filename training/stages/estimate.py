"""What a training is going to take, by a few of its real steps, before the money is spent."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from training.budget.account import Account
from training.budget.limit import HOUR
from training.data.identity import data_digest, is_synthetic, refuse_leak
from training.recipe import Recipe
from training.stages.scratch import scratch
from training.units import duration, rate
from training.workspace import PROJECT, Workspace

if TYPE_CHECKING:
    from training.data.manifest import Row
    from training.engine.loop.run import Run

SCRATCH = ".estimate"  # under --out: on the disk that is saved to
PLACES = 4  # of the run that are timed: the cost of a step may change on the way (losses, windows)
SECONDS, STEPS, LEAST = 20.0, 30, 3  # timed in all: until so long or so many, but at least a few
PATIENCE = 3.0  # times SECONDS: the most, where loaders have much prepared ahead
JUDGING = 10.0  # seconds of the held-out pass that are timed; the rest is scaled up
DOUBT = 0.03  # of the steps' time: what few steps do not show (other programs, heat, neighbours)


@dataclass(frozen=True)
class Estimate:
    """Seconds, where nothing else is said."""

    title: str
    place: str  # the device
    begin: int  # optimizer steps done before
    steps: int  # still to do
    steps_per_epoch: int
    step: float  # mean of one
    spread: tuple[float, float]  # of the timed steps: the fastest tenth's end and the slowest tenth's beginning
    timed: int  # steps
    error: float  # of `step`, two standard errors
    waiting: float  # share of the steps' time in which input is waited for
    start: float  # from the command to the second step
    evaluation: float  # of the held-out split
    evaluations: int
    least_evaluations: int  # after which the run may stop early; `evaluations` where it never does
    save: float  # what training is held up by one
    saves: int
    last_save: float
    ending: float  # evaluate, export and verify afterwards
    millions: float  # weights
    notes: tuple[str, ...] = field(default=())

    @property
    def per_evaluation(self) -> float:
        """Of an evaluation and the save that may follow it."""
        return self.evaluation + self.save

    @property
    def training(self) -> float:
        """Until the training process ends."""
        rest = self.evaluations * self.per_evaluation + (self.saves - self.evaluations) * self.save + self.last_save
        return self.start + self.steps * self.step + rest

    @property
    def all(self) -> float:
        """Until the exports are verified."""
        return self.training + self.ending

    @property
    def doubt(self) -> float:
        return self.steps * (self.error + DOUBT * self.step)

    def steps_within(self, seconds: float) -> int:
        """Steps that fit into so much time of training."""
        left = seconds - self.start - self.per_evaluation - self.last_save
        each = self.step + (self.steps and self.evaluations * self.per_evaluation / self.steps)
        return max(0, min(self.steps, int(left / each)))


def estimate(
    recipe: Recipe,
    workspace: Workspace,
    *,
    device: str = "auto",
    resume: str = "auto",
    options: Mapping[str, Any] | None = None,
    load: Callable[[str], Sequence[Row]] | None = None,
    ending: Callable[[float], float] = lambda millions: 0.0,
) -> Estimate | None:
    """Time the run that `train` with the same arguments would do, or the rest of the one that is under way; None where
    that one is finished. `ending`: millions of weights -> seconds for evaluating, exporting and verifying.

    Writes to a scratch folder under the workspace, which is removed; checkpoints/ and runs/ are not touched. Songs that
    are not in cache/ yet are decoded into it. Raises what `train` would raise in its first minutes.
    """
    began = time.monotonic()
    from training.engine.checkpoints.provenance import hardware, plain, provenance
    from training.engine.checkpoints.resume import Wanted
    from training.engine.loop.run import Run, batch_plan
    from training.engine.loop.state import State, planned
    from training.engine.process.distributed import Ranks, choose_device, share_cores
    from training.engine.process.heartbeat import rest
    from training.engine.process.signals import Signals
    from training.engine.tracking.tracker import Tracker
    from training.stages.splits import load_split
    from training.stages.train import constants_of

    ranks = Ranks(0, 1, choose_device(device))
    share_cores(ranks, recipe.settings.data.num_workers)
    if load is None:
        rows = {split: load_split(recipe, workspace, split, options=options) for split in ("train", "val")}
    else:
        rows = {split: load(split) for split in ("train", "val")}
    refuse_leak(rows)
    examples = {split: recipe.dataset(rows[split], training=split == "train") for split in rows}
    plan = batch_plan(len(examples["train"]), len(examples["val"]), recipe.settings, ranks)
    digest = data_digest(rows)
    wanted = Wanted(recipe.settings, digest, plan.global_batch, planned(recipe.settings, plan))
    begin, notes = _standing(workspace.checkpoints(recipe.family), wanted, resume)
    state = State(recipe, plan, ranks, constants_of(recipe, rows["train"], ranks, begin))
    if begin is not None:
        state.load(begin, "the checkpoint")
    if state.progress.finished:
        print(f"{recipe.title} is trained: {state.progress.step} steps ({state.progress.finished}).")
        return None
    origin = provenance(recipe.settings, ranks, run_id="estimate", data_digest=digest, synthetic=is_synthetic(rows))
    with scratch(workspace, SCRATCH, "estimating") as folder:
        silent = Tracker(
            folder / "run", plain(recipe.settings), recipe.settings.logging, title="", step=0, active=False
        )
        run = Run(
            state, examples["train"], examples["val"], tracker=silent, signals=Signals(),
            folder=folder / "checkpoints", provenance=origin,
        )  # fmt: skip
        with run.saver:
            measured = _measure(run, began)
    rest()
    millions = sum(p.numel() for p in state.model.parameters()) / 1e6
    return Estimate(
        title=recipe.title, place=str(hardware(ranks)["device"]), steps_per_epoch=state.plan.steps_per_epoch,
        ending=ending(millions), millions=millions, notes=tuple(notes), **measured,
    )  # fmt: skip


def _standing(folder: Path, wanted: Any, resume: str) -> tuple[Mapping[str, Any] | None, list[str]]:
    """The checkpoint that `train` would go on from, found without touching anything; and what to say of it."""
    from training.engine.checkpoints.checkpoint_file import read
    from training.engine.checkpoints.checkpoint_folder import CheckpointFolder
    from training.engine.checkpoints.resume import differences

    newest = CheckpointFolder(folder).latest() if resume == "auto" else None
    if newest is not None:
        found = read(newest)
        differing = differences(found, wanted)
        if not differing:
            step = found["progress"]["step"]
            return found, [f"The run in {folder} stands at step {step}; this is of the rest."] if step else []
        return None, [f"The run in {folder} would be set aside and a new one begun: {'; '.join(differing)}."]
    source = wanted.settings.training.resume_from
    if source is None:
        return None, []
    path = Path(source).expanduser()
    found = read(path if path.exists() or path.is_absolute() else PROJECT / path)
    return found, [f"It would go on from {source}, step {found['progress']['step']}."]


# -- measuring -----------------------------------------------------------------------------------------------------


def _measure(run: Run, began: float) -> dict[str, Any]:
    """The fields of Estimate that a run tells."""
    progress, training = run.state.progress, run.settings.training
    first = progress.step
    run.rehearse()  # saves where the run is fresh
    start, places = 0.0, []
    wanted = _places(first, progress.total_steps)
    for place in wanted:
        progress.step = place
        seconds, waited, warm = _steps(run, len(wanted))
        if not places:  # up to the second step, less the mean one that is counted among the steps
            start = time.monotonic() - began - warm - fmean(seconds)
        places.append((seconds, waited))
    every = sorted(second for seconds, _ in places for second in seconds)
    means = [fmean(seconds) for seconds, _ in places]
    errors = [stdev(seconds) / math.sqrt(len(seconds)) if len(seconds) > 1 else mean
              for (seconds, _), mean in zip(places, means, strict=True)]  # fmt: skip
    evaluation = _evaluation(run)
    save, last_save = _saving(run)
    left = progress.total_steps - first
    rhythm = training.eval_every * run.plan.steps_per_epoch
    evaluations = _count(first, progress.total_steps, rhythm)
    minutes = (left * fmean(means) + evaluations * evaluation) / (60 * training.save_minutes)
    archives = _count(first, progress.total_steps, training.save_every * run.plan.steps_per_epoch)
    return {
        "begin": first,
        "steps": left,
        "step": fmean(means),
        "spread": (every[len(every) // 10], every[-1 - len(every) // 10]),
        "timed": len(every),
        "error": 2 * math.sqrt(sum(error**2 for error in errors)) / len(errors),
        "waiting": sum(waited for _, waited in places) / max(1e-9, sum(every)),
        "start": start,
        "evaluation": evaluation,
        "evaluations": evaluations,
        "least_evaluations": _least(run, first, evaluations),
        "save": save,
        "saves": max(evaluations, archives) + int(minutes),
        "last_save": last_save,
    }


def _count(begin: int, end: int, rhythm: int) -> int:
    """Multiples of `rhythm` after `begin` up to `end`, and `end` itself."""
    return end // rhythm - begin // rhythm + (1 if end % rhythm else 0)


def _least(run: Run, begin: int, evaluations: int) -> int:
    """Evaluations after which the run may stop early, if no value improves from now on."""
    training = run.settings.training
    stopping = training.early_stopping
    if not stopping.enabled:
        return evaluations
    rhythm = training.eval_every
    before = begin // (rhythm * run.plan.steps_per_epoch)
    patient = stopping.patience - run.state.patience.waited + (0 if before else 1)
    return max(1, min(evaluations, max(patient, math.ceil(training.min_epochs / rhythm) - before)))


def _places(begin: int, end: int) -> list[int]:
    """Steps to time from: the middles of equal parts of what is left, so that the parts' mean is the run's."""
    left = end - begin
    if left <= PLACES * (LEAST + 2):
        return [begin]
    return [begin + left * (2 * part + 1) // (2 * PLACES) for part in range(PLACES)]


def _steps(run: Run, places: int) -> tuple[list[float], float, float]:
    """Seconds of some steps from where the run stands, how much of them was waiting for input, and the seconds of all
    steps but the first. What the loaders had prepared before is not counted: they may be slower than the model."""
    from training.engine.loop.recovery import halve
    from training.engine.step.step_context import OutOfMemory

    data = run.settings.data
    ahead = data.num_workers * data.prefetch_factor // run.settings.training.grad_accum_steps
    begin = run.state.progress.step
    most, longest = math.ceil(STEPS / places), SECONDS / places
    while True:
        run.state.progress.step = begin
        seconds: list[float] = []
        waits: list[float] = []
        try:
            with run.feed() as work:
                while run.state.progress.step < run.state.progress.total_steps:
                    if _enough(seconds[1:], most, longest, ahead):  # the first warms up
                        break
                    before = time.perf_counter()
                    piece = next(work)
                    run.advance(piece)
                    _wait_for_device(run)
                    seconds.append(time.perf_counter() - before)
                    waits.append(piece.waited)
            break
        except OutOfMemory as lack:
            halve(run, lack)
    skipped = min(max(1, ahead), max(1, len(seconds) - LEAST)) if len(seconds) > 1 else 0
    return seconds[skipped:], sum(waits[skipped:]), sum(seconds[1:])


def _enough(seconds: Sequence[float], most: int, longest: float, ahead: int) -> bool:
    done, passed = len(seconds), sum(seconds)
    if done < LEAST or (done < 2 * ahead and passed < PATIENCE * longest):
        return False
    return passed >= longest or done >= most


def _wait_for_device(run: Run) -> None:
    if run.ranks.device.type == "cuda":
        import torch

        torch.cuda.synchronize(run.ranks.device)


def _evaluation(run: Run) -> float:
    """Seconds of a held-out pass: of all of it where it is short, else of its beginning, scaled up."""
    from training.engine.loop.validate import Interruption

    times: list[float] = []

    def enough() -> bool:
        _wait_for_device(run)
        times.append(time.perf_counter())
        return len(times) > LEAST + 1 and times[-1] - times[0] > JUDGING

    before = time.perf_counter()
    with run.feed():
        try:
            run.held_out.stop = enough  # asked between two batches
            run.held_out.judge(run.model)
            _wait_for_device(run)
            return time.perf_counter() - before
        except Interruption:
            begun = times[1] - before  # the first batch waits for the loaders to begin
            return begun + (times[-1] - times[1]) / (len(times) - 2) * (run.held_out.rounds - 1)


def _saving(run: Run) -> tuple[float, float]:
    """Seconds that a save holds the training up; seconds until the last one is on the disk."""
    before = time.perf_counter()
    run.state.progress.step = max(1, run.state.progress.step)
    run.save()
    held = time.perf_counter() - before
    run.settle_saves()
    return held, time.perf_counter() - before


# -- telling -------------------------------------------------------------------------------------------------------


def show(told: Estimate, account: Account, family: str, families_left: int, others: Sequence[str]) -> None:
    """For people: how long, how much, until when, and what fits into a limit."""
    price = account.limit.price
    epochs, place = told.steps / told.steps_per_epoch, told.place
    print(
        f"{told.title}, {told.millions:.2f} M parameters on {place}: {told.timed} steps were timed, nothing was kept."
    )
    for note in told.notes:
        print(f"  {note}")
    fast, slow = told.spread
    _row("start", told.start, "loading, rehearsal, first step (once for every start)")
    _row(
        f"{told.steps:,} steps", told.steps * told.step,
        f"{epochs:.1f} epochs of {told.steps_per_epoch:,}; {rate(told.step)}, mostly {fast:.3g} to {slow:.3g} s a step"
        + (f"; input is waited for {told.waiting:.0%} of the time" if told.waiting > 0.05 else ""),
    )  # fmt: skip
    _row(f"{told.evaluations} evaluations", told.evaluations * told.evaluation, f"{told.evaluation:.2g} s each")
    _row(f"{told.saves} saves", told.saves * told.save + told.last_save, f"training waits {told.save:.2g} s for one")
    _row("the end", told.ending, "evaluate, export, verify: kept back for it")
    low, high = max(0.0, told.all - told.doubt), told.all + told.doubt
    money = "" if price is None else f"; {told.all / HOUR * price:.2f} USD at {price:g} USD/h"
    _row("in all", told.all, f"between {duration(low)} and {duration(high)}{money}")
    print(f"  Begun now it would end at {_clock(told.all)}.")
    if told.least_evaluations < told.evaluations:
        saved = (told.evaluations - told.least_evaluations) / told.evaluations * (told.training - told.start)
        print(f"  Early stopping may end it sooner: after {duration(told.all - saved)} at the earliest.")
    if price is None:
        print("  What an hour costs is not known: --price-per-hour USD.")
    if account.limit.given:
        _within(told, account, family, families_left, others)


def _within(told: Estimate, account: Account, family: str, families_left: int, others: Sequence[str]) -> None:
    left = account.training_left(family, families_left, others, **{family: told.millions})
    allowed = max(0.0, left()) if left else math.inf
    print(f"  {account.told()} This training may use {duration(allowed)}.")
    steps = told.steps_within(allowed)
    if steps >= told.steps:
        print(f"  It fits, with {duration(allowed - told.training)} to spare.")
        return
    epochs = steps / told.steps_per_epoch
    print(
        f"  About {steps:,} of {told.steps:,} steps fit ({epochs:.1f} of {told.steps / told.steps_per_epoch:.1f} "
        "epochs); the learning rate would fall to its floor by then."
    )


def _row(name: str, seconds: float, told: str) -> None:
    print(f"  {name:<18}{duration(seconds):>9}   {told}")


def _clock(seconds: float) -> str:
    at = time.localtime(time.time() + seconds)
    return time.strftime("%H:%M" if seconds < 12 * HOUR else "%a %d %b %H:%M", at)
