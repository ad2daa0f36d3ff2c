"""Small captures in memory, rows of synthetic guitar for them, and recipes with short samples."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import torch

from training.config import Layer, build, read_yaml
from training.data.rows import Row
from training.domains.amp.captures import weights_of
from training.domains.amp.demo.fitting import GAIN, folded, network, stored
from training.domains.amp.demo.making import document
from training.domains.amp.families import AMP
from training.domains.amp.guitar import DI_PATH
from training.domains.amp.networks.lstm import LSTM
from training.domains.amp.plucks import playing
from training.domains.amp.rows import CAPTURE_PATH
from training.domains.amp.student.recipe import AmpRecipe

RATE = 48_000


def wavenet(gain: float = 30.0, seed: int = 0) -> bytes:
    """A .nam file of a WaveNet that aliases: its weights are random, its gain is folded."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = network(RATE)
    return json.dumps(document(folded(made, gain), "small", gain)).encode()


def fitted(gain: float = 20.0) -> bytes:
    """The .nam file of the demo's capture at a gain: a few updates make it alias less."""
    return json.dumps(document(folded(stored()[0], gain / GAIN), "fitted", gain)).encode()


def lstm(gain: float = 20.0, seed: int = 0) -> bytes:
    """A .nam file of an LSTM."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = LSTM(1, 4, RATE)
    with torch.no_grad():
        made.core.weight_ih_l0.mul_(gain)
    content = {
        "version": "0.5.4", "metadata": {"name": "small"}, "architecture": "LSTM",
        "config": {"input_size": 1, "hidden_size": 4, "num_layers": 1},
        "weights": [float(value) for value in weights_of(made, "nam")], "sample_rate": RATE,
    }  # fmt: skip
    return json.dumps(content).encode()


def rows(content: bytes, seconds: int = 3, seed: int = 1, rate: int = RATE) -> list[Row]:
    """Rows of clips of a second, for a capture of `rate` Hz."""
    record = {"sound": playing(float(seconds), RATE, seed), "rate": np.array(RATE)}
    capture = {"content": np.frombuffer(content, np.uint8)}
    return [
        Row({"id": f"clip {n}", "rate": rate, "begin": float(n), "end": n + 1.0}, f"rows:{n}",
            {CAPTURE_PATH: capture, DI_PATH: record})
        for n in range(seconds)
    ]  # fmt: skip


def recipe(**sections: Any) -> AmpRecipe:
    """The recipe with settings of preset `debug`, changed by sections: material={...}."""
    layers = [read_yaml(AMP.config), read_yaml(AMP.presets["debug"]), Layer(sections)]
    return AmpRecipe(build(AmpRecipe.settings_type, *layers))


def built(content: bytes, **sections: Any) -> tuple[AmpRecipe, Any, Any]:
    """(recipe, model, training data)."""
    made, of = recipe(**sections), rows(content)
    return made, made.build(made.fit_constants(of)), made.dataset(of, training=True)


def batch_of(dataset: Any, indices: Any, epoch: int = 0) -> dict[str, torch.Tensor]:
    return dataset.collate([dataset.item(epoch, int(index)) for index in indices])


def replaced(recipe: AmpRecipe, networks: tuple) -> Any:
    """A capture with other networks than its file has."""
    made = recipe.build(recipe.fit_constants(rows(wavenet())))
    return dataclasses.replace(made.capture, networks=networks)
