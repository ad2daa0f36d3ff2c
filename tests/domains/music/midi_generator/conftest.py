"""Small songs, and settings for a model that is built in milliseconds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from training.config import Layer, build
from training.data.manifest import Row
from training.domains.music.midi import tokens
from training.domains.music.midi.score import Score
from training.domains.music.midi_generator.config import MidiGeneratorConfig

SMALL = {
    "model": {"context": 32, "width": 32, "layers": 2, "heads": 2, "emotion_width": 16},
    "generation": {"max_tokens": 64},
    "data": {"batch_size": 4, "num_workers": 0},
}


def make_score(seed: int, notes: int = 24, drums: bool = True, bar: float = 2.0) -> Score:
    """Piano and, at every other onset, a drum."""
    random = np.random.default_rng(seed)
    drum = (np.arange(notes) % 2 == 1) & drums
    return Score.from_bars(
        bars=np.full(notes // 8 + 2, bar),
        onset=np.arange(notes) / 8,
        length=np.full(notes, 1 / 8),
        pitch=np.where(drum, random.choice([36, 38, 42], notes), random.integers(50, 80, notes)),
        velocity=random.integers(40, 100, notes),
        program=np.zeros(notes, int),
        drum=drum,
    )


def make_row(ids: np.ndarray, emotion: list[float], name: str = "song") -> Row:
    return Row({"id": name, "emotion": emotion}, f"{name}:1", {"midi_path": {"ids": ids}})


@pytest.fixture
def rows() -> list[Row]:
    emotions = ([0.8, 0.5, 0.7], [-0.7, -0.4, 0.6], [-0.6, 0.8, 0.9], [0.0, 0.0, 0.5], [0.1] * 64)
    return [
        make_row(tokens.encode(make_score(seed, 10 + 9 * seed)), emotion, f"song{seed}")
        for seed, emotion in enumerate(emotions)
    ]


@pytest.fixture
def settings() -> Callable[..., MidiGeneratorConfig]:
    """settings({"augment": {"transpose": 0}}): the small settings with changes."""

    def make(changes: dict | None = None) -> MidiGeneratorConfig:
        return build(MidiGeneratorConfig, Layer(SMALL), Layer(changes or {}))

    return make


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
