"""Times a run for `estimate`: some of its real steps, a part of an evaluation, a save.

The steps are timed at several positions in the run, in two rounds over all of them. The speed of a host changes from
minute to minute. How much it changed between and during the rounds (`drift`) shows how uncertain the estimate is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from training.budget.reserve import slowness

if TYPE_CHECKING:
    from training.engine.fit.fitted import FittedRun
    from training.engine.loop.run import Run

PLACES = 4  # positions in the run that are timed: the cost of a step may change during it (losses, windows)
ROUNDS = 2  # how often each position is timed; once if a round takes longer than its share of SECONDS
SECONDS, STEPS, LEAST = 30.0, 64, 3  # timing ends after SECONDS or STEPS, with at least LEAST steps at each position
LOOKS = 0.125  # upper limit of the time that looking at the host takes beside fitted rounds, as a share of the rounds'
PATIENCE = 3.0  # upper limit of the timing in multiples of SECONDS, where loaders have prepared many batches ahead
JUDGING = 10.0  # seconds of the held-out pass that are timed; its total time is extrapolated


def measure(run: Run, began: float) -> dict[str, Any]:
    """The fields of Estimate that come from a stepped run."""
    from training.engine.loop.sanity_check import sanity_check

    progress, training = run.state.progress, run.settings.training
    first = progress.step
    sanity_check(run)  # saves where the run is fresh
    timed = _timed(run, began, _places(first, progress.total_steps))
    every = sorted(second for visit in timed.visits for second in visit)
    step, error = timed.step()
    evaluation = _evaluation(run)
    progress.step = max(1, progress.step)
    save, last_save = _saving(run)
    left = progress.total_steps - first
    epoch = run.plan.steps_per_epoch
    evaluations = _count(first, progress.total_steps, training.eval_every * epoch, training.eval_steps)
    minutes = (left * step + evaluations * evaluation) / (60 * training.save_minutes)
    archives = _count(first, progress.total_steps, training.save_every * epoch, training.save_steps)
    return {
        "steps_per_epoch": epoch,
        "begin": first,
        "steps": left,
        "step": step,
        "spread": (every[len(every) // 10], every[-1 - len(every) // 10]),
        "timed": len(every),
        "error": error,
        "drift": timed.drift(),
        "waiting": timed.waited / max(1e-9, sum(every)),
        "start": timed.start,
        "evaluation": evaluation,
        "evaluations": evaluations,
        "least_evaluations": _least(run, first, evaluations),
        "save": save,
        "saves": max(evaluations, archives) + int(minutes),
        "last_save": last_save,
    }


@dataclass
class _Timed:
    """The timed steps. A visit is the steps at one position in one round; visits are in the order of timing."""

    places: int  # number of positions
    visits: list[list[float]] = field(default_factory=list)  # seconds of each step of a visit
    looks: list[float] = field(default_factory=list)  # slowness of the host at each visit
    waited: float = 0.0  # seconds of the steps in which the model waited for input
    start: float = 0.0  # seconds from the command to the second step

    def step(self) -> tuple[float, float]:
        """Mean seconds of a step over all positions, and two standard errors of this mean."""
        at = [[s for visit in self.visits[place :: self.places] for s in visit] for place in range(self.places)]
        means = [fmean(seconds) for seconds in at]
        errors = [stdev(seconds) / math.sqrt(len(seconds)) if len(seconds) > 1 else mean
                  for seconds, mean in zip(at, means, strict=True)]  # fmt: skip
        return fmean(means), 2 * math.sqrt(sum(error**2 for error in errors)) / len(errors)

    def drift(self) -> float:
        """How much the speed of this host changed during the timing: the relative standard deviation of the rounds'
        step times, or of a fixed computation that is timed after each visit if that is larger."""
        rounds = [fmean(map(fmean, self.visits[at : at + self.places]))
                  for at in range(0, len(self.visits), self.places)]  # fmt: skip
        return max(_spread(rounds), _spread(self.looks))


def _spread(values: Sequence[float]) -> float:
    return stdev(values) / fmean(values) if len(values) > 1 and fmean(values) else 0.0


def _timed(run: Run, began: float, wanted: Sequence[int]) -> _Timed:
    """Time steps from each of the positions `wanted`, in ROUNDS rounds if these take no longer than SECONDS."""
    found, before, progress = _Timed(len(wanted)), time.perf_counter(), run.state.progress
    for number in range(ROUNDS):
        if number and time.perf_counter() - before > SECONDS * number / ROUNDS:
            break
        for place in wanted:
            progress.step = place
            seconds, waited, warm = _steps(run, len(wanted) * ROUNDS)
            if not found.visits:  # the time up to the second step, less one step, which is counted among the steps
                found.start = time.monotonic() - began - warm - fmean(seconds)
            found.visits.append(seconds)
            found.waited += waited
            found.looks.append(slowness())
    return found


def measure_rounds(run: FittedRun, began: float) -> dict[str, Any]:
    """The fields of Estimate that come from a fitted run: the next chunks of it are timed."""
    progress, training, chunk = run.progress, run.training, run.recipe.chunk
    first, total = progress.step, progress.total_steps
    run.prepare()
    start = time.monotonic() - began
    seconds: list[float] = []  # per round, for each timed chunk
    looks: list[float] = []
    spent = looked = 0.0
    while progress.step < total and (len(seconds) < LEAST or spent < SECONDS) and len(seconds) < STEPS:
        done, before = progress.step, time.perf_counter()
        run.advance()
        spent += time.perf_counter() - before
        after = time.perf_counter()
        seconds.append((after - before) / (progress.step - done))
        # rounds may take milliseconds: then a few looks show as much
        if len(looks) < PLACES * ROUNDS or looked < LOOKS * spent:
            looks.append(slowness())
            looked += time.perf_counter() - after
    before = time.perf_counter()
    run.recipe.score(run.state, "val")
    evaluation = time.perf_counter() - before
    save, last_save = _saving(run)
    ends = [*range((first // chunk + 1) * chunk, total, chunk), total]
    evaluations = _chunks(ends, first, training.eval_every, training.eval_steps)
    archives = _chunks(ends, first, training.save_every, training.save_steps)
    mean = fmean(seconds)
    minutes = ((total - first) * mean + evaluations * evaluation) / (60 * training.save_minutes)
    error = 2 * stdev(seconds) / math.sqrt(len(seconds)) if len(seconds) > 1 else 2 * mean
    least = run.session.patience.settings.patience - run.session.patience.waited
    stops = run.session.patience.settings.enabled
    return {
        "begin": first, "steps": total - first, "steps_per_epoch": 1, "step": mean, "timed": progress.step - first,
        "spread": (min(seconds), max(seconds)), "error": error, "drift": _spread(looks), "waiting": 0.0,
        "start": start,
        "evaluation": evaluation, "evaluations": evaluations,
        "least_evaluations": max(1, min(evaluations, least + (not first))) if stops else evaluations,
        "save": save, "saves": max(evaluations, archives) + int(minutes), "last_save": last_save,
    }  # fmt: skip


def _chunks(ends: Sequence[int], begin: int, *intervals: int | None) -> int:
    """The number of chunks that contain a multiple of any of `intervals`; the last one always counts."""
    before = [begin, *ends[:-1]]
    due = (
        end == ends[-1] or any(interval and end // interval > start // interval for interval in intervals)
        for start, end in zip(before, ends, strict=True)
    )  # fmt: skip
    return sum(due)


def _count(begin: int, end: int, *intervals: int | None) -> int:
    """The number of steps after `begin` up to `end` that are a multiple of any of `intervals`; `end` always counts."""
    every = {step for n in intervals if n for step in range(n * (begin // n + 1), end + 1, n)}
    return len(every | {end})


def _least(run: Run, begin: int, evaluations: int) -> int:
    """The number of evaluations after which the run may stop early, if no value improves from now on."""
    training = run.settings.training
    stopping, epoch = training.early_stopping, run.plan.steps_per_epoch
    if not stopping.enabled:
        return evaluations
    intervals = (training.eval_every * epoch, training.eval_steps)
    evaluated = begin >= min(filter(None, intervals))
    patient = stopping.patience - run.state.patience.waited + (0 if evaluated else 1)
    until = training.min_epochs * epoch
    required = _count(begin, until, *intervals) if until > begin else 0
    return max(1, min(evaluations, max(patient, required)))


def _places(begin: int, end: int) -> list[int]:
    """The steps from which to time: the remaining steps are divided into equal parts, and these are their middles, so
    that the mean over the parts is that of the run."""
    left = end - begin
    if left <= PLACES * (LEAST + 2):
        return [begin]
    return [begin + left * (2 * part + 1) // (2 * PLACES) for part in range(PLACES)]


def _steps(run: Run, places: int) -> tuple[list[float], float, float]:
    """Time some steps from the current one. Returns the seconds of each, how much of them was waiting for input, and
    the seconds of all steps but the first. Steps on batches that the loaders had prepared before are left out: the
    loaders may be slower than the model."""
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
        except OutOfMemory as error:
            halve(run, error)
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
    """Seconds of a held-out pass: measured if it is short, else extrapolated from its beginning."""
    from training.engine.loop.validate import Interruption

    times: list[float] = []

    def enough() -> bool:
        _wait_for_device(run)
        times.append(time.perf_counter())
        return len(times) > LEAST + 1 and times[-1] - times[0] > JUDGING

    before = time.perf_counter()
    with run.feed():
        try:
            run.held_out.stop = enough  # called between two batches
            run.held_out.evaluate(run.model)
            _wait_for_device(run)
            taken = time.perf_counter() - before
        except Interruption:
            begun = times[1] - before  # the first batch waits for the loaders to begin
            taken = begun + (times[-1] - times[1]) / (len(times) - 2) * (run.held_out.rounds - 1)
    return taken + run.appraiser.sanity_check(run.state.model)[1]


def _saving(run: Run | FittedRun) -> tuple[float, float]:
    """(seconds that a save holds the training up, seconds until it is on the disk)"""
    before = time.perf_counter()
    run.save()
    held = time.perf_counter() - before
    run.saver.finish()
    return held, time.perf_counter() - before
