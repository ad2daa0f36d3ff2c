"""Each mode (training, validation) is compiled once in a run, whatever the sizes of its batches."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters

from tests.engine import toy
from training.engine.step import compiled as module
from training.engine.step.compiled import Compiled, CompiledFunction, compiled
from training.errors import HostError


@pytest.fixture(autouse=True)
def counter():
    """Traces and counts as torch.compile does, and runs the traced graph as it is."""
    torch._dynamo.reset()
    counters.clear()
    yield CompileCounterWithBackend("eager")
    torch._dynamo.reset()


class Net(torch.nn.Module):
    """Two inputs, the second of which varies in its second dimension; three outputs in a tuple."""

    varying = {"context": (1,)}  # noqa: RUF012

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inward, self.outward = torch.nn.Linear(6, 8), torch.nn.Linear(8, 3)

    def forward(self, x: torch.Tensor, context: torch.Tensor) -> tuple[torch.Tensor, ...]:
        hidden = torch.tanh(self.inward(x)) + context.sum(1)
        return self.outward(hidden), hidden.mean(-1), context * 2


def inputs(rows: int, wide: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(rows)
    return torch.randn(rows, 6), torch.randn(rows, wide, 8)


def test_smaller_batches_and_varying_sizes_cause_no_recompilation(counter: Any):
    net = Net()
    run = Compiled(net, lambda: 4, backend=counter)
    for rows, wide in ((4, 2), (4, 4), (3, 2), (1, 8), (4, 2)):
        run.train()
        for given, wanted in zip(run(*inputs(rows, wide)), net(*inputs(rows, wide)), strict=True):
            assert given.shape == wanted.shape
            assert torch.allclose(given, wanted, rtol=1e-6, atol=1e-6)
        run.eval()
        with torch.no_grad():
            assert run(*inputs(rows, wide))[0].shape == (rows, 3)
    assert counter.frame_count == 2


def test_padding_samples_contribute_no_gradient(counter: Any):
    net = Net()
    run = Compiled(net, lambda: 8, backend=counter)
    run(*inputs(3))[0].square().sum().backward()
    filled = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    net(*inputs(3))[0].square().sum().backward()
    for given, p in zip(filled, net.parameters(), strict=True):
        assert torch.allclose(given, p.grad, rtol=1e-5, atol=1e-5)  # another batch size rounds differently


def test_a_function_is_compiled_for_full_batches_and_runs_uncompiled_for_smaller_ones(counter: Any):
    run = CompiledFunction(lambda x, factor: (x * factor).sum(), lambda: 4, backend=counter)
    for rows in (4, 3, 1, 4, 2):
        assert torch.equal(run(inputs(rows)[0], 2.0), (inputs(rows)[0] * 2.0).sum())
    assert counter.frame_count == 1


def test_halved_micro_batches_are_compiled_once_at_their_new_size(counter: Any):
    rows = 8
    run = Compiled(Net(), lambda: rows, backend=counter)
    run(*inputs(8))
    rows = 4
    assert run(*inputs(4))[0].shape == (4, 3)
    run(*inputs(3))
    assert counter.frame_count == 2


class PlainModel(toy.ToyRecipe):
    """Without the toy's bookkeeping in `forward`, for which the compiler would insert guards."""

    def build(self, constants: Any) -> torch.nn.Module:
        model = super().build(constants)
        return torch.nn.Sequential(model.layers, torch.nn.Flatten(1))


def test_a_compiled_run_compiles_twice_and_gives_the_same_loss(tmp_path, counter: Any, monkeypatch: pytest.MonkeyPatch):
    """The last batch of an epoch has 2 of 4 samples, the last held-out batch 1; three epochs."""
    plain = toy.run(tmp_path / "plain", PlainModel)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counter))
    same = toy.run(tmp_path / "compiled", PlainModel, training={"compile": True})
    assert counter.frame_count == 2
    assert not counters["graph_break"]
    assert same.metrics["val_loss"] == pytest.approx(plain.metrics["val_loss"], rel=1e-6)


def test_the_compiler_cache_is_kept_in_the_workspace(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # put back at the end
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    toy.run(tmp_path, PlainModel, training={"compile": True, "max_steps": 1})
    kept = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
    assert kept.parent == tmp_path / "cache" / "compiled"
    module.keep_compiled(tmp_path / "elsewhere")
    assert Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]) == kept  # a folder that was chosen before is kept


def test_a_recipe_may_have_further_functions_compiled():
    class Recipe(toy.ToyRecipe):
        def accelerate(self, compiled: Any) -> None:
            self.given = compiled(torch.sum)

    recipe = toy.recipe(Recipe)
    compiled(recipe, Net(), lambda: 4, print)
    assert isinstance(recipe.given, CompiledFunction)


def test_a_compiler_failure_is_reported_with_the_setting_that_avoids_it():
    def broken(_graph: Any, _inputs: Any) -> Any:
        raise ValueError("no such chip")

    with pytest.raises(HostError, match=r"no such chip(.|\n)*training\.compile=false"):
        Compiled(Net(), lambda: 4, backend=broken)(*inputs(4))


def test_out_of_memory_while_compiling_is_not_reported_as_a_compiler_failure():
    """The run can continue with smaller batches."""

    def greedy(_graph: Any, _inputs: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with pytest.raises(RuntimeError, match="out of memory") as caught:
        Compiled(Net(), lambda: 4, backend=greedy)(*inputs(4))
    assert not isinstance(caught.value, HostError)


def test_an_error_of_the_model_is_not_reported_as_a_compiler_failure():
    with pytest.raises(RuntimeError, match="reduction dim") as caught:
        Compiled(Net(), lambda: 4, backend="eager")(torch.randn(4, 5), torch.randn(4, 2, 8))
    assert not isinstance(caught.value, HostError)
