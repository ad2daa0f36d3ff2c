"""Fixtures of the engine's tests. One thread: the toy models are tiny, and results must not depend on the host."""

import pytest
import torch

from tests.engine import toy
from tests.engine.disks import disk  # noqa: F401  a fixture
from training.engine.step import precision


@pytest.fixture(autouse=True)
def reset_toys():
    torch.set_num_threads(1)
    toy.ToyRecipe.log.clear()
    toy.ToyRecipe.progresses.clear()
    toy.ToyRecipe.models.clear()


@pytest.fixture(autouse=True)
def bfloat16_on_any_processor(monkeypatch):
    """Toys are fast in any dtype; results must not depend on whether this host has instructions for bfloat16."""
    monkeypatch.setattr(precision, "emulates_bfloat16", lambda: False)
