"""One thread: the toys are tiny, and results must not depend on how work is cut."""

import pytest
import torch

from tests.engine import toy
from tests.engine.disks import disk  # noqa: F401  a fixture


@pytest.fixture(autouse=True)
def quiet_toys():
    torch.set_num_threads(1)
    toy.ToyRecipe.log.clear()
    toy.ToyRecipe.moments.clear()
    toy.ToyRecipe.models.clear()
