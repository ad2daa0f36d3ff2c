"""Capture files as the programs of the field write them, with random weights; this project's writer is not used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

METADATA = {
    "date": {"year": 2025, "month": 5, "day": 4, "hour": 3, "minute": 2, "second": 1},
    "loudness": -17.25, "gain": 0.5, "name": "Crunch", "modeled_by": "ñ", "gear_type": "amp", "tone_type": "crunch",
    "training": {"settings": {"ignore_checks": False}, "data": {"latency": {"manual": None}}},
}  # fmt: skip


def numbers(count: int, seed: int, scale: float = 0.4) -> list[float]:
    """Weights as float32, in the doubles that a file has."""
    return (scale * np.random.default_rng(seed).standard_normal(count)).astype(np.float32).tolist()


def a1_array(inputs: int, channels: int, head: int, dilations: list[int], **more: Any) -> dict[str, Any]:
    return {
        "input_size": inputs, "condition_size": 1, "head_size": head, "channels": channels, "kernel_size": 3,
        "dilations": dilations, "activation": "Tanh", "gated": False, "head_bias": False, **more,
    }  # fmt: skip


def a1_count(arrays: list[dict[str, Any]]) -> int:
    """Weights of version 0.5, counted part by part."""
    count = 1
    for of in arrays:
        c, k = of["channels"], of["kernel_size"]
        mid = 2 * c if of["gated"] else c
        layer = mid * c * k + mid + mid + c * c + c
        count += of["input_size"] * c + layer * len(of["dilations"]) + of["head_size"] * c
        count += of["head_size"] if of["head_bias"] else 0
    return count


def a1(seed: int = 0, arrays: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    """A small WaveNet of version 0.5: two arrays."""
    arrays = arrays or [a1_array(1, 4, 3, [1, 2, 8]), a1_array(4, 3, 1, [1, 5], head_bias=True)]
    weights = [*numbers(a1_count(arrays) - 1, seed), 0.02]
    return {
        "version": "0.5.4", "metadata": METADATA, "architecture": "WaveNet",
        "config": {"layers": arrays, "head": None, "head_scale": 0.02}, "weights": weights, "sample_rate": 48000.0,
        **more,
    }  # fmt: skip


FILM = {"active": False, "shift": True, "groups": 1}
FILMS = ("conv_pre_film", "conv_post_film", "input_mixin_pre_film", "input_mixin_post_film", "activation_pre_film",
         "activation_post_film", "layer1x1_post_film", "head1x1_post_film")  # fmt: skip


def a2_array(channels: int = 3, **more: Any) -> dict[str, Any]:
    kernels, dilations = [6, 6, 4], [1, 3, 7]
    return {
        "input_size": 1, "condition_size": 1, "head": {"out_channels": 1, "kernel_size": 5, "bias": True},
        "channels": channels, "kernel_sizes": kernels, "dilations": dilations,
        "activation": [{"type": "LeakyReLU", "negative_slope": 0.01}] * 3, "bottleneck": channels,
        "head1x1": {"active": False, "out_channels": 1, "groups": 1}, "layer1x1": {"active": True, "groups": 1},
        "groups_input": 1, "groups_input_mixin": 1, **dict.fromkeys(FILMS, FILM), "gating_mode": ["none"] * 3,
        "secondary_activation": [None] * 3, "slimmable": None, **more,
    }  # fmt: skip


def a2(seed: int = 0, channels: int = 3, **more: Any) -> dict[str, Any]:
    """A small WaveNet of version 0.7. `more`: of its layer array."""
    c, array = channels, a2_array(channels, **more)
    count = c + sum(c * c * k + c + c + c * c + c for k in array["kernel_sizes"]) + c * 5 + 1 + 1
    return {
        "version": "0.7.0", "metadata": METADATA, "architecture": "WaveNet",
        "config": {"layers": [array], "head": None, "head_scale": 0.1}, "weights": [*numbers(count - 1, seed), 0.1],
        "sample_rate": 48000.0,
    }  # fmt: skip


def container(seed: int = 0) -> dict[str, Any]:
    """Networks of 2 and 4 channels in one file."""
    models = [{"max_value": 0.5, "model": a2(seed, 2)}, {"max_value": 1.0, "model": a2(seed + 1, 4)}]
    return {"version": "0.7.0", "metadata": METADATA, "architecture": "SlimmableContainer",
            "config": {"submodels": models}, "weights": [], "sample_rate": 48000.0}  # fmt: skip


def lstm(seed: int = 0, hidden: int = 5, layers: int = 2) -> dict[str, Any]:
    count = 4 * hidden * (hidden + 2) + (layers - 1) * 4 * hidden * (2 * hidden + 1) + 2 * layers * hidden + hidden + 1
    return {
        "version": "0.5.4", "metadata": METADATA, "architecture": "LSTM",
        "config": {"input_size": 1, "hidden_size": hidden, "num_layers": layers}, "weights": numbers(count, seed),
        "sample_rate": 48000,
    }  # fmt: skip


def proteus(seed: int = 0, hidden: int = 5, skip: int = 1, **more: Any) -> dict[str, Any]:
    """GuitarML's file of an LSTM."""
    random = np.random.default_rng(seed)

    def tensor(*shape: int) -> Any:
        return (0.4 * random.standard_normal(shape)).astype(np.float32).tolist()

    data = {"model": "SimpleRNN", "input_size": 1, "skip": skip, "output_size": 1, "unit_type": "LSTM", "num_layers": 1,
            "hidden_size": hidden, "bias_fl": True, **more}  # fmt: skip
    state = {
        "rec.weight_ih_l0": tensor(4 * hidden, 1), "rec.weight_hh_l0": tensor(4 * hidden, hidden),
        "rec.bias_ih_l0": tensor(4 * hidden), "rec.bias_hh_l0": tensor(4 * hidden), "lin.weight": tensor(1, hidden),
        "lin.bias": tensor(1),
    }  # fmt: skip
    return {"model_data": data, "state_dict": state}


ALL = {"a1": a1, "a2": a2, "container": container, "lstm": lstm, "proteus": proteus}


def content(document: Mapping[str, Any], **style: Any) -> bytes:
    return json.dumps(document, **style).encode()


def save(folder: Path, name: str, document: Mapping[str, Any] | bytes) -> Path:
    """A file of the document, with the ending of its format."""
    folder.mkdir(parents=True, exist_ok=True)
    ending = ".json" if isinstance(document, dict) and "model_data" in document else ".nam"
    path = folder / (name if "." in name else name + ending)
    path.write_bytes(document if isinstance(document, bytes) else content(document))
    return path


def guitar(path: Path, seconds: float = 6.0, rate: int = 48_000, channels: int = 1, peak: float = 0.5) -> Path:
    """A recording of something like a guitar, 24 bits."""
    import soundfile

    time = np.arange(int(seconds * rate)) / rate
    sound = peak * np.sin(2 * np.pi * 196 * time) * np.exp(-3 * (time % 0.5))
    both = np.stack([sound, 0 * sound][:channels], axis=1)
    soundfile.write(path, both, rate, "PCM_24")
    return path
