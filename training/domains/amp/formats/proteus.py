"""GuitarML's JSON files (Proteus, and others of Automated-GuitarAmpModelling): `model_data` and `state_dict`, an LSTM.

The LSTM's weights are those of torch, with both biases. The file has no sample rate; GuitarML's programs use 44.1 kHz.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from training.domains.amp.formats.document import flag, integer, kept, mapping, sequence, weights
from training.domains.amp.formats.nam import Model, Read

RATE = 44_100  # Hz
_MOST_LAYERS = 8


def read(document: Mapping[str, Any], sample_rate: int | None = None) -> Read:
    """A document with `model_data` and `state_dict` -> its network. Raises ValueError."""
    data = mapping(document.get("model_data"), "model_data")
    unit = data.get("unit_type", "LSTM")
    if unit != "LSTM":
        raise ValueError(f"`unit_type` {unit} is not supported")
    if integer(data.get("input_size", 1), "input_size") != 1:
        raise ValueError(f"`input_size` {data['input_size']} (knobs) is not supported")
    if integer(data.get("output_size", 1), "output_size") != 1:
        raise ValueError(f"`output_size` {data['output_size']} is not supported")
    hidden = integer(data.get("hidden_size"), "hidden_size")
    layers = integer(data.get("num_layers", 1), "num_layers", most=_MOST_LAYERS)
    skip = integer(data.get("skip", 0), "skip", least=0, most=16)
    if skip > 1:
        raise ValueError(f"`skip` {skip} is not supported")
    if not flag(data.get("bias_fl", True), "bias_fl"):
        raise ValueError("`bias_fl` false is not supported")
    state = mapping(document.get("state_dict"), "state_dict")
    names = tensors(layers, hidden)
    missing = [name for name in names if name not in state]
    if missing:
        raise ValueError(f"truncated: `state_dict` has no `{missing[0]}`")
    unknown = [name for name in state if name not in names]
    if unknown:
        raise ValueError(f"`state_dict.{unknown[0]}` is not supported")
    numbers = np.concatenate([_tensor(state[name], shape, name) for name, shape in names.items()])
    notes = [] if sample_rate else [f"no sample rate inside: {RATE:,} Hz, GuitarML's (--sample-rate sets another)"]
    if not skip:  # RT_LSTM::process in its src/RTNeuralLSTM.cpp
        notes.append("`skip` is 0, and so it is trained; GuitarML's Proteus adds the guitar to the output all the same")
    model = Model(
        "LSTM", sample_rate or RATE, numbers, layers=layers, hidden=hidden, skip=bool(skip), split_bias=True
    )  # fmt: skip
    return Read("", "LSTM", (model,), tuple(notes))


def with_weights(
    document: Mapping[str, Any],
    new: Sequence[np.ndarray],
    measured: Mapping[str, Any] | None = None,
    athanor: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The document with other weights (float32 [n] of the one network). The format has no loudness or gain. A key of
    the top level that readers do not know, `athanor`, takes what a .nam file has in its metadata."""
    out = copy.deepcopy(dict(document))
    data, state, at = out["model_data"], out["state_dict"], 0
    names = tensors(int(data.get("num_layers", 1)), int(data["hidden_size"]))
    for name, shape in names.items():
        size = int(np.prod(shape))
        state[name] = _like(state[name], new[0][at : at + size].reshape(shape))
        at += size
    if athanor is not None:
        out["athanor"] = dict(athanor)
    return out


def tensors(layers: int, hidden: int) -> dict[str, tuple[int, ...]]:
    """The tensors of the state_dict in the order of `Model.weights`, with their shapes."""
    names: dict[str, tuple[int, ...]] = {}
    for layer in range(layers):
        names[f"rec.weight_ih_l{layer}"] = (4 * hidden, hidden if layer else 1)
        names[f"rec.weight_hh_l{layer}"] = (4 * hidden, hidden)
        names[f"rec.bias_ih_l{layer}"] = names[f"rec.bias_hh_l{layer}"] = (4 * hidden,)
    return names | {"lin.weight": (1, hidden), "lin.bias": (1,)}


def _tensor(value: Any, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Nested lists of numbers -> float32 [n]."""
    rows = sequence(value, name)
    if len(shape) == 2:
        lengths = {len(sequence(row, name)) for row in rows}
        found = (len(rows), *lengths)
        rows = [number for row in rows for number in row]
    else:
        found = (len(rows),)
    if found != shape:
        raise ValueError(f"`{name}` has the shape {list(found)}; its layers need {list(shape)}")
    return weights(rows, f"`{name}`: number")


def _like(old: Any, new: np.ndarray) -> list[Any]:
    if new.ndim == 2:
        return [kept(before, after) for before, after in zip(old, new, strict=True)]
    return kept(old, new)
