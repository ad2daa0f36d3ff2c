"""Small markets for the tests."""

from __future__ import annotations

import numpy as np
import pytest

from tests.domains.market.making import raw_bars


@pytest.fixture
def raw() -> dict[str, np.ndarray]:
    return raw_bars(4_000)
