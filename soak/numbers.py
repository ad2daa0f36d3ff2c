"""Rows 15 and 16: NaN and infinite numbers, and out-of-memory errors."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch

from soak.harness import Mutant, Row, Trial, edited, patched, several
from soak.processes import expect, forked
from soak.runs import (
    SAMPLES,
    STEPS,
    Toy,
    beside,
    expect_done,
    expect_same,
    folder_of,
    kill_somewhere,
    saved,
    train,
)
from tests.engine import toy
from training.engine.checkpoints import checkpoint_file, checkpoint_folder
from training.engine.loading.batches import BatchPlan
from training.engine.loop import guards, loop, recovery
from training.engine.loop.state import State
from training.engine.step.step_context import StepContext

# -- row 15 --------------------------------------------------------------------------------------------------------

BAD = (math.nan, math.inf, -math.inf)
PLACES = ("batch", "loss", "gradient")
LONG = {"training": {"epochs": 8, "early_stopping": {"enabled": False}}}
NUMBERS = ("progress", "early_stopping", "metrics")  # parts of a checkpoint that may be infinite: no best value yet
EVERY = 5  # in one trial of this many the numbers stay bad


class Faulty(Toy):
    """One number is not finite at a step; or from a step on, while more than the share `until` of the planned learning
    rate is left."""

    step: ClassVar[int]
    place: ClassVar[str]
    value: ClassVar[float]
    until: ClassVar[float | None] = None  # None: at this one step
    rate: ClassVar[float] = 1.0  # share of the planned learning rate that is left

    def losses(self, model: torch.nn.Module, batch: dict[str, torch.Tensor], progress: Any) -> dict[str, Any]:
        step = progress.step
        bad = step == self.step if self.until is None else step >= self.step and self.rate > self.until
        if bad and self.place == "batch":
            batch = batch | {"x": batch["x"].clone()}
            batch["x"][0, 0, 0] = self.value
        losses = super().losses(model, batch, progress)
        if bad and self.place == "loss":
            losses["error"] = toy.Loss(losses["error"].total * self.value)
        if bad and self.place == "gradient":
            losses["error"].total.register_hook(lambda gradient: gradient * self.value)
        return losses


def not_a_number(trial: Trial) -> None:
    """At one step, which must be skipped; or at all from one on, until the learning rate is smaller, or to the end."""
    place, value = PLACES[trial.index % 3], BAD[trial.index // 3 % 3]
    lasting = trial.index % EVERY == EVERY - 1
    until = (0.5, 0.25, 0.0)[trial.index // EVERY % 3] if lasting else None
    # Where it lasts, it begins early enough for three times ten skipped steps in a row before the run's end.
    at = trial.random.randrange(2 * STEPS - 30 if lasting else STEPS)
    label = f"{value} in the {place} of step {at + 1}" + f" and all after it, to a rate of {until}" * lasting
    kind = type("Here", (Faulty,), {"step": at, "place": place, "value": value, "until": until})
    root = trial.folder / "run"
    ended = forked(_guarded, root, kind, LONG if lasting else {})
    files = list(folder_of(root).glob("*.pt"))
    for path in files:
        expect(_finite(checkpoint_file.read(path)), f"{label}: {path.name} is not finite")
    expect(files and not (root / "not finite").exists(), f"{label}: a checkpoint was not finite on the way")
    if not lasting:
        _expect_left_out(trial, root, at, label, ended)
    elif until:
        expect_done(ended)
        progress, rollbacks = saved(root)["progress"], round(-math.log2(until))
        got = (progress["rollbacks"], progress["rate"], progress["step"], progress["skipped"])
        wanted = (rollbacks, until, 2 * STEPS, rollbacks * guards.IN_A_ROW)
        expect(got == wanted, f"{label}: rollbacks, rate, step, skipped steps are {got}, not {wanted}\n{ended.tail}")
    else:
        expect_done(ended, 5)
        expect("did not help" in ended.output, f"{label}: not reported\n{ended.tail}")


def _expect_left_out(trial: Trial, root: Path, at: int, label: str, ended: Any) -> None:
    expect_done(ended)
    progress = saved(root)["progress"]
    expect(progress["skipped"] == 1, f"{label}: {progress['skipped']} steps were skipped\n{ended.tail}")
    samples = BatchPlan(SAMPLES, 2, 2, 1, 42).step_samples(at).tolist()
    named = f"step {at + 1}: skipped, loss"
    line = next((line for line in ended.output.splitlines() if line.startswith(named)), "")
    names_them = line.endswith("samples " + ", ".join(map(str, samples)))
    expect(names_them, f"{label}: reported as {line!r}; its samples are {samples}")
    beside_it = trial.folder / "left out"
    expect_done(forked(_without_step, beside_it, at))
    expect_same(root, beside_it, but=("skipped",))


def _guarded(root: Path, kind: type[Faulty], settings: dict[str, Any]) -> None:
    """Train; check every checkpoint that is written, and note the learning rate after each rollback."""
    write, roll_back = checkpoint_folder.write_state, recovery.roll_back

    def looked_at(path: Path, state: Any) -> str:
        if not _finite(state):
            (root / "not finite").touch()
        return write(path, state)

    def rolling_back(run: Any, error: Exception) -> None:
        roll_back(run, error)
        kind.rate = run.state.progress.rate

    checkpoint_folder.write_state, loop.roll_back = looked_at, rolling_back
    train(root, kind, **settings)


def _without_step(root: Path, at: int) -> None:
    """The same run without the update of one step."""
    real, count = StepContext._step_if, itertools.count()
    StepContext._step_if = lambda self, finite, norm: real(self, finite and next(count) != at, norm)  # type: ignore
    train(root)


def _finite(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return not value.is_floating_point() or bool(torch.isfinite(value).all())
    if isinstance(value, dict):
        return all(_finite(inner) for key, inner in value.items() if key not in NUMBERS)
    return not isinstance(value, list | tuple) or all(map(_finite, value))


def _always(self: StepContext, finite: bool, norm: float, real: Callable[..., None] = StepContext._step_if) -> None:
    real(self, True, norm)


# -- row 16 --------------------------------------------------------------------------------------------------------

FULL = {"training": {"grad_accum_steps": 1}, "data": {"batch_size": 8}, "model": {"dropout": 0.0}}
FULL_STEPS = 12  # 4 epochs of 22 samples
OUT_OF_MEMORY_PLACES = ("forward", "backward", "validation")


class Hungry(Toy):
    """Out of memory with more than `size` samples in a micro-batch, from a step on; or in validation."""

    size: ClassVar[int]
    step: ClassVar[int]
    place: ClassVar[str]

    def losses(self, model: torch.nn.Module, batch: dict[str, torch.Tensor], progress: Any) -> dict[str, Any]:
        losses = super().losses(model, batch, progress)
        if len(batch["number"]) > self.size and progress.step >= self.step:
            if self.place == "forward":
                self.refuse()
            if self.place == "backward":
                losses["error"].total.register_hook(lambda gradient: self.refuse())
        return losses

    def validate(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, Any]:
        if self.place == "validation" and len(batch["number"]) > self.size:
            self.refuse()
        return super().validate(model, batch)

    @staticmethod
    def refuse() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory (made up).")


def out_of_memory(trial: Trial) -> None:
    """In the forward or backward pass of a step, or in the validation before the first; memory is enough for 1, 2 or 4
    samples. In every fourth trial the run is killed as well."""
    place, size = OUT_OF_MEMORY_PLACES[trial.index % 3], (4, 2, 1)[trial.index // 3 % 3]
    at = trial.random.randrange(FULL_STEPS)
    label = f"no memory for more than {size} samples in the {place} of step {at + 1}"
    kind = type("Here", (Hungry,), {"step": at, "place": place, "size": size})
    root = trial.folder / "run"
    ended = forked(_logged, root, kind)
    expect_done(ended)
    expect("out of memory" in ended.output, f"{label}: not reported\n{ended.tail}")
    progress = saved(root)["progress"]
    halvings = (8 // size).bit_length() - 1
    got = (progress["step"], progress["skipped"], progress["halvings"])
    expect(got == (FULL_STEPS, 0, halvings), f"{label}: steps, skipped, halvings are {got}, not {halvings} halvings")
    plan, tries = BatchPlan(SAMPLES, 8, 1, 1, 42), {}
    for number, group in itertools.groupby(ended.value, key=lambda entry: entry[0]):
        tries[number] = list(itertools.chain.from_iterable(numbers for _, numbers in group))
    for number in range(FULL_STEPS):
        wanted = plan.step_samples(number).tolist()
        # The log also has the attempts that ran out of memory; those of the step itself come last.
        expect(
            tries[number][-len(wanted) :] == wanted, f"{label}: step {number + 1} took {tries[number]}, not {wanted}"
        )
    weights, reference = saved(root), saved(trial.soak.folder / "roomy")
    for part in ("model", "ema"):
        for name, value in reference[part].items():
            if value.is_floating_point():
                near = torch.allclose(weights[part][name], value, rtol=1e-4, atol=1e-6)
                expect(near, f"{label}: {part}.{name} differs from the run with enough memory")
    if trial.index % 4 == 3:
        again = trial.folder / "killed"
        kill_somewhere(partial(_logged, again, kind), again, trial.random, range(1, FULL_STEPS - 1))
        expect_done(forked(_logged, again, kind))
        expect_same(again, root)


def _logged(root: Path, kind: type[Toy]) -> list[tuple[int, list[int]]]:
    """Train; returns (step, samples) of every micro-batch that was attempted."""
    train(root, kind, **FULL)
    return kind.log


def _roomy(root: Path) -> None:
    train(root, **FULL)


def _skipping(run: Any, error: Exception, real: Callable[..., None] = recovery.halve) -> None:
    real(run, error)
    run.state.progress.step += 1


def _half_the_batch(self: BatchPlan) -> BatchPlan:
    return BatchPlan(self.samples, max(1, self.batch_size // 2), self.accumulate, self.world, self.seed)


ROWS = (
    Row(
        15, "NaN or inf in batch, loss or gradient, at a step or from a step on",
        "no checkpoint holds it; the step is left out, reported with its samples and counted, all else is the same "
        "bits; where it lasts: back with a smaller rate, then exit 5",
        beside({}, not_a_number), full=50, small=5,
        mutants=(
            Mutant("no guard before the update", patched(StepContext, "_step_if", _always), 5),
            Mutant("no guard at all", several(
                patched(StepContext, "_step_if", _always), patched(guards.NonFinite, "consider", lambda *a: True),
                edited(State, "to_checkpoint", "bad = not torch", "bad = 0 and not torch")), 5, sign="not finite"),
            Mutant("skipped steps are not counted", edited(guards.NonFinite, "consider", "self.skipped += 1", ""), 5),
            Mutant("no limit", several(
                patched(guards, "IN_A_ROW", 1 << 30), patched(guards, "AT_LEAST", 1 << 30)), 5),
        ),
    ),
    Row(
        16, "out of memory at a random step, for the forward or backward pass, or in validation",
        "micro-batch halved, accumulation doubled: the same global batches in the same order, the run completes",
        beside({"roomy": _roomy}, out_of_memory), full=20, small=4,
        mutants=(
            Mutant("the step is left out", patched(loop, "halve", _skipping)),
            Mutant("accumulation is not doubled", patched(BatchPlan, "halved", _half_the_batch)),
            Mutant("memory that runs out is an error", edited(
                loop, "fit", "except OutOfMemory", "except ZeroDivisionError"), sign="OutOfMemory"),
        ),
        note=lambda: "made-up torch.OutOfMemoryError: not run on a GPU",
    ),
)  # fmt: skip
