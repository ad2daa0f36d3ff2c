"""Train one family: rows, constants, model, and the furnace."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.data.identity import data_digest, is_synthetic, refuse_leak
from training.errors import Interrupted
from training.recipe import Recipe
from training.workspace import Workspace, exclusive

if TYPE_CHECKING:
    import numpy as np

    from training.data.manifest import Row
    from training.engine.loop.pace import Allowance
    from training.engine.loop.state import State
    from training.engine.process.distributed import Ranks


@dataclass(frozen=True)
class Trained:
    """What training left."""

    family: str
    best: Path  # the checkpoint to export
    last: Path
    run: Path  # the folder of logs
    metrics: Mapping[str, float]  # validation metrics of `best`
    step: int  # optimizer steps done
    epoch: int  # epochs finished
    seconds: float  # of training, over all sessions of the run
    finished: str  # why it ended
    already: bool  # it had ended before: nothing was done now


def train(
    recipe: Recipe,
    workspace: Workspace,
    *,
    device: str = "auto",
    resume: str = "auto",
    options: Mapping[str, Any] | None = None,
    load: Callable[[str], Sequence[Row]] | None = None,
    left: Callable[[], float] | None = None,
    limit: float | None = None,
    persist: Path | None = None,
) -> Trained:
    """Train `recipe` in `workspace`, alone or as one of torchrun's ranks; go on with the run that is there if it is the
    same.

    `device`: auto, cpu or cuda. `resume`: auto or never; other data is another run. `options`: the domain's, by
    attribute: where files of a manifest from another host are looked up. `load`: split name (train, val) -> rows;
    default: the workspace's manifests, encoded where they are not yet. `left`: the seconds of training still allowed,
    asked anew each time (on the first rank): the schedule is planned to end with them. `limit`: the seconds of the
    whole budget that they are of; a run that its budget ended goes on under a larger one. `persist`: a second place, to
    which what is saved is copied in the background.

    Raises HostError (a GPU is demanded and absent, a folder is in use, no room), UsageError (a checkpoint is missing
    or does not fit), DataError (nothing to train on), TrainingError (non-finite numbers), Interrupted (stopped,
    everything saved).
    """
    from training.engine.loop.pace import Allowance
    from training.engine.process.distributed import joined
    from training.engine.process.heartbeat import rest
    from training.engine.process.signals import Signals
    from training.persist.remote import require_restored

    folder = workspace.checkpoints(recipe.family)
    with Signals() as signals, joined(device) as ranks, ExitStack() as held:
        held.callback(rest)
        ranks.on_rank_zero(lambda: held.enter_context(exclusive(folder, f"training {recipe.family}")))
        if persist is not None and resume == "auto":
            ranks.on_rank_zero(lambda: require_restored(workspace.root, persist, recipe.family))
        if load is None:
            load = partial(_load, recipe, workspace, options)
        rows = _rows(ranks, load)
        refuse_leak(rows)
        identity = {"data_digest": data_digest(rows), "synthetic": is_synthetic(rows)}
        # The first rank counts for all: whether a run goes on must be decided from the same number everywhere.
        allowance = Allowance(left, ranks.on_rank_zero(lambda: limit or math.inf)) if left else None
        return _train(recipe, workspace, folder, ranks, signals, rows, resume, identity, allowance, persist)


def _train(
    recipe: Recipe, workspace: Workspace, folder: Path, ranks: Ranks, signals: Any,
    rows: Mapping[str, Sequence[Row]], resume: str, identity: Mapping[str, Any], allowance: Allowance | None,
    persist: Path | None,
) -> Trained:  # fmt: skip
    from training.engine.checkpoints.checkpoint_file import read
    from training.engine.checkpoints.provenance import plain, provenance
    from training.engine.checkpoints.resume import Wanted, decide
    from training.engine.loop.loop import fit
    from training.engine.loop.run import Run, batch_plan
    from training.engine.loop.state import State, planned
    from training.engine.process.distributed import share_cores
    from training.engine.process.heartbeat import rest, watch
    from training.engine.step.compiled import keep_compiled
    from training.engine.tracking.tracker import Tracker, require_wandb
    from training.persist.replicator import Replicator
    from training.report.refresher import Refresher

    require_wandb(recipe.settings.logging)
    share_cores(ranks, recipe.settings.data.num_workers)
    examples = {
        "train": recipe.dataset(rows["train"], training=True),
        "val": recipe.dataset(rows["val"], training=False),
    }
    plan = batch_plan(len(examples["train"]), len(examples["val"]), recipe.settings, ranks)
    wanted = Wanted(recipe.settings, identity["data_digest"], plan.global_batch, planned(recipe.settings, plan))
    decision = ranks.on_rank_zero(lambda: decide(folder, wanted, resume))

    path = decision.path
    begin = ranks.from_first_host(lambda: read(path)) if path else None
    constants = constants_of(recipe, rows["train"], ranks, begin)
    run_folder = workspace.runs(recipe.family) / decision.run_id
    watch(recipe.settings.training.hang_minutes, run_folder / f"stacks_of_rank_{ranks.rank}.txt")
    state = State(recipe, plan, ranks, constants, limit=allowance.limit if allowance else 0.0)
    if begin is not None:
        state.load(begin, str(decision.path))
    if state.progress.finished:
        return _trained(recipe, folder, run_folder, state, already=True)

    services = ExitStack()  # entered by the first rank alone, once the log is open
    origin = provenance(recipe.settings, ranks, run_id=decision.run_id, **identity)
    with Tracker(
        run_folder, plain(recipe.settings), recipe.settings.logging,
        title=recipe.title, step=state.progress.step, active=ranks.is_first,
    ) as tracker, services:  # fmt: skip
        for said in decision.said:
            tracker.say(said)
        tracker.say(_headline(recipe, state, ranks, resumed=begin is not None, synthetic=identity["synthetic"]))
        if recipe.settings.training.compile:
            keep_compiled(workspace.cache / "compiled")
        saved = _nothing
        if persist is not None:
            also = [str(path.relative_to(workspace.root)) for path in (run_folder, workspace.manifests)]
            also += ["runs/budget.json", "exports/report.html"]
            replicator = Replicator(workspace.root, persist, recipe.family, also, tracker.say)
            ranks.on_rank_zero(lambda: bool(services.enter_context(replicator)))
            saved = replicator.saved
        page = Refresher(workspace, tracker.say)
        services.callback(page.close)
        run = Run(
            state,
            examples["train"],
            examples["val"],
            tracker=tracker,
            signals=signals,
            folder=folder,
            provenance=origin,
            allowance=allowance,
            saved=saved,
            validated=page.refresh,
        )
        fit(run)
        rest()
        signals.immediate = True
        if signals.name:  # it came during the last save: the stages after this one must not begin
            raise Interrupted(
                f"{signals.name}: {recipe.title} is trained and saved. Run the same command again to go on."
            )
        return _trained(recipe, folder, run_folder, state, already=False)


def _nothing() -> None:
    """Nothing follows a save."""


def _load(recipe: Recipe, workspace: Workspace, options: Mapping[str, Any] | None, split: str) -> Sequence[Row]:
    from training.stages.splits import load_split

    return load_split(recipe, workspace, split, options=options)


def _rows(ranks: Ranks, load: Callable[[str], Sequence[Row]]) -> dict[str, Sequence[Row]]:
    """Both splits. Rank 0 encodes what is not in the stores yet; the others find it there."""
    rows: dict[str, Sequence[Row]] = {}

    def both() -> None:
        rows.update({split: load(split) for split in ("train", "val")})

    ranks.on_rank_zero(both)
    if not ranks.is_first:
        both()
    return rows


def constants_of(
    recipe: Recipe, rows: Sequence[Row], ranks: Ranks, begin: Mapping[str, Any] | None
) -> dict[str, np.ndarray]:
    """Fitted once in a run's life; every rank and every later session has the same."""
    if begin is not None:
        return {name: tensor.numpy() for name, tensor in begin["constants"].items()}
    return ranks.on_rank_zero(lambda: recipe.fit_constants(rows))


def _headline(recipe: Recipe, state: State, ranks: Ranks, *, resumed: bool, synthetic: bool) -> str:
    from training.engine.checkpoints.provenance import hardware

    plan, progress = state.plan, state.progress
    weights = sum(p.numel() for p in state.model.parameters())
    place = hardware(ranks)
    parts = [
        f"{recipe.title}: {weights / 1e6:.2f} M parameters, {plan.samples:,} samples an epoch, "
        f"{plan.steps_per_epoch:,} steps of {plan.global_batch}",
        f"{state.precision} on {place['device']}" + (f" x {ranks.world}" if ranks.world > 1 else ""),
        f"resumed at step {progress.step} of {progress.total_steps}"
        if resumed
        else f"{progress.total_steps} steps in all",
    ]
    return "; ".join(parts) + (" [synthetic data]" if synthetic else "")


def _trained(recipe: Recipe, folder: Path, run_folder: Path, state: State, *, already: bool) -> Trained:
    from training.engine.checkpoints.index import BEST, LAST

    progress = state.progress
    return Trained(
        family=recipe.family,
        best=folder / BEST,
        last=folder / LAST,
        run=run_folder,
        metrics=dict(progress.best_metrics),
        step=progress.step,
        epoch=state.epoch,
        seconds=progress.seconds,
        finished=progress.finished,
        already=already,
    )
