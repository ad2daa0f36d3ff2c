"""What the families state without torch matches their models."""

from __future__ import annotations

import numpy as np
import pytest

from training.domain import PRESETS
from training.domains.music.families import MIDI_GENERATOR, SPECTOCLOUD
from training.registry import load_recipe

CONSTANTS = {"mean": np.zeros(128, np.float32), "std": np.ones(1, np.float32)}


@pytest.mark.parametrize("facts", [SPECTOCLOUD, MIDI_GENERATOR], ids=lambda facts: facts.name)
@pytest.mark.parametrize("preset", PRESETS)
def test_the_size_of_each_preset_is_the_size_of_its_model(facts, preset):
    """Before a family has a checkpoint, a budget keeps back what a model of this size needs."""
    model = load_recipe(facts.name, preset, None, []).build(CONSTANTS if facts is SPECTOCLOUD else {})
    weights = sum(parameter.numel() for parameter in model.parameters())
    assert facts.millions[preset] == pytest.approx(weights / 1e6, rel=0.02)
