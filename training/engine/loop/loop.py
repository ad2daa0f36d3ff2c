"""The training loop of a stepped family."""

from __future__ import annotations

from training.engine.loop.guards import Diverged
from training.engine.loop.recovery import halve, roll_back
from training.engine.loop.run import Run
from training.engine.loop.sanity_check import sanity_check
from training.engine.step.step_context import OutOfMemory
from training.errors import Interrupted


def fit(run: Run) -> None:
    """Train `run` from where it stands to its end: all planned steps, the early stop, or the end of the budget.

    Whether an evaluation or a checkpoint is due depends on the step alone, not on what this process did before, so that
    a run that was stopped anywhere ends as if it had not been. Raises Interrupted, with everything saved, when a
    stop was requested, and TrainingError when numbers stay non-finite or one sample does not fit in memory.
    """
    with run.saver:
        sanity_check(run)
        while not run.finished:
            try:
                _train(run)
            except OutOfMemory as error:
                halve(run, error)
            except Diverged as error:
                roll_back(run, error)


def _train(run: Run) -> None:
    with run.feed() as work:
        while True:
            if run.evaluation_due():
                run.evaluate()
            if run.save_due():
                run.save()
            if run.finished:
                return
            if run.asked_to_stop:
                raise Interrupted(
                    f"Stopped at {run.where}; everything is saved. Run the same command again to continue."
                )
            run.advance(next(work))
