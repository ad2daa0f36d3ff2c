"""The engine's overhead is measured against a loop that trains the same model."""

import tempfile
from pathlib import Path

import torch

from benchmarks import engine_cost
from benchmarks.running import quiet, running


def test_both_loops_train_the_same_model_on_the_same_problem():
    dataset = engine_cost.Dataset(10_000)
    bare = engine_cost.Bare(dataset)
    with (
        tempfile.TemporaryDirectory() as folder, quiet(),
        running(engine_cost.Small(engine_cost.settings()), dataset, engine_cost.Dataset(64), Path(folder)) as engine,
    ):  # fmt: skip
        assert [p.shape for p in engine.run.state.model.parameters()] == [p.shape for p in bare.model.parameters()]
        engine(300), bare(300)
        assert engine.run.state.progress.step == bare.step == 300
        records = (Path(folder) / "run" / "metrics.jsonl").read_text().count("\n")
        assert records == 30  # the engine logs as in a real training
        for model in (engine.run.state.model, bare.model):
            x = torch.from_numpy(dataset.x[:256])
            error = (model(x).squeeze(-1) - x.sum(1)).square().mean()
            assert error < 0.7 * x.sum(1).square().mean()


def test_the_bar_limits_the_difference_between_the_two_loops():
    row, between = engine_cost.measure(small=True)
    assert row.bar == "4f" and row.ours > 0 and row.reference > 0
    assert row.met == (row.ratio <= 0.1)
    assert between.bar == "5a" and 0 < between.ratio < 50
