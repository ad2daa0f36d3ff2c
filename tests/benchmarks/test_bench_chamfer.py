"""The implementations that bar 3 compares compute the same distance."""

import pytest
import torch

from benchmarks.music import chamfer as subject
from training.domains.music.spectocloud.chamfer import chamfer


@pytest.mark.parametrize("reference", [subject.by_broadcast, subject.by_cdist, subject.by_tree])
def test_references_compute_the_same_as_ours(reference):
    x, y = subject.clouds(2, 40)
    torch.testing.assert_close(reference(x, y), chamfer(x, y))
    torch.testing.assert_close(subject.step(reference, x, y)(), subject.step(chamfer, x, y)(), rtol=1e-4, atol=1e-6)


def test_the_memory_of_the_step_is_measured():
    """The broadcast holds every difference: 2 x 500 x 500 x 3 floats are 6 MB."""
    reference, _ = subject.extra_memory("by_broadcast", 2, 500)
    assert reference > 6


def test_rows_are_measured():
    rows = subject.measure(small=True)
    assert [row.bar for row in rows] == ["3a", "3b", "3c", "3d", "3e"]
    assert all(row.ours > 0 for row in rows)
    near = rows[-1]
    assert near.met and near.reference > 0.05  # cdist is inaccurate for nearly touching points
