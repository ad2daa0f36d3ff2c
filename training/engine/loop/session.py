"""Opening a run: datasets, batch plan, the decision to resume, constants, state. `train`, `estimate` and trained
baselines open their runs here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from training.data.index import shard_of_each
from training.engine.checkpoints.resume import Decision, Wanted
from training.engine.fit.fitted import FittedSession, open_fitted
from training.engine.loading.batches import BatchPlan, Shards
from training.engine.loop.loop import fit
from training.engine.loop.opening import Decide, constants_of, decided, place, require_examples, standing
from training.engine.loop.progress import Progress
from training.engine.loop.run import Run
from training.engine.loop.state import State, planned
from training.engine.process.distributed import Ranks
from training.engine.process.sharding import require_shardable
from training.engine.process.signals import Signals
from training.engine.step.precision import require_precision
from training.engine.tracking.tracker import Tracker
from training.errors import UsageError
from training.recipe import Dataset, Fitted, Recipe, Stepped
from training.settings import RunSettings
from training.units import size

if TYPE_CHECKING:
    import numpy as np

    from training.data.rows import Row


@dataclass(frozen=True)
class SteppedSession:
    """An open run of a stepped family. `begin`: whether it continues from a checkpoint, and from which."""

    recipe: Stepped
    rows: Mapping[str, Sequence[Row]]
    train: Dataset
    held_out: Dataset
    state: State
    begin: Decision

    @property
    def progress(self) -> Progress:
        return self.state.progress

    @property
    def epoch(self) -> int:
        """Epochs finished."""
        return self.state.epoch

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.state.model.parameters())

    def headline(self) -> str:
        """One line for the log: the model, the epoch, the device, and the step at which the run stands."""
        plan, state = self.state.plan, self.state
        return "; ".join(
            [
                f"{self.recipe.title}: {self.parameters / 1e6:.2f} M parameters, {plan.samples:,} samples an epoch, "
                f"{plan.steps_per_epoch:,} steps of {plan.global_batch}",
                f"{state.precision} on {place(state.ranks)}",
                *self._sharding(),
                *self._memory(),
                standing(self.progress, resumed=self.begin.path is not None),
            ]
        )

    def _sharding(self) -> list[str]:
        if self.recipe.parallel != "fsdp":
            return []
        if self.state.sharding is None:
            return ["not sharded, as there is one process"]
        return [f"{len(self.state.sharding.blocks)} blocks sharded over {self.state.ranks.world} processes"]

    def _memory(self) -> list[str]:
        needed, device = self.recipe.room(self.state.model).memory, self.state.ranks.device
        if needed is None:
            return []
        text = f"about {size(needed)} of memory"
        if device.type == "cuda":
            free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
            text += f" of {size(free)} free"
            if needed > free:
                text += ", which is too little"
                text += "" if self.state.sharding else ": micro-batches are halved when it runs out"
        return [text]

    def run(self, tracker: Tracker, signals: Signals, folder: Path, provenance: Mapping[str, Any], **more: Any) -> Run:
        """A Run for this session, to be trained or timed. `more`: further arguments of Run."""
        return Run(
            self.state, self.train, self.held_out, tracker=tracker, signals=signals, folder=folder,
            provenance=provenance, held_out_rows=self.rows["val"], **more,
        )  # fmt: skip

    def fit(self, *where: Any, **more: Any) -> None:
        """Train it to its end. Arguments as of `run`."""
        fit(self.run(*where, **more))


Session = SteppedSession | FittedSession


def open_session(
    recipe: Recipe,
    ranks: Ranks,
    rows: Mapping[str, Sequence[Row]],
    decide: Decide,
    *,
    data_digest: str = "",
    limit: float = 0.0,
    constants: Mapping[str, np.ndarray] | None = None,
    begun: Callable[[Decision], None] = lambda _: None,
) -> Session:
    """Open the run of `recipe` on the splits train and val.

    `decide`: chooses the checkpoint to continue from. `limit`: seconds of the budget; 0: it has none. `constants`:
    those of a run with which this one is compared; default: those of the checkpoint, or else they are fitted. `begun`:
    called on every rank with the decision, after constants are known and before a model is built.

    Raises DataError (nothing to train on), UsageError (settings that the family refuses, a checkpoint that does not
    fit), TrainingError (nothing to train).
    """
    if isinstance(recipe, Fitted):
        return open_fitted(recipe, ranks, rows, decide, data_digest, limit, constants, begun)
    if isinstance(recipe, Stepped):
        return open_stepped(recipe, ranks, rows, decide, data_digest, limit, constants, begun)
    raise TypeError(f"{type(recipe).__name__} is neither Stepped nor Fitted")


def open_stepped(
    recipe: Stepped, ranks: Ranks, rows: Mapping[str, Sequence[Row]], decide: Decide, data_digest: str, limit: float,
    constants: Mapping[str, np.ndarray] | None, begun: Callable[[Decision], None],
) -> SteppedSession:  # fmt: skip
    """See `open_session`."""
    require_precision(recipe)
    if recipe.parallel == "fsdp" and ranks.world > 1:
        require_shardable(recipe)
    train, held_out = recipe.dataset(rows["train"], training=True), recipe.dataset(rows["val"], training=False)
    plan = batch_plan(len(train), len(held_out), recipe.settings, ranks, shards_of(recipe, rows["train"], train))
    wanted = Wanted(recipe.settings, data_digest, plan.global_batch, planned(recipe.settings, plan))
    decision, content = decided(ranks, decide, wanted)
    constants = constants_of(recipe, rows["train"], ranks, content) if constants is None else constants
    begun(decision)
    state = State(recipe, plan, ranks, constants, limit=limit)
    if content is not None:
        state.load(content, str(decision.path))
    return SteppedSession(recipe, rows, train, held_out, state, decision)


def batch_plan(
    samples: int, held_out: int, settings: RunSettings, ranks: Ranks, shards: Shards | None = None
) -> BatchPlan:
    """The batch plan of a run. Raises DataError if a split is empty."""
    require_examples(samples, held_out)
    accumulate = settings.training.grad_accum_steps
    return BatchPlan(samples, settings.data.batch_size, accumulate, ranks.world, settings.seed, shards=shards)


def shards_of(recipe: Stepped, rows: Sequence[Row], dataset: Dataset) -> Shards | None:
    """The shards of a dataset's samples; None where all data is on this host. Raises UsageError for a family that
    would read all shards for every batch."""
    of_row = shard_of_each(rows)
    if of_row is None:
        return None
    row_of = recipe.rows_of_samples(dataset)
    if row_of is None:
        raise UsageError(
            f"{recipe.title} cannot be trained on shards in an object store: the family does not state which row each "
            "sample is from (Stepped.rows_of_samples), so every batch would read all shards. Prepare its data here."
        )
    return Shards(of_row[row_of])
