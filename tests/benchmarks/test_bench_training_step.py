"""The training step is measured on sides that train on the same number of tokens."""

import tempfile
from pathlib import Path

import pytest
import torch

from benchmarks import reference_loops, training_step
from benchmarks.harness import in_turn
from benchmarks.reference_loops import GPT, Loop, Shape
from benchmarks.running import quiet
from training.engine.step import precision

SMALL = Shape(64, 32, 2, 2)


def test_models_of_full_size_have_as_many_parameters():
    from training.registry import load_recipe

    ours = sum(p.numel() for p in load_recipe("midi_generator", "full").build({}).parameters())
    llama = [] if training_step.not_installed("transformers") else [reference_loops.llama(Shape())]
    for other in (GPT(Shape()), *llama):
        assert sum(p.numel() for p in other.parameters()) == pytest.approx(ours, rel=0.05)


def test_the_engine_trains_in_the_configs_bfloat16_on_packed_songs(monkeypatch):
    monkeypatch.setattr(precision, "emulates_bfloat16", lambda: False)
    with (
        tempfile.TemporaryDirectory() as folder, quiet(),
        training_step.midi_generator(Path(folder), SMALL, 2, small=True) as engine,
    ):  # fmt: skip
        engine(2)
        run = engine.run
        assert run.state.precision.dtype is torch.bfloat16 and run.state.ema is not None
        assert run.state.progress.step == 2 and run.plan.global_batch == 2
        items = [run.train.item(0, index) for index in range(100)]
        assert all(len(item["input_ids"]) == SMALL.context for item in items)
        assert all((item["targets"] >= 0).mean() > 0.9 for item in items), "windows are full"
        assert max(len(item["emotion"]) for item in items) > 1, "some windows hold several songs"


def test_the_reference_loop_learns():
    loop = Loop(SMALL, 4, dtype=None)
    loop.data = torch.arange(4000).remainder(50).numpy().astype("uint16")
    loop.next, loop.step = loop.get_batch(), 500  # after warm-up
    with quiet():
        before = loop.raw(*loop.next).item()
        loop(60)
        assert loop.raw(*loop.next).item() < 0.8 * before


@pytest.mark.parametrize("emulated", [False, True])
def test_a_reference_that_is_not_installed_is_reported(monkeypatch, emulated):
    """And so is a comparison of two precisions on a CPU with only one."""
    for module in (training_step, precision):
        monkeypatch.setattr(module, "emulates_bfloat16", lambda: emulated)
    missing = "transformers not installed (make bench REFERENCES=1)"
    monkeypatch.setattr(training_step, "not_installed", lambda *_: missing)
    rows = training_step.measure(small=True)
    assert [row.bar for row in rows] == ["4a", "4b", "4c", "4d"]
    assert [row.met is None for row in rows] == [False, True, False, emulated]
    assert rows[1].note.startswith("not measured: transformers")
    assert ("float32 (not bfloat16" in rows[0].note) == emulated
    assert all(row.ours > 0 and row.reference > 0 for row in rows if row.met is not None)


def test_the_side_that_is_first_alternates():
    order = []
    times = in_turn({name: lambda name=name: order.append(name) or len(order) for name in "ab"}, rounds=2)
    assert order == ["b", "a", "a", "b", "b", "a"]
    assert times == {"a": [3, 6], "b": [4, 5]}
