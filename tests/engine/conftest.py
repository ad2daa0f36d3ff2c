"""One thread: the toys are tiny, and results must not depend on how work is cut."""

import pytest
import torch

from tests.engine import toy
from tests.engine.disks import disk  # noqa: F401  a fixture
from training.engine.step import precision


@pytest.fixture(autouse=True)
def quiet_toys():
    torch.set_num_threads(1)
    toy.ToyRecipe.log.clear()
    toy.ToyRecipe.moments.clear()
    toy.ToyRecipe.models.clear()


@pytest.fixture(autouse=True)
def any_processor_computes_what_is_requested(monkeypatch):
    """Toys are fast in any dtype; what is seen must not depend on the host."""
    monkeypatch.setattr(precision, "emulates_bfloat16", lambda: False)
