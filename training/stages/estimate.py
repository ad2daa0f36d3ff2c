"""Estimates the time and cost of a training from a few of its real steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.budget.account import Account
from training.budget.limit import HOUR
from training.recipe import Recipe
from training.stages.scratch import scratch
from training.units import duration, rate
from training.workspace import PROJECT, Workspace

if TYPE_CHECKING:
    from training.data.rows import Row
    from training.engine.checkpoints.resume import Decision, Wanted

SCRATCH = ".estimate"  # under --out, so that saves are timed on the disk that the training uses
#: Half a minute of timing does not show how fast the host will be in the hours after it (other programs, heat, other
#: virtual machines). The uncertainty is therefore a share of the training's time: LEAST_DOUBT, or DRIFT times the
#: change of speed during the timing if that is more. benchmarks/estimate.py counts how often the interval is right.
LEAST_DOUBT, DRIFT = 0.08, 1.5


@dataclass(frozen=True)
class Estimate:
    """The estimate of one training. Times are in seconds."""

    title: str
    place: str  # the device
    begin: int  # optimizer steps that are done already
    steps: int  # optimizer steps still to do
    steps_per_epoch: int
    step: float  # mean time of one step
    spread: tuple[float, float]  # 10th and 90th percentile of the timed steps
    timed: int  # number of timed steps
    error: float  # two standard errors of `step`
    drift: float  # change of the host's speed during the timing, as a share
    waiting: float  # share of the step time in which the model waits for input
    start: float  # from the command to the second step
    evaluation: float  # one evaluation of the held-out split
    evaluations: int
    least_evaluations: int  # evaluations after which early stopping is possible; `evaluations` if it is not
    save: float  # how long one save holds up the training
    saves: int
    last_save: float  # until the last save is on the disk
    ending: float  # evaluate, export and verify after the training
    millions: float  # millions of parameters
    notes: tuple[str, ...] = field(default=())

    @property
    def per_evaluation(self) -> float:
        """Time of an evaluation and the save that may follow it."""
        return self.evaluation + self.save

    @property
    def training(self) -> float:
        """Time until the training process ends."""
        rest = self.evaluations * self.per_evaluation + (self.saves - self.evaluations) * self.save + self.last_save
        return self.start + self.steps * self.step + rest

    @property
    def all(self) -> float:
        """Time until the exports are verified."""
        return self.training + self.ending

    @property
    def doubt(self) -> float:
        """Seconds by which the training may take more or less, in nine of ten runs."""
        share = max(LEAST_DOUBT, DRIFT * self.drift)
        return math.hypot(self.steps * self.error, share * self.training)

    def steps_within(self, seconds: float) -> int:
        """How many of the steps fit into `seconds` of training."""
        left = seconds - self.start - self.per_evaluation - self.last_save
        each = self.step + (self.steps and self.evaluations * self.per_evaluation / self.steps)
        return max(0, min(self.steps, int(left / each)))

    def ended_within(self, seconds: float) -> Estimate:
        """The same training with `training.max_minutes` of `seconds`."""
        steps = self.steps_within(seconds)
        if steps >= self.steps:
            return self
        fewer = {
            name: max(1, math.ceil(getattr(self, name) * steps / self.steps))
            for name in ("evaluations", "least_evaluations", "saves")
        }
        note = f"training.max_minutes ends it after about {steps:,} of {self.steps:,} steps."
        return replace(self, steps=steps, notes=(*self.notes, note), **fewer)


def estimate(
    recipe: Recipe,
    workspace: Workspace,
    *,
    device: str = "auto",
    resume: str = "auto",
    options: Mapping[str, Any] | None = None,
    load: Callable[[str], Sequence[Row]] | None = None,
    ending: Callable[[float, float], float] = lambda millions, seconds: 0.0,
) -> Estimate | None:
    """Time the run that `train` with the same arguments would do, or the rest of the one that is under way; None where
    that one is finished. `ending`: (millions of parameters, seconds of training) -> seconds for evaluating, exporting
    and verifying.

    Writes to a scratch folder under the workspace, which is removed; checkpoints/ and runs/ are not touched. Files
    that are not in cache/ yet are decoded into it. Raises the errors that `train` would raise in its first minutes.
    """
    began = time.monotonic()
    from training.engine.checkpoints.provenance import hardware, plain, provenance
    from training.engine.loop.session import SteppedSession, open_session
    from training.engine.process.distributed import Ranks, choose_device
    from training.engine.process.heartbeat import stop_watching
    from training.engine.process.signals import Signals
    from training.engine.tracking.tracker import Tracker
    from training.stages.timing import measure, measure_rounds
    from training.stages.train import prepared

    ranks = Ranks(0, 1, choose_device(device))
    ready, settings = prepared(recipe, workspace, ranks, options, load), recipe.settings
    folder = workspace.checkpoints(recipe.run)
    session = open_session(
        recipe, ranks, ready.rows, lambda wanted: _standing(folder, wanted, resume), data_digest=ready.digest
    )
    if session.progress.finished:
        print(f"{recipe.title} is trained: {session.progress.step} steps ({session.progress.finished}).")
        return None
    origin = provenance(settings, ranks, run_id="estimate", data_digest=ready.digest, synthetic=ready.synthetic)
    with scratch(workspace, SCRATCH, "estimating") as work:
        silent = Tracker(work / "run", plain(settings), settings.logging, title="", step=0, active=False)
        run = session.run(silent, Signals(), work / "checkpoints", origin)
        with run.saver:
            measured = (measure if isinstance(session, SteppedSession) else measure_rounds)(run, began)
    stop_watching()
    millions = session.parameters / 1e6
    found = Estimate(
        title=recipe.title, place=str(hardware(ranks)["device"]), ending=0.0, millions=millions,
        notes=session.begin.notes, **measured,
    )  # fmt: skip
    if settings.training.max_minutes:
        found = found.ended_within(60 * settings.training.max_minutes - session.progress.seconds)
    return replace(found, ending=ending(millions, found.training))


def _standing(folder: Path, wanted: Wanted, resume: str) -> Decision:
    """The checkpoint from which `train` would continue, found without changing any file, and notes about it."""
    from training.engine.checkpoints.checkpoint_file import read
    from training.engine.checkpoints.checkpoint_folder import CheckpointFolder
    from training.engine.checkpoints.resume import Decision, differences

    newest = CheckpointFolder(folder).latest() if resume == "auto" else None
    if newest is not None:
        found = read(newest)
        differing = differences(found, wanted)
        if differing:
            why = f"The run in {folder} would be set aside and a new one begun: {'; '.join(differing)}."
            return Decision(None, SCRATCH, (why,))
        step = found["progress"]["step"]
        notes = (f"The run in {folder} is at step {step}; the estimate is for the remaining steps.",) if step else ()
        return Decision(newest, SCRATCH, notes)
    source = wanted.settings.training.resume_from
    if source is None:
        return Decision(None, SCRATCH)
    path = Path(source).expanduser()
    path = path if path.exists() or path.is_absolute() else PROJECT / path
    step = read(path)["progress"]["step"]
    return Decision(path, SCRATCH, (f"It would continue from {source}, step {step}.",))


# -- output --------------------------------------------------------------------------------------------------------


def show(found: Estimate, account: Account, family: str, families_left: int, others: Sequence[str]) -> None:
    """Print the estimate: duration, cost, when the training would end, and how much of it fits into a limit."""
    price = account.limit.price
    epochs, place = found.steps / found.steps_per_epoch, found.place
    print(
        f"{found.title}, {found.millions:.2f} M parameters on {place}: {found.timed} steps were timed, nothing was "
        "kept."
    )
    for note in found.notes:
        print(f"  {note}")
    fast, slow = found.spread
    _row("start", found.start, "loading, sanity check, first step (once for every start)")
    _row(
        f"{found.steps:,} steps", found.steps * found.step,
        f"{epochs:.1f} epochs of {found.steps_per_epoch:,}; {rate(found.step)}, mostly {fast:.3g} to {slow:.3g} s a "
        "step"
        + (f"; input is waited for {found.waiting:.0%} of the time" if found.waiting > 0.05 else ""),
    )  # fmt: skip
    _row(f"{found.evaluations} evaluations", found.evaluations * found.evaluation, f"{found.evaluation:.2g} s each")
    _row(
        f"{found.saves} saves", found.saves * found.save + found.last_save, f"training waits {found.save:.2g} s for one"
    )
    _row("the end", found.ending, "evaluate, export, verify: reserved")
    low, high = max(0.0, found.all - found.doubt), found.all + found.doubt
    money = "" if price is None else f"; {found.all / HOUR * price:.2f} USD at {price:g} USD/h"
    _row("in all", found.all, f"between {duration(low)} and {duration(high)} in nine of ten runs{money}")
    print(f"  If it is started now, it will end at {_clock(found.all)}.")
    if found.least_evaluations < found.evaluations:
        saved = (found.evaluations - found.least_evaluations) / found.evaluations * (found.training - found.start)
        print(f"  Early stopping may end it sooner: after {duration(found.all - saved)} at the earliest.")
    if price is None:
        print("  What an hour costs is not known: --price-per-hour USD.")
    if account.limit.given:
        _within(found, account, family, families_left, others)


def _within(found: Estimate, account: Account, family: str, families_left: int, others: Sequence[str]) -> None:
    left = account.training_left(family, families_left, others, **{family: found.millions})
    allowed = max(0.0, left()) if left else math.inf
    print(f"  {account.summary()} This training may use {duration(allowed)}.")
    steps = found.steps_within(allowed)
    if steps >= found.steps:
        print(f"  It fits, with {duration(allowed - found.training)} to spare.")
        return
    epochs = steps / found.steps_per_epoch
    print(
        f"  About {steps:,} of {found.steps:,} steps fit ({epochs:.1f} of {found.steps / found.steps_per_epoch:.1f} "
        "epochs); the learning rate would fall to its floor by then."
    )


def _row(name: str, seconds: float, text: str) -> None:
    print(f"  {name:<18}{duration(seconds):>9}   {text}")


def _clock(seconds: float) -> str:
    at = time.localtime(time.time() + seconds)
    return time.strftime("%H:%M" if seconds < 12 * HOUR else "%a %d %b %H:%M", at)
