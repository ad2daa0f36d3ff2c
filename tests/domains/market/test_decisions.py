"""The file of decisions, and the rows that refer to it."""

from __future__ import annotations

import numpy as np
import pytest

from training.data.rows import Row
from training.domains.market import decisions as of_market
from training.domains.market.decisions import DTYPES, Decisions
from training.domains.market.rows import DECISIONS_PATH, SCHEMA


def some(count: int = 6) -> Decisions:
    random = np.random.default_rng(3)
    columns = {name: random.integers(0, 3, count).astype(dtype) for name, dtype in DTYPES.items() if name != "features"}
    features = random.standard_normal((count, 2)).astype(np.float32)
    return Decisions(("a", "b"), features, **columns)


def test_a_file_of_decisions_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "ES.decisions"
    assert of_market.write(path, some())
    assert not of_market.write(path, some())  # the same content
    found = of_market.read(path)
    assert found.names == ("a", "b")
    for name, dtype in DTYPES.items():
        assert getattr(found, name).dtype == dtype
        assert np.array_equal(getattr(found, name), getattr(some(), name))


def test_another_file_is_refused_with_the_reason(tmp_path):
    (tmp_path / "x").write_bytes(b"not a file of decisions")
    with pytest.raises(ValueError, match="no file of decisions"):
        of_market.decode(tmp_path / "x")


def test_rows_name_their_decisions_and_come_with_the_complete_columns():
    arrays = some().arrays()

    def row(first: int, last: int) -> Row:
        return Row({DECISIONS_PATH: "/a", "first": first, "last": last}, "m:1", {DECISIONS_PATH: arrays})

    found, index = of_market.of_rows([row(4, 6), row(1, 2)])
    assert len(found) == 6
    assert index.tolist() == [1, 4, 5]


def test_the_schema_refuses_what_is_no_index():
    with pytest.raises(ValueError, match="whole number"):
        SCHEMA.keys["first"].check(1.5)
