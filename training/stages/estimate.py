"""Estimate of what a training takes in time and money, from a few of its real steps."""

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

SCRATCH = ".estimate"  # under --out: on the disk that is saved to
#: Of the training's time, what half a minute does not show of the hours after it (other programs, heat, neighbours): at
#: least so much, and so many times what was seen of it in that half minute. benchmarks/estimate.py counts how often
#: the interval holds.
LEAST_DOUBT, DRIFT = 0.08, 1.5


@dataclass(frozen=True)
class Estimate:
    """Seconds, where nothing else is given."""

    title: str
    place: str  # the device
    begin: int  # optimizer steps done before
    steps: int  # still to do
    steps_per_epoch: int
    step: float  # mean of one
    spread: tuple[float, float]  # of the timed steps: the fastest tenth's end and the slowest tenth's beginning
    timed: int  # steps
    error: float  # of `step`, two standard errors
    drift: float  # how much the host's speed changed meanwhile, as a share
    waiting: float  # share of the steps' time in which input is waited for
    start: float  # from the command to the second step
    evaluation: float  # of the held-out split
    evaluations: int
    least_evaluations: int  # after which the run may stop early; `evaluations` where it never does
    save: float  # what training is held up by one
    saves: int
    last_save: float
    ending: float  # evaluate, export and verify afterwards
    millions: float  # parameters
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
        """Seconds by which the training may take more or less, in nine of ten runs."""
        share = max(LEAST_DOUBT, DRIFT * self.drift)
        return math.hypot(self.steps * self.error, share * self.training)

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
    ending: Callable[[float, float], float] = lambda millions, seconds: 0.0,
) -> Estimate | None:
    """Time the run that `train` with the same arguments would do, or the rest of the one that is under way; None where
    that one is finished. `ending`: millions of weights, seconds of training -> seconds for evaluating, exporting and
    verifying.

    Writes to a scratch folder under the workspace, which is removed; checkpoints/ and runs/ are not touched. Files
    that are not in cache/ yet are decoded into it. Raises what `train` would raise in its first minutes.
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
    return replace(found, ending=ending(millions, found.training))


def _standing(folder: Path, wanted: Wanted, resume: str) -> Decision:
    """What `train` would continue from, found without touching anything; and what to say of it."""
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
        notes = (f"The run in {folder} stands at step {step}; this is of the rest.",) if step else ()
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
    """For people: how long, how much, until when, and what fits into a limit."""
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
    print(f"  Begun now it would end at {_clock(found.all)}.")
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
