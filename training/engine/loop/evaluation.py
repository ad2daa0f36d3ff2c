"""The consequences of an evaluation (best checkpoint, log, early stopping), for stepped and for fitted families."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from training.engine.loop.progress import Progress
from training.engine.loop.stopping import Merit, Patience, missing_metrics
from training.engine.tracking.tracker import Tracker
from training.errors import TrainingError
from training.settings import Constraint, EarlyStopping, Training

SHOWN = 7  # validation metrics on a console line
RISING = 2  # evaluations in a row with a higher val_loss than the one before, from which overfitting is reported


def conclude(
    progress: Progress, patience: Patience, metrics: Mapping[str, float], training: Training, tracker: Tracker,
    *, epoch: int, where: str, seconds: float,
) -> bool:  # fmt: skip
    """Record the evaluation at `progress.step`, and log it. Returns whether it is the best so far. `where`: the
    position in the run, for the log; `seconds`: duration of the evaluation. Sets `progress.finished` if the run is to
    stop early."""
    stopping = training.early_stopping
    merit = Merit.of(metrics, stopping)
    patience.consider(merit)
    best = merit.improves_on(progress.best)
    if best:
        progress.note_best(merit, metrics)
    shown = dict(list(metrics.items())[:SHOWN])  # a recipe puts the main ones first; metrics.jsonl has all
    text = "  ".join(f"{name} {number:.4g}" for name, number in shown.items())
    unmet = "" if merit.feasible else f", but {_bound(stopping.constraint)} is not satisfied"
    tracker.say(f"validation after {where}: {text}" + (f"  (best{unmet})" if best else ""))
    tracker.record("validation", progress.step, {"epoch": epoch, **metrics, "seconds": seconds})
    progress.note_loss(metrics["val_loss"])
    if progress.rising >= RISING:
        tracker.say(
            f"val_loss has risen in {progress.rising} evaluations in a row: the model is probably overfitting. best.pt "
            f"is that of step {progress.best_step:,}. Fewer epochs, a lower optim.lr or more data would help."
        )
    if patience.exhausted(epoch, training.min_epochs):
        progress.finished = (
            f"early stopping: {stopping.monitor} has not improved by {stopping.min_delta:g} "
            f"in {stopping.patience} evaluations"
        )
        tracker.say(f"{progress.finished}.")
    return best


def require_best(progress: Progress, stopping: EarlyStopping, say: Callable[[str], None]) -> None:
    """At the end of a run: raise TrainingError if no evaluation gave a finite value, and log if none satisfied the
    constraint."""
    if not math.isfinite(progress.best_value):
        raise TrainingError(
            f"No evaluation gave a finite {stopping.monitor}: nothing was learnt that could be exported. Look at the "
            "validation data, or try a lower optim.lr."
        )
    if not progress.best.feasible:
        metric = stopping.constraint.metric
        say(
            f"No evaluation satisfied training.early_stopping.constraint ({_bound(stopping.constraint)}): best.pt is "
            f"the one that violates it least, with {metric} {progress.best_metrics[metric]:.4g}."
        )


def index_value(metrics: Mapping[str, float], stopping: EarlyStopping) -> float | None:
    """The value of an evaluation in the index of checkpoints: lower is better. None if the constraint is violated, or
    if a metric that the rule needs was not measured."""
    if missing_metrics(metrics, stopping):
        return None
    merit = Merit.of(metrics, stopping)
    return merit.value if merit.feasible else None


def _bound(constraint: Constraint) -> str:
    most = constraint.at_most is not None
    return f"{constraint.metric} {'<=' if most else '>='} {constraint.at_most if most else constraint.at_least:g}"
