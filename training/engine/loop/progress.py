"""The counters of a run that its checkpoints hold beside the model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from training.engine.loop.stopping import Merit, Patience, same_merit
from training.settings import EarlyStopping, Training

ALL_STEPS = "every planned step is done"  # Progress.finished of a run that reached its end
OUT_OF_BUDGET = "the budget is used up"  # and of one that the job's limit ended before
OUT_OF_TIME = "training.max_minutes are over"  # and of one that its own limit ended


@dataclass
class Progress:
    """Step, plan, best evaluation and end of a run. A step of a fitted family is a round."""

    step: int = 0  # global batches consumed; the sampler's complete state
    total_steps: int = 1
    samples: int = 0  # in an epoch
    global_batch: int = 0
    skipped: int = 0  # steps whose loss or gradient was not finite
    skipped_before_rollback: int = 0  # of these, before the newest rollback
    evaluated: int = 0  # the step of the newest evaluation
    archived: int = 0  # the epoch of the newest checkpoint_epoch_N.pt
    best_value: float = math.inf  # of the best evaluation, as in Merit
    best_step: int = 0
    best_metrics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0  # of training, all processes of the run in turn
    finished: str = ""  # the reason why the run ended; empty while it continues
    halvings: int = 0  # of the micro-batches, because memory ran out
    rollbacks: int = 0  # times the run was rolled back to a good checkpoint, because numbers stayed non-finite
    rate: float = 1.0  # factor on the scheduled learning rate, lowered by each rollback
    limit: float = 0.0  # seconds of the budget by which total_steps was planned; 0: there was none
    best_violation: float = 0.0  # of the best evaluation, as in Merit
    archived_step: int = 0  # of the newest checkpoint_step_N.pt
    held_out_loss: float = math.inf  # val_loss of the newest evaluation
    rising: int = 0  # evaluations in a row, up to the newest, whose val_loss was above that of the one before

    @classmethod
    def saved(cls, values: Mapping[str, Any]) -> Progress:
        """From a checkpoint's `progress`. Earlier versions called `rollbacks` "retreats"."""
        fields = {key: value for key, value in values.items() if key not in ("epoch", "position", "retreats")}
        return cls(**({"rollbacks": values["retreats"]} if "retreats" in values else {}) | fields)

    def plain(self, epoch: int, position: int) -> dict[str, Any]:
        """For a checkpoint; `position`: steps done within the epoch."""
        return asdict(self) | {"epoch": epoch, "position": position}

    @property
    def best(self) -> Merit:
        """The merit of the best evaluation so far."""
        return Merit(self.best_violation, self.best_value)

    def note_best(self, merit: Merit, metrics: Mapping[str, float]) -> None:
        """Record the evaluation at the present step as the best one."""
        self.best_violation, self.best_value, self.best_step = merit.violation, merit.value, self.step
        self.best_metrics = dict(metrics)

    def note_loss(self, loss: float) -> None:
        """Record the val_loss of an evaluation."""
        self.rising = self.rising + 1 if loss > self.held_out_loss else 0
        self.held_out_loss = loss

    def plan_again(
        self, patience: Patience, before: Mapping[str, Any], training: Training, planned: int, limit: float
    ) -> None:
        """Adapt progress that was saved under the settings `before` (the section `training`, as plain values) to the
        present ones: a length of `planned` steps, a budget of `limit` seconds, the rule for early stopping."""
        rule = EarlyStopping.model_validate(before["early_stopping"])
        same_rule = rule == training.early_stopping and before["min_epochs"] == training.min_epochs
        longer = planned > self.total_steps
        more = not limit or limit > self.limit
        if limit and self.limit and longer:  # planned by the clock: in proportion, until steps are timed again
            share = limit / self.limit if more else 1.0
            self.total_steps = min(planned, math.ceil(self.total_steps * share))
        else:
            self.total_steps = planned
        self.limit = limit
        by_the_clock = longer and more
        extended = {ALL_STEPS: longer, OUT_OF_BUDGET: by_the_clock, OUT_OF_TIME: by_the_clock}.get(self.finished, False)
        if self.finished and (not same_rule or extended):
            self.finished = ""
            if not same_rule:
                patience.waited = 0
        if not same_merit(rule, training.early_stopping):
            self._rank_again(patience, training.early_stopping)

    def _rank_again(self, patience: Patience, stopping: EarlyStopping) -> None:
        """Compute the merit of the best evaluation again under a changed rule. If it does not have the metrics that the
        rule needs, the next evaluation becomes the best."""
        needed = {stopping.monitor, stopping.constraint.metric or stopping.monitor}
        best = Merit.of(self.best_metrics, stopping) if needed <= self.best_metrics.keys() else Merit()
        self.best_violation, self.best_value = best.violation, best.value
        patience.best = best
