"""Train one family: its data, what it needs of other families, and its run."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.data.identity import data_digest, is_synthetic, refuse_leak
from training.data.index import published
from training.errors import Interrupted
from training.recipe import Recipe
from training.workspace import Workspace, exclusive

if TYPE_CHECKING:
    from training.data.rows import Row
    from training.engine.loop.pace import Allowance
    from training.engine.loop.session import Session
    from training.engine.process.distributed import Ranks
    from training.engine.process.signals import Signals
    from training.engine.tracking.tracker import Tracker
    from training.persist.second_place import Target


@dataclass(frozen=True)
class Trained:
    """The result of a training."""

    family: str  # the run: "family" or "family/item"
    best: Path  # the checkpoint to export
    last: Path  # the newest checkpoint
    run: Path  # the folder of logs
    metrics: Mapping[str, float]  # validation metrics of `best`
    step: int  # optimizer steps done
    epoch: int  # epochs finished
    seconds: float  # of training, over all sessions of the run
    finished: str  # why it ended
    already: bool  # whether it had ended before, so that nothing was done now


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
    persist: Target | None = None,
) -> Trained:
    """Train `recipe` in `workspace`, in one process or as one of torchrun's ranks. A run of the same settings and data
    that is there is continued.

    `device`: auto, cpu or cuda. `resume`: auto or never; other data is another run. `options`: of the domain, by
    attribute, such as where files of a manifest from another host are looked up. `load`: split name (train, val) ->
    rows; default: the workspace's manifests, encoded where they are not yet. `left`: the seconds of training still
    allowed, called at every step (on rank 0); the learning rate schedule is planned to end with them. `limit`: the
    seconds of the complete budget; a run that was ended by its budget continues if this is larger. `persist`: a second
    place, to which checkpoints and logs are copied in the background.

    Raises HostError (a GPU is required and absent, a folder is in use, no room), UsageError (a checkpoint is missing
    or does not fit, a family that this one needs is not trained), DataError (nothing to train on), TrainingError
    (non-finite numbers), Interrupted (stopped, everything saved).
    """
    from training.engine.loop.pace import Allowance
    from training.engine.process.distributed import joined
    from training.engine.process.heartbeat import stop_watching
    from training.engine.process.signals import Signals
    from training.persist.second_place import require_restored

    folder = workspace.checkpoints(recipe.run)
    with Signals() as signals, joined(device) as ranks, ExitStack() as held:
        held.callback(stop_watching)
        ranks.on_rank_zero(lambda: held.enter_context(exclusive(folder, f"training {recipe.run}")))
        if persist is not None and resume == "auto":
            ranks.on_rank_zero(lambda: require_restored(workspace.root, persist, recipe.run))
        ready = prepared(recipe, workspace, ranks, options, load)
        # The limit of rank 0 is used on all ranks: they must make the same decision on whether the run continues.
        most = 60 * (recipe.settings.training.max_minutes or math.inf)
        total = min(ranks.on_rank_zero(lambda: limit or math.inf) if left else math.inf, most)
        allowance = Allowance(left or (lambda: math.inf), total) if left or most < math.inf else None
        return _train(ready, workspace, ranks, signals, resume, allowance, persist)


def _train(
    ready: Prepared, workspace: Workspace, ranks: Ranks, signals: Signals, resume: str, allowance: Allowance | None,
    persist: Target | None,
) -> Trained:  # fmt: skip
    from training.engine.checkpoints.index import LAST
    from training.engine.checkpoints.provenance import plain, provenance
    from training.engine.checkpoints.resume import decide
    from training.engine.loop.pace import within
    from training.engine.loop.session import open_session
    from training.engine.process.heartbeat import stop_watching, watch
    from training.engine.step.compiled import keep_compiled
    from training.engine.tracking.tracker import Tracker, require_wandb

    recipe, settings = ready.recipe, ready.recipe.settings
    require_wandb(settings.logging)
    folder = workspace.checkpoints(recipe.run)
    runs, stacks = workspace.runs(recipe.run), f"stacks_of_rank_{ranks.rank}.txt"
    session = open_session(
        recipe, ranks, ready.rows, lambda wanted: decide(folder, wanted, resume),
        data_digest=ready.digest, limit=allowance.limit if allowance else 0.0,
        begun=lambda decision: watch(settings.training.hang_minutes, runs / decision.run_id / stacks),
    )  # fmt: skip
    if allowance and settings.training.max_minutes:
        allowance = within(allowance, 60 * settings.training.max_minutes, session.progress.seconds)
    run_folder = runs / session.begin.run_id
    # A finished run that was named by training.resume_from is not in the folder yet: it is saved there, as any other.
    if session.progress.finished and ranks.on_rank_zero((folder / LAST).exists):
        for note in session.begin.notes if ranks.is_first else ():
            print(note)
        return _trained(session, folder, run_folder, already=True)
    origin = provenance(
        settings, ranks, run_id=session.begin.run_id, data_digest=ready.digest, synthetic=ready.synthetic
    )  # fmt: skip
    with Tracker(
        run_folder, plain(settings), settings.logging,
        title=recipe.title, step=session.progress.step, active=ranks.is_first,
    ) as tracker, ExitStack() as beside:  # fmt: skip
        for note in session.begin.notes:
            tracker.say(note)
        tracker.say(session.headline() + (" [synthetic data]" if ready.synthetic else ""))
        if settings.training.compile:
            keep_compiled(workspace.cache / "compiled")
        saved = _replicating(workspace, recipe, run_folder, ranks, tracker, persist, beside)
        validated = _refreshing(workspace, tracker, beside)
        session.fit(tracker, signals, folder, origin, allowance=allowance, saved=saved, validated=validated)
        stop_watching()
        signals.immediate = True
        if signals.name:  # it came during the last save: the stages after this one must not begin
            raise Interrupted(
                f"{signals.name}: {recipe.title} is trained and saved. Run the same command again to continue."
            )
        return _trained(session, folder, run_folder, already=False)


def _replicating(
    workspace: Workspace, recipe: Recipe, run_folder: Path, ranks: Ranks, tracker: Tracker, persist: Target | None,
    beside: ExitStack,
) -> Callable[[], None]:  # fmt: skip
    """Returns a function to be called after every save, which is then copied to `persist` in the background, until
    `beside` is closed."""
    from training.persist.replicator import Replicator

    if persist is None:
        return lambda: None
    also = [str(path.relative_to(workspace.root)) for path in (run_folder, workspace.manifests)]
    also += ["runs/budget.json", "exports/report.html"]
    replicator = Replicator(workspace.root, persist, recipe.run, also, tracker.say)
    ranks.on_rank_zero(lambda: bool(beside.enter_context(replicator)))
    return replicator.saved


def _refreshing(workspace: Workspace, tracker: Tracker, beside: ExitStack) -> Callable[[], None]:
    """Returns a function to be called after every evaluation: the report is then written again in the background."""
    from training.report.refresher import Refresher

    page = Refresher(workspace, tracker.say)
    beside.callback(page.close)
    return page.refresh


# -- what it is trained on -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prepared:
    """A recipe with its data, and what it needs of other families."""

    recipe: Recipe
    rows: Mapping[str, Sequence[Row]]
    digest: str  # of the data, and of the needed models
    synthetic: bool


def prepared(
    recipe: Recipe,
    workspace: Workspace,
    ranks: Ranks,
    options: Mapping[str, Any] | None,
    load: Callable[[str], Sequence[Row]] | None,
) -> Prepared:
    """Load the rows of both splits and the models that `recipe` needs; the latter are set as `recipe.needed`. Arguments
    as of `train`. Raises UsageError (a needed family is not trained), DataError (nothing to train on, or a leak)."""
    from training.recipe import Stepped
    from training.stages.trained import digest_with, needed_of

    recipe.needed = ranks.from_first_host(lambda: needed_of(recipe.run, workspace))
    rows = _rows(ranks, load or partial(_load, recipe, workspace, options))
    refuse_leak(rows)
    share_cores_of(recipe)
    digest = data_digest(rows)
    if isinstance(recipe, Stepped) and published(rows["train"]) is not None:
        digest = hashlib.sha256(f"{digest} by shard".encode()).hexdigest()  # the samples have another order
    return Prepared(recipe, rows, digest_with(digest, recipe.needed), is_synthetic(rows))


def share_cores_of(recipe: Recipe) -> None:
    """Reserve one core for the data loader workers of a stepped family."""
    from training.engine.process.distributed import share_cores
    from training.recipe import Stepped

    if isinstance(recipe, Stepped):
        share_cores(recipe.settings.data.num_workers)


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


def _trained(session: Session, folder: Path, run_folder: Path, *, already: bool) -> Trained:
    from training.engine.checkpoints.checkpoint_folder import CheckpointFolder
    from training.engine.checkpoints.index import BEST, LAST

    progress, best = session.progress, folder / BEST
    if not best.exists():  # the run began from a checkpoint file, and no evaluation was better than that
        best = CheckpointFolder(folder).best() or best
    return Trained(
        family=session.recipe.run,
        best=best,
        last=folder / LAST,
        run=run_folder,
        metrics=dict(progress.best_metrics),
        step=progress.step,
        epoch=session.epoch,
        seconds=progress.seconds,
        finished=progress.finished,
        already=already,
    )
