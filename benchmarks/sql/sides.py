"""Both sides of the comparison with TRL on the same questions, step by step, and the check that they train the same."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import in_turn, timed
from benchmarks.running import EngineRun, running
from benchmarks.sql.material import Asked, Case
from training.domains.sql.text_to_sql.config import TextToSqlConfig
from training.domains.sql.text_to_sql.data import Bundles, Questions
from training.engine.loading.batches import BatchPlan
from training.registry import load_recipe

#: The demo's settings, in float32, without dropout and with a constant rate.
SETTINGS = ("training.amp=false", "training.log_every=10", "lora.dropout=0", "scheduler.name=constant",
            "scheduler.warmup_steps=0")  # fmt: skip
#: Largest relative difference of the losses, and of the gradient norms, in the first step and after it. In the first
#: step only the order of float32 sums differs. Adam's first updates are nearly the signs of the gradients, so that a
#: different last bit of a small gradient has an effect in the steps after it.
TOLERANCE = (1e-5, 1e-4)


@dataclass
class Done:
    """What some steps of a side did."""

    seconds: float = 0.0
    tokens: int = 0  # positions that the model computed, padding included
    losses: list[float] = field(default_factory=list)  # of each step
    norms: list[float] = field(default_factory=list)  # of each step's gradient, before clipping


class Athanor:
    """A training of the domain that is driven step by step."""

    def __init__(self, engine: EngineRun):
        self.engine, self.done = engine, Done()
        engine.run.state.model.lm.model.register_forward_pre_hook(self._count, with_kwargs=True)
        self._step, engine.run.step_context.step = engine.run.step_context.step, self._recorded

    @property
    def adapter(self) -> dict[str, torch.Tensor]:
        """A copy of the adapter's weights."""
        model = self.engine.run.state.model
        return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}

    def train(self, steps: int) -> Done:
        """The next `steps` steps."""
        self.done = Done()
        self.done.seconds = timed(lambda: self.engine(steps))
        return self.done

    def _count(self, _: Any, args: Any, named: Mapping[str, Any]) -> None:
        self.done.tokens += named["input_ids"].numel()

    def _recorded(self, *args: Any, **named: Any) -> Any:
        result = self._step(*args, **named)
        _, loss, norm = result.read()
        self.done.losses.append(loss)
        self.done.norms.append(norm)
        return result


@contextlib.contextmanager
def athanor(case: Case, base: Path, folder: Path, *, shared: bool, micro: int) -> Iterator[Athanor]:
    """Start a training by the domain on the case. `shared`: in bundles, those of a step in one micro-batch; else one
    question a row, `micro` rows in a micro-batch."""
    batch, accumulate, bundle = (case.per_step, 1, case.bundle) if shared else (micro, case.questions // micro, 1)
    recipe = load_recipe(
        "text_to_sql", "demo", None,
        [*SETTINGS, f"model.base={base}", f"data.batch_size={batch}", f"training.grad_accum_steps={accumulate}",
         f"prompt.bundle={bundle}"],
    )  # fmt: skip
    steps = ([bundle for step in case.steps for bundle in step] if shared else
             [(asked,) for asked in case.asked(0, len(case.steps))])  # fmt: skip
    plan = BatchPlan(len(steps), batch, accumulate, 1, recipe.settings.seed)
    train, held_out = dataset(placed(steps, plan), bundle), dataset(steps[:2], bundle)
    with running(recipe, train, held_out, folder) as engine:
        yield Athanor(engine)


def placed(samples: Sequence[Sequence[Asked]], plan: BatchPlan) -> list[Sequence[Asked]]:
    """The samples, rearranged so that the plan's random order takes them in the order in which they are given."""
    order = np.concatenate([plan.step_samples(step) for step in range(plan.steps_per_epoch)])
    out = list(samples)
    for sample, index in zip(samples, order, strict=True):
        out[index] = sample
    return out


def dataset(samples: Sequence[Sequence[Asked]], bundle: int) -> Bundles:
    """The domain's dataset of these bundles. Each gets the name of a database to itself, so that it stays together."""
    rows = [(one.row, str(number)) for number, sample in enumerate(samples) for one in sample]
    return Bundles(Questions(tuple(row for row, _ in rows), tuple(name for _, name in rows)), bundle, seed=None)


class Comparison:
    """All sides of a case: "shared" and "single" by the domain, "padded" and "packed" by TRL."""

    def __init__(
        self, case: Case, base: Path, micro: int, folder: Path, sides: Sequence[str], held: contextlib.ExitStack
    ):
        self.case, self.micro, self.folder, self.sides = case, micro, folder, sides
        self.engines = {
            side: held.enter_context(athanor(case, base, folder / side, shared=side == "shared", micro=micro))
            for side in ("shared", "single")
            if side in sides
        }
        self.settings: TextToSqlConfig = self.engines["shared"].engine.run.settings
        self.done: dict[str, list[Done]] = {side: [] for side in sides}

    def agreement(self, steps: int) -> float:
        """Train the first `steps` steps on every side, from the same weights. Returns the largest relative difference
        of losses and gradient norms; raises RuntimeError where it is above TOLERANCE. Packed rows are in another order,
        so that a step has the same ones only if it is the only step."""
        begin = self.engines["shared"].adapter
        ours = {side: engine.train(steps) for side, engine in self.engines.items()}
        others = {
            side: self._trl(side, 0, 1 if side == "packed" else steps, begin)
            for side in self.sides
            if side not in self.engines
        }
        return max(
            difference(side, done, ours["shared"], 1 if side == "packed" else steps)
            for side, done in (ours | others).items()
        )

    def times(self, first: int, rounds: int) -> dict[str, list[float]]:
        """Seconds of a step of each side in `rounds` rounds, from step `first` on."""

        def side(name: str) -> Callable[[], float]:
            steps = itertools.count(first)

            def run() -> float:
                number = next(steps)
                done = self.engines[name].train(1) if name in self.engines else self._trl(name, number, 1)
                self.done[name].append(done)
                return done.seconds

            return run

        return in_turn({name: side(name) for name in self.sides}, rounds, warm=0)

    def tokens(self, side: str) -> float:
        """Mean positions a step that the side computed in the timed steps."""
        return sum(done.tokens for done in self.done[side]) / len(self.done[side])

    def _trl(self, side: str, first: int, steps: int, adapter: Mapping[str, torch.Tensor] | None = None) -> Done:
        from benchmarks.sql import sft

        asked = self.case.asked(first, steps)
        return sft.train(asked, steps, self.settings, self.micro, self.folder / side, packing=side == "packed",
                         adapter=adapter)  # fmt: skip


def difference(side: str, done: Done, ours: Done, steps: int) -> float:
    """The largest relative difference of the losses and gradient norms of a side from ours, in the first `steps` steps.
    Raises RuntimeError where it is above TOLERANCE."""
    largest = 0.0
    for name, values, own in (("loss", done.losses, ours.losses), ("gradient norm", done.norms, ours.norms)):
        for step, (value, expected) in enumerate(zip(values, own[:steps], strict=True)):
            apart, allowed = abs(value - expected) / abs(expected), TOLERANCE[min(step, 1)]
            if not apart <= allowed:  # NaN is not either
                raise RuntimeError(
                    f"{side}: the {name} of step {step + 1} is {value:.6f}, and {expected:.6f} with shared schemas: "
                    f"the sides do not train the same ({apart:.1e} apart, allowed {allowed:.0e})"
                )
            largest = max(largest, apart)
    return largest
