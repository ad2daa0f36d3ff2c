"""Splits: blocks with gaps, the same for all subjects, and what happens without them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from training.domains.brain.alarms.clock import clock_check
from training.domains.brain.splits.blocks import PIECE, blocks, gap_of, rows_of, smallest_gap
from training.errors import DataError


def index(found, *splits):
    return np.concatenate([np.arange(one.begin, one.end) for one in found if one.split in splits])


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("volumes", "tr"), [(900, 1.5), (240, 1.5), (2000, 0.8), (300, 2.0)])
def test_every_held_out_block_has_its_gap_on_both_sides(volumes, tr, seed):
    found = blocks(volumes, tr, seed)
    gap = gap_of(tr)
    assert found[-1].end <= volumes
    held = [one for one in found if one.split != "train"]
    assert {one.split for one in held} == {"test", "val"}
    train = index(found, "train")
    for one in held:
        assert one.begin >= gap and one.end <= volumes - gap
        assert not np.isin(train, np.arange(one.begin - gap, one.end + gap)).any()
    assert len(index(found, "train", "test", "val")) == len(np.unique(index(found, "train", "test", "val")))
    assert 0.12 * volumes <= len(index(found, "test")) <= 0.2 * volumes


def test_a_split_is_a_function_of_seed_and_run():
    assert blocks(900, 1.5, 3) == blocks(900, 1.5, 3)
    assert blocks(900, 1.5, 3) != blocks(900, 1.5, 4)
    assert blocks(900, 1.5, 3, run=0) != blocks(900, 1.5, 3, run=1)


def test_a_run_too_short_to_be_split_is_refused_with_numbers():
    with pytest.raises(DataError, match=r"120 volumes of 1.5 s is too short: .* gaps of 17"):
        blocks(120, 1.5, 0)


def test_held_out_rows_are_units_of_20_volumes():
    for one in blocks(900, 1.5, 1):
        rows = rows_of(one)
        assert rows[0][0] == one.begin and rows[-1][1] == one.end
        assert all(a[1] == b[0] for a, b in itertools.pairwise(rows))
        if one.split != "train":
            assert all(end - begin >= PIECE for begin, end in rows)


def test_the_gap_between_rows_is_measured_within_a_run_only():
    assert smallest_gap([("1", 0, 50)], [("1", 67, 90), ("2", 10, 20)]) == 17
    assert smallest_gap([("1", 0, 50)], [("1", 50, 60)]) == 0
    assert smallest_gap([("1", 0, 50)], [("1", 40, 60)]) == -10
    assert smallest_gap([("1", 0, 50)], [("2", 0, 50)]) is None


def slow_noise(volumes: int, voxels: int) -> np.ndarray:
    """What BOLD is like in time: autocorrelated over several volumes, and nothing else."""
    random = np.random.default_rng(1)
    out = random.standard_normal((volumes, voxels))
    for at in range(1, volumes):
        out[at] += 0.9 * out[at - 1]
    return (out / out.std(0)).astype(np.float32)


def test_random_volumes_leak_and_blocks_do_not():
    noise = slow_noise(600, 40)
    order = np.random.default_rng(2).permutation(600)
    random = clock_check(noise, np.sort(order[:500]), np.sort(order[500:]))
    assert random.r > 0.5 and random.leaks and "the split leaks" in random.sentence()
    found = blocks(600, 1.5, 2)
    blocked = clock_check(noise, index(found, "train"), index(found, "val", "test"))
    assert abs(blocked.r) < 0.1 and not blocked.leaks
