"""Training with torch.compile: one graph per mode, no recompilation, and the same loss."""

from functools import partial

import pytest
import torch
from torch._dynamo.utils import counters

from tests.domains.music.spectocloud.corpus import make_row, make_settings
from training.data.manifest import Row
from training.domains.music.spectocloud.recipe import SpectocloudRecipe
from training.stages.train import train
from training.workspace import Workspace


class Record(dict):
    """Arrays with a key, as a store returns them."""

    def __init__(self, arrays, key):
        super().__init__(arrays)
        self.key = key


def row(number):
    """A row as `prepare` writes it."""
    made = make_row(number)
    records = {name: Record(arrays, f"{name} {number}".encode()) for name, arrays in made.records.items()}
    paths = dict.fromkeys(records, f"songs/{number}")
    return Row({**made.values, **paths}, made.place, records)


def trained(root, compiled):
    settings = make_settings(
        training={"epochs": 2, "compile": compiled}, data={"batch_size": 5, "num_workers": 0},
        logging={"tensorboard": False},
    )  # fmt: skip
    recipe = SpectocloudRecipe(settings)
    rows = {"train": [row(number) for number in range(3)], "val": [row(7)]}
    assert len(recipe.dataset(rows["train"], training=True)) % 5
    return train(recipe, Workspace(root), device="cpu", load=rows.__getitem__)


def test_a_compiled_run_has_two_graphs_and_learns_the_same(tmp_path, monkeypatch):
    plain = trained(tmp_path / "plain", False)
    torch._dynamo.reset()
    counters.clear()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    same = trained(tmp_path / "compiled", True)
    assert counters["stats"]["unique_graphs"] == 2
    assert not counters["graph_break"]
    assert same.metrics["val_loss"] == pytest.approx(plain.metrics["val_loss"], rel=1e-4)
