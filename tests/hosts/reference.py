"""What a host must reproduce: pieces and clouds by ONNX Runtime in Python, from the exported files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime

from tests.hosts.conftest import SplitMix
from training.domains.music.midi_generator.config import Generation
from training.domains.music.midi_generator.generate import generate


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def settings_of(exports: Path) -> tuple[dict, int]:
    """The settings of generation in the step graph's metadata, and its context."""
    about = session(exports / "midi_generator_step.onnx").get_modelmeta().custom_metadata_map
    return json.loads(about["generation"]), int(about["context"])


def piece(exports: Path, emotion: list[float], seed: int, **changes) -> list[int]:
    """The ids of a piece by training/domains/music/midi_generator/generate.py, stepping through the exported graph."""
    graph = session(exports / "midi_generator_step.onnx")
    settings, context = settings_of(exports)
    settings.pop("closing")
    names = [output.name for output in graph.get_outputs()]
    states = [one for one in graph.get_inputs() if one.name.startswith("past_")]

    def step(ids: np.ndarray, mood: np.ndarray, past: dict | None) -> tuple[np.ndarray, dict]:
        if past is None:
            past = {one.name: np.zeros((len(ids), one.shape[1], 0, one.shape[3]), np.float32) for one in states}
        out = dict(zip(names, graph.run(names, {"input_ids": ids, "emotion": mood, **past}), strict=True))
        return out["logits"], {one.name: out[one.name.replace("past_", "present_")] for one in states}

    wanted = np.zeros((1, 64), np.float32)
    wanted[0, :3] = emotion
    made = generate(step, wanted, Generation(**settings | changes), context, seed=0, randoms=[SplitMix(seed)])
    return made[0].tolist()
