"""Bar 3 is measured on sides that compute the same thing."""

import pytest
import torch

from benchmarks.music import chamfer as subject
from training.domains.music.spectocloud.chamfer import chamfer


@pytest.mark.parametrize("rival", [subject.by_broadcast, subject.by_cdist, subject.by_tree])
def test_rivals_compute_what_ours_does(rival):
    x, y = subject.clouds(2, 40)
    torch.testing.assert_close(rival(x, y), chamfer(x, y))
    torch.testing.assert_close(subject.step(rival, x, y)(), subject.step(chamfer, x, y)(), rtol=1e-4, atol=1e-6)


def test_memory_is_that_of_the_step():
    """The broadcast holds every difference: 2 x 500 x 500 x 3 floats are 6 MB."""
    rival, _ = subject.extra_memory("by_broadcast", 2, 500)
    assert rival > 6


def test_rows_are_measured():
    rows = subject.measure(small=True)
    assert [row.bar for row in rows] == ["3a", "3b", "3c", "3d", "3e"]
    assert all(row.ours > 0 for row in rows)
    near = rows[-1]
    assert near.met and near.rival > 0.05  # the shortcut is wrong where points nearly touch
