"""Training with torch.compile: one graph of the model per mode and one of the loss, no recompilation, the same loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from tests.domains.music.midi_generator.conftest import make_row, make_score
from training.data.manifest import Row
from training.domains.music.midi import tokens
from training.domains.music.midi_generator.recipe import MidiGeneratorRecipe
from training.stages.train import Trained, train
from training.workspace import Workspace


class Record(dict):
    """Arrays with a key, as a store returns them."""

    def __init__(self, arrays: Mapping[str, np.ndarray], key: bytes):
        super().__init__(arrays)
        self.key = key


def stored(rows: list[Row]) -> list[Row]:
    """The rows as `prepare` writes them."""
    return [
        Row(
            {**row.values, "midi_path": f"songs/{row.place}.mid"},
            row.place,
            {name: Record(arrays, row.place.encode()) for name, arrays in row.records.items()},
        )
        for row in rows
    ]


def trained(root: Path, settings: Callable, rows: list[Row], compiled: bool) -> Trained:
    """Two epochs over windows with one song or several; the last batch of each split is smaller."""
    recipe = MidiGeneratorRecipe(
        settings(
            {
                "training": {"epochs": 2, "compile": compiled},
                "model": {"layers": 1},
                "logging": {"tensorboard": False},
            }
        )
    )
    tiny = [make_row(tokens.encode(make_score(9 + n, 1)), [0.1] * 3, f"tiny{n}") for n in range(3)]
    train_rows, held_out = stored([*rows[1:], *tiny]), stored(rows[:1])
    windows = recipe.dataset(train_rows, training=True)
    assert len(windows) % 4 and len(recipe.dataset(held_out, training=False)) % 4
    assert {len(windows.item(0, index)["emotion"]) for index in range(len(windows))} >= {1, 3}
    load = {"train": train_rows, "val": held_out}.__getitem__
    return train(recipe, Workspace(root), device="cpu", load=load)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_compiled_run_has_three_graphs_and_learns_the_same(
    tmp_path: Path, settings: Callable, rows: list[Row], backend: str, monkeypatch: pytest.MonkeyPatch
):
    plain = trained(tmp_path / "plain", settings, rows, False)
    torch._dynamo.reset()
    counters.clear()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    same = trained(tmp_path / "compiled", settings, rows, True)
    assert counters["stats"]["unique_graphs"] == 3  # the model in training and in validation, and the training loss
    assert not counters["graph_break"]
    assert same.step == plain.step
    assert same.metrics["val_loss"] == pytest.approx(plain.metrics["val_loss"], rel=1e-4)
