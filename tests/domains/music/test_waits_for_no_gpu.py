"""A training step does not synchronise with a GPU, in either family: no value is read, no shape depends on a value,
and no tensor is copied from or to the host. No GPU is needed, because the operators and calls that would synchronise
are the same on every device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.gpu_engine import Windows
from benchmarks.training_step import songs
from training.domains.music.midi_generator import attention
from training.domains.music.midi_generator import model as midi_model
from training.engine.loading.batches import BatchPlan
from training.engine.loop.state import State
from training.engine.process.distributed import Ranks
from training.engine.step import step_context as engine_step
from training.engine.step.step_context import StepContext
from training.recipe import TrainingProgress
from training.registry import load_recipe

CPU = torch.device("cpu")
#: Operators that read a value, or whose output shape depends on one. (Indexing with a mask is `nonzero` on a GPU.)
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal.default", "is_nonzero", "bincount")
#: Calls that copy from the host or to it.
SENDING = ("tensor", "as_tensor", "from_numpy", "cpu", "numpy", "tolist", "item", "pin_memory")


class Watch(TorchDispatchMode):
    """Records operators that would synchronise, in forward and backward passes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).removeprefix("aten.")
        masks = name.startswith("index") and any(
            isinstance(i, torch.Tensor) and i.dtype is torch.bool
            for arg in args if isinstance(arg, list | tuple) for i in arg
        )  # fmt: skip
        if masks or any(name.startswith(waiting) for waiting in WAITING):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


class Calls(TorchFunctionMode):
    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in SENDING:
            self.found.append(f"call of {func.__name__}")
        return func(*args, **(kwargs or {}))


@contextmanager
def watched() -> Iterator[list[str]]:
    with Watch() as watch, Calls(watch.found):
        yield watch.found


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packed songs as segments (with plain attention in place of the kernel), and metrics read later."""
    monkeypatch.setattr(midi_model, "has_flash", lambda *_: True)
    monkeypatch.setattr(attention, "flash", plain)
    monkeypatch.setattr(engine_step, "PendingValues", lambda many, one: (many, one))


def plain(q: Any, k: Any, v: Any, begins: Any, longest: Any, *, causal: bool) -> Any:
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).flatten(0, 1)


def training(family: str, *overrides: str) -> tuple[StepContext, State, dict[str, torch.Tensor], dict[str, float]]:
    """A step context on its GPU path, and a batch."""
    recipe = load_recipe(family, "debug", None, ["training.amp=true", "training.ema_decay=0.9", *overrides])
    constants = {"mean": np.zeros(128, np.float32), "std": np.ones(1, np.float32)} if family == "spectocloud" else {}
    state = State(recipe, BatchPlan(100, 4, 1, 1, 42), Ranks(0, 1, CPU), constants)
    examples = Windows(100) if family == "spectocloud" else recipe.dataset(songs(20_000), training=True)
    batch = examples.collate([examples.item(0, index) for index in range(4)])
    counts = recipe.counts(batch)
    context = StepContext(recipe, state.model, state.optimizer, state.precision, state.ranks, list(counts))
    context.decides_on_host = False
    return context, state, batch, counts


@pytest.mark.parametrize(
    ("family", "setting"),
    [
        ("midi_generator", "model.dropout=0.1"),
        ("midi_generator", "training.grad_accum_steps=2"),
        ("spectocloud", "loss.index_matched=1"),
        ("spectocloud", "loss.index_matched=0"),
        ("spectocloud", "loss.lifeline=0.5"),
    ],
)
def test_a_step_does_not_synchronise(family: str, setting: str):
    context, state, batch, counts = training(family, setting)
    chunks = state.plan.micro_batches(0, 0)
    before = [p.detach().clone() for p in state.model.parameters()]
    for number in range(2):  # AdamW creates its state in the first step
        with watched() as found:
            context.step(number, 42, chunks, [batch] * len(chunks), counts, TrainingProgress(number, 10), [0, 1, 2, 3])
            state.ema.update(number)
        assert found == []
    moved = [not torch.equal(a, b) for a, b in zip(before, state.model.parameters(), strict=True)]
    assert sum(moved) > len(moved) / 2, "the step changed parameters"


@pytest.mark.parametrize(
    "waits",
    [
        lambda x: x.sum().item(), lambda x: bool(x.sum() > 0), lambda x: x[x > 0], lambda x: x.nonzero(),
        lambda x: x.cpu(), lambda x: x + torch.tensor([1.0]), lambda x: x.masked_select(x > 0), lambda x: x.tolist(),
        lambda x: x.clone().backward(torch.ones(3)) or x.grad[x.grad > 0],
    ],
)  # fmt: skip
def test_synchronising_operators_and_calls_are_found(waits: Any):
    x = torch.ones(3, requires_grad=True)
    with watched() as found:
        waits(x)
    assert found
