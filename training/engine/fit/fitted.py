"""Training of a fitted family: rounds in chunks, between which the engine checks the budget, signals, and whether an
evaluation or a save is due. A run is saved, resumed, budgeted and logged like a stepped one; a round counts as a step
and as an epoch."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from training.engine.checkpoints.index import BEST, FORMAT, LAST, epoch_name, step_name
from training.engine.checkpoints.provenance import plain
from training.engine.checkpoints.resume import Decision, Wanted
from training.engine.checkpoints.saver import Saver
from training.engine.loop.evaluation import conclude, index_value, require_best
from training.engine.loop.opening import Decide, constants_of, decided, place, require_examples, standing
from training.engine.loop.pace import Allowance
from training.engine.loop.progress import ALL_STEPS, Progress
from training.engine.loop.stopping import Patience
from training.engine.loop.validate import require_metrics
from training.engine.process.distributed import Ranks
from training.engine.process.heartbeat import beat
from training.engine.process.signals import Signals
from training.engine.tracking.tracker import Tracker
from training.errors import Interrupted, TrainingError, UsageError
from training.recipe import Fitted
from training.units import duration

if TYPE_CHECKING:
    from training.data.rows import Row

KIND = "fitted"  # of a checkpoint
RECENT = 5  # chunks over which their time is averaged


class FittedSession:
    """An open run of a fitted family. `fit` creates the state and fits it on rank 0, while the other ranks wait."""

    def __init__(
        self, recipe: Fitted, ranks: Ranks, rows: Mapping[str, Sequence[Row]], constants: Mapping[str, np.ndarray],
        begin: Decision, content: Mapping[str, Any] | None, limit: float,
    ):  # fmt: skip
        self.recipe, self.ranks, self.rows, self.constants, self.begin = recipe, ranks, rows, constants, begin
        self.planned = recipe.rounds()
        self.patience = Patience(recipe.settings.training.early_stopping)
        self.metrics: dict[str, float] = {}  # the newest evaluation's
        self.progress = Progress(
            total_steps=self.planned, samples=len(rows["train"]), global_batch=1, limit=limit
        )  # fmt: skip
        self.saved = content  # the checkpoint to continue from
        if content is not None:
            self._load(content, str(begin.path))

    def _load(self, content: Mapping[str, Any], name: str) -> None:
        if content["family"] != self.recipe.run:
            raise UsageError(f"{name} is a checkpoint of {content['family']}, not of {self.recipe.run}.")
        if content.get("kind") != KIND:
            raise UsageError(
                f"{name} is a checkpoint of a stepped family, and {self.recipe.title} is a fitted one. Start again "
                "without it."
            )
        limit = self.progress.limit
        self.progress = Progress.saved(content["progress"])
        self.patience.load(content["early_stopping"])
        self.metrics = dict(content["metrics"])
        training = self.recipe.settings.training
        self.progress.plan_again(self.patience, content["settings"]["training"], training, self.planned, limit)
        if not self.progress.finished:  # unlike a stepped run, whose learning rate depends on the total
            self.progress.total_steps = self.planned

    @property
    def epoch(self) -> int:
        """Rounds done."""
        return self.progress.step

    @property
    def parameters(self) -> int:
        """0: a fitted family has no parameters that are counted."""
        return 0

    def headline(self) -> str:
        """One line for the log: the data, the device, and the round at which the run stands."""
        return "; ".join(
            [
                f"{self.recipe.title}: fitted on {self.progress.samples:,} rows, {self.recipe.chunk} rounds at a time",
                f"on {place(Ranks(0, 1, self.ranks.device))}",
                standing(self.progress, resumed=self.begin.path is not None),
            ]
        )

    def run(
        self, tracker: Tracker, signals: Signals, folder: Path, provenance: Mapping[str, Any], **more: Any
    ) -> FittedRun:
        """A FittedRun for this session, to be trained or timed. `more`: further arguments of FittedRun."""
        return FittedRun(self, tracker=tracker, signals=signals, folder=folder, provenance=provenance, **more)

    def fit(self, tracker: Tracker, signals: Signals, folder: Path, provenance: Mapping[str, Any], **more: Any) -> None:
        """Train to the end of the run, on rank 0, while the other ranks wait. Arguments as of `run`."""
        if not self.ranks.is_first:
            signals.immediate = False  # a signal must not end this rank before rank 0 has saved
        self.progress = self.ranks.on_rank_zero(
            lambda: self.run(tracker, signals, folder, provenance, **more).fit()
        )  # fmt: skip


def open_fitted(
    recipe: Fitted, ranks: Ranks, rows: Mapping[str, Sequence[Row]], decide: Decide, data_digest: str, limit: float,
    constants: Mapping[str, np.ndarray] | None, begun: Callable[[Decision], None],
) -> FittedSession:  # fmt: skip
    """See session.open_session."""
    require_examples(len(rows["train"]), len(rows["val"]))
    decision, content = decided(ranks, decide, Wanted(recipe.settings, data_digest, 1, recipe.rounds()))
    constants = constants_of(recipe, rows["train"], ranks, content) if constants is None else constants
    begun(decision)
    return FittedSession(recipe, ranks, rows, constants, decision, content, limit)


class FittedRun:
    """One run in one process: arguments as of loop.run.Run.

    Whether an evaluation, a checkpoint or a log line is due depends on the number of rounds alone. Chunks end at
    multiples of `recipe.chunk`, and at the end of the run.
    """

    def __init__(
        self,
        session: FittedSession,
        *,
        tracker: Tracker,
        signals: Signals,
        folder: Path,
        provenance: Mapping[str, Any],
        allowance: Allowance | None = None,
        saved: Callable[[], None] = lambda: None,
        validated: Callable[[], None] = lambda: None,
    ):
        self.session, self.recipe, self.progress = session, session.recipe, session.progress
        self.training = self.recipe.settings.training
        self.tracker, self.signals, self.folder, self.provenance = tracker, signals, folder, provenance
        self.allowance, self.validated = allowance, validated
        # The same tensors throughout the run: StoredOnce recognises large ones by identity, and writes them once.
        self.constants = {name: torch.as_tensor(np.asarray(value)) for name, value in session.constants.items()}
        self.saver = Saver(folder, self.training.keep, tracker.say, saved)
        self.state: Any = None
        self.asked_to_stop = False
        self.names: list[str] = []  # what the next save is called besides last.pt
        self.saved_at = self.counted_at = time.monotonic()
        self.evaluation = self.saving = 0.0  # seconds of the newest ones
        self.chunks: deque[tuple[int, float]] = deque(maxlen=RECENT)  # rounds and seconds of the newest ones

    # -- the loop --------------------------------------------------------------------------------------------------

    def fit(self) -> Progress:
        """Train until all rounds are done, early stopping ends the run, or the budget is used up. Raises Interrupted,
        with everything saved, when a stop was requested, and TrainingError for a validation loss that is not finite."""
        with self.saver:
            self.prepare()
            while True:
                self.asked_to_stop = bool(self.signals.name)  # read once, so that all checks of a pass agree
                self._shorten()
                if self.evaluation_due():
                    self.evaluate()
                if self.save_due():
                    self.save()
                if self.progress.finished:
                    return self.progress
                if self.asked_to_stop:
                    raise Interrupted(
                        f"Stopped after {self.where}; everything is saved. Run the same command again to continue."
                    )
                self.advance()

    def prepare(self) -> None:
        """Create the state, or load it; save a new run at once, so that an error of saving occurs before training."""
        session, progress = self.session, self.progress
        if session.saved is None:
            self.state = self.recipe.begin(session.rows, session.constants, self.recipe.settings.seed)
        else:
            self.state = loaded(self.recipe, session.saved, session.rows)
            session.saved = None  # frees the memory of the checkpoint
        beat()
        if progress.step == 0 or not (self.folder / LAST).exists():
            self.save(wait=True)
        self.saver.require_space(0)
        self.tracker.begin(progress.step, progress.total_steps)

    def advance(self) -> None:
        """The rounds up to the end of the chunk."""
        progress, chunk = self.progress, self.recipe.chunk
        end = min(progress.total_steps, (progress.step // chunk + 1) * chunk)
        before = time.monotonic()
        self.state = self.recipe.advance(self.state, end - progress.step)
        self.chunks.append((end - progress.step, time.monotonic() - before))
        for _ in range(end - progress.step):
            self.tracker.advance()
        progress.step = end
        self.signals.immediate = False
        beat()
        if self._passed(self.training.log_every) or progress.step == progress.total_steps:
            self._log()

    def _passed(self, every: int | None) -> bool:
        """Whether a multiple of `every` rounds lies in the chunk that ends here."""
        step, chunk = self.progress.step, self.recipe.chunk
        return bool(every) and step > 0 and step // every > (step - 1) // chunk * chunk // every

    def _log(self) -> None:
        progress, rate = self.progress, self.rounds_per_second
        left = (progress.total_steps - progress.step) / rate
        self.tracker.say(
            f"round {progress.step}/{progress.total_steps}  {rate:,.1f} rounds/s  {duration(left)} left"
        )  # fmt: skip
        values = {"rounds_per_second": rate, "seconds_left": left, "total_steps": progress.total_steps}
        self.tracker.record("train", progress.step, {"epoch": progress.step, **values})

    @property
    def rounds_per_second(self) -> float:
        """Rounds per second over the newest chunks."""
        return sum(rounds for rounds, _ in self.chunks) / max(1e-9, sum(seconds for _, seconds in self.chunks))

    def _shorten(self) -> None:
        """End the run at this round if the next chunk, an evaluation and a save do not fit into the time left. The
        first chunk is always done: without it there is nothing to evaluate."""
        progress = self.progress
        if self.allowance is None or not 0 < progress.step < progress.total_steps:
            return
        left = self.allowance.left() - self.evaluation - self.saving
        chunk = max((seconds for _, seconds in self.chunks), default=0.0)
        if left <= chunk:
            progress.total_steps = progress.step
            self.tracker.say(f"the time ends after {progress.step} of {self.session.planned} rounds.")

    # -- what is due -----------------------------------------------------------------------------------------------

    def evaluation_due(self) -> bool:
        """Whether to evaluate now: every `eval_every` and `eval_steps` rounds, and at the end of the run."""
        progress = self.progress
        if progress.evaluated >= progress.step or progress.finished or self.asked_to_stop:
            return False
        regular = self._passed(self.training.eval_every) or self._passed(self.training.eval_steps)
        return regular or progress.step >= progress.total_steps

    def evaluate(self) -> None:
        """Score the held-out split; record the best; decide whether to stop early."""
        progress, before = self.progress, time.perf_counter()
        metrics = {name: float(value) for name, value in self.recipe.score(self.state, "val").items()}
        if "val_loss" not in metrics:
            raise UsageError(f"{type(self.recipe).__name__}.score gives no val_loss.")
        require_metrics(metrics, self.recipe)
        beat()
        if not math.isfinite(metrics["val_loss"]):
            raise TrainingError(
                f"After {self.where} val_loss is {metrics['val_loss']}: the fit has diverged. Checkpoints saved before "
                "are kept. Look for values in the data that are not finite, or try a lower learning rate."
            )
        self.session.metrics = metrics
        progress.evaluated = progress.step
        self.evaluation = time.perf_counter() - before
        if conclude(
            progress, self.session.patience, metrics, self.training, self.tracker,
            epoch=progress.step, where=self.where, seconds=self.evaluation,
        ):  # fmt: skip
            self.names.append(BEST)
        self.validated()

    def save_due(self) -> bool:
        """Whether to save now: a new best, rounds to keep, `save_minutes`, a stop request, or the end of the run."""
        progress, training = self.progress, self.training
        if self._passed(training.save_every) and progress.archived < progress.step:
            progress.archived = progress.step
            self.names.append(epoch_name(progress.step))
        if self._passed(training.save_steps) and progress.archived_step < progress.step:
            progress.archived_step = progress.step
            self.names.append(step_name(progress.step))
        if progress.step >= progress.total_steps and not progress.finished and not self.asked_to_stop:
            complete = progress.total_steps >= self.session.planned
            progress.finished = ALL_STEPS if complete or self.allowance is None else self.allowance.reason()
        clock = time.monotonic() - self.saved_at > 60 * training.save_minutes
        return bool(self.names or clock or self.saver.failed or self.asked_to_stop or progress.finished)

    def save(self, *, wait: bool = False) -> None:
        """last.pt, and the further names that are due."""
        progress, session, stopping = self.progress, self.session, self.training.early_stopping
        if progress.finished:
            require_best(progress, stopping, self.tracker.say)
        now = time.monotonic()
        progress.seconds += now - self.counted_at
        self.counted_at = now
        value = index_value(session.metrics, stopping) if progress.evaluated == progress.step else None
        entry = {"step": progress.step, "epoch": progress.step, "value": value, "run_id": self.provenance["run_id"]}
        held = wait or self.asked_to_stop or bool(progress.finished)
        self.saver.save(self.to_checkpoint(), entry, self.names, wait=held)
        self.names.clear()
        self.saved_at = time.monotonic()
        self.saving = self.saved_at - now

    def to_checkpoint(self) -> dict[str, Any]:
        """The content of a checkpoint, of plain containers and tensors, with the keys of a stepped one."""
        session = self.session
        return {
            "format": FORMAT,
            "kind": KIND,
            "family": self.recipe.run,
            "settings": plain(self.recipe.settings),
            "fitted": as_tensor(self.recipe.dump(self.state)),
            "model": {},
            "ema": None,
            "constants": self.constants,
            "optimizer": None,
            "scaler": None,
            "progress": self.progress.plain(self.progress.step, 0),
            "early_stopping": session.patience.state(),
            "metrics": dict(session.metrics),
            "provenance": {**self.provenance, "seconds": self.progress.seconds},
        }

    @property
    def where(self) -> str:
        """The position in the run, as text for the log."""
        return f"round {self.progress.step}/{self.progress.total_steps}"


def as_tensor(content: bytes) -> torch.Tensor:
    """The bytes as a tensor, uint8 [n]."""
    return torch.from_numpy(np.frombuffer(content, np.uint8).copy())


def loaded(recipe: Fitted, content: Mapping[str, Any], rows: Mapping[str, Sequence[Row]] | None = None) -> Any:
    """The state in a checkpoint. Without `rows` it can predict and be exported, but not continue its fit."""
    constants = {name: tensor.numpy() for name, tensor in content["constants"].items()}
    return recipe.load(content["fitted"].numpy().tobytes(), rows, constants)
