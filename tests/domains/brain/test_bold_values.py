"""What models are trained on: without drift and standardised, by training rows alone."""

from __future__ import annotations

import numpy as np
import pytest

from training.domains.brain.bold import masks
from training.domains.brain.bold.values import Normaliser, columns, slow_cosines

TR = 1.5


def rows_and_hole(volumes: int = 900) -> tuple[np.ndarray, np.ndarray]:
    """Training rows, and a held-out block in the middle with gaps around it."""
    held = np.arange(400, 470)
    return np.setdiff1d(np.arange(volumes), np.arange(383, 487)), held


def test_held_out_volumes_change_nothing():
    rows, held = rows_and_hole()
    values = np.random.default_rng(0).normal(800, 5, (900, 7)).astype(np.float32)
    before = Normaliser.fitted(values, rows, TR)
    values[held] = np.nan
    after = Normaliser.fitted(values, rows, TR)
    assert np.array_equal(before.drift, after.drift) and np.array_equal(before.spread, after.spread)


def test_training_rows_have_mean_0_and_spread_1():
    rows, _ = rows_and_hole()
    values = np.random.default_rng(0).normal(800, 5, (900, 7)).astype(np.float32)
    out = Normaliser.fitted(values, rows, TR)(values, TR)
    assert np.abs(out[rows].mean(0)).max() < 1e-3
    assert out[rows].std(0) == pytest.approx(1, abs=1e-3)


def test_slow_drift_is_removed_from_held_out_blocks_and_fast_signal_stays():
    rows, held = rows_and_hole()
    seconds = TR * np.arange(900)
    drift = 10 * np.cos(np.pi * seconds / 1350) + 6 * np.sin(2 * np.pi * seconds / 900)
    signal = np.sin(2 * np.pi * seconds / 40)
    noise = 0.1 * np.random.default_rng(0).standard_normal(900)
    out = Normaliser.fitted((drift + signal + noise)[:, None], rows, TR)(
        (drift + signal + noise)[:, None].astype(np.float32), TR
    )
    raw = np.corrcoef((drift + signal + noise)[held], signal[held])[0, 1]
    assert np.corrcoef(out[held, 0], signal[held])[0, 1] > 0.95 > raw + 0.05


def test_the_fit_of_the_drift_does_not_multiply_the_noise_of_held_out_blocks():
    rows, held = rows_and_hole()
    noise = np.random.default_rng(1).standard_normal((900, 200)).astype(np.float32)
    for at in range(1, 900):
        noise[at] += 0.45 * noise[at - 1]
    out = Normaliser.fitted(noise, rows, TR)(noise, TR)
    assert out[held].var() == pytest.approx(1, abs=0.25)


def test_a_part_of_a_run_is_standardised_as_in_the_complete_run():
    rows, _ = rows_and_hole()
    values = np.random.default_rng(0).normal(800, 5, (900, 7)).astype(np.float32)
    fitted = Normaliser.fitted(values, rows, TR)
    part = fitted(values[400:470], TR, begin=400, of=900)
    assert np.allclose(part, fitted(values, TR)[400:470], atol=1e-4)


def test_cosines_are_slower_than_128_seconds():
    basis = slow_cosines(900, TR)
    assert basis.shape[1] == int(2 * 1350 / 128) + 1
    assert (basis**2).mean(0) == pytest.approx(1, abs=0.01)


def test_a_voxel_that_a_run_does_not_have_is_an_error():
    record = {"index": np.array([2, 5, 9], np.int32)}
    assert columns(record, np.array([5, 9], np.int32)).tolist() == [1, 2]
    with pytest.raises(ValueError, match="no signal in 2 of the 3 voxels"):
        columns(record, np.array([1, 5, 11], np.int32))


def of(index):
    return {"index": np.array(index, np.int32), "shape": np.array([2, 2, 5]), "affine": np.eye(4)}


def test_voted_voxels_hold_signal_in_every_run_and_an_odd_run_shows():
    runs = [of([1, 2, 3, 4, 5]), of([1, 2, 3, 4, 6]), of([1, 15])]
    assert masks.voted(runs[:2]).tolist() == [1, 2, 3, 4]
    assert masks.agreement(runs).tolist() == [1.0, 1.0, 0.25]


def test_a_grid_that_differs_is_described():
    one = of([1])
    assert masks.same_place(one, (2, 2, 5), np.eye(4)) == ""
    assert "2x2x5, not 2x2x6" in masks.same_place(one, (2, 2, 6), np.eye(4))
    moved = np.eye(4)
    moved[0, 3] = 2
    assert "up to 2 mm" in masks.same_place(one, (2, 2, 5), moved)
