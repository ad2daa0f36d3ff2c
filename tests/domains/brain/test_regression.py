"""Ridge as himalaya computes it, its folds, and the form of reduced rank."""

from __future__ import annotations

import numpy as np
import pytest

from training.domains.brain.regression import banded, ridge


def data(rows: int = 120, features: int = 12, voxels: int = 30, rank: int | None = None, noise: float = 1.0):
    random = np.random.default_rng(4)
    x = random.standard_normal((rows, features)).astype(np.float32)
    weights = random.standard_normal((features, voxels))
    if rank:
        weights = random.standard_normal((features, rank)) @ random.standard_normal((rank, voxels))
    y = (x @ weights + noise * random.standard_normal((rows, voxels))).astype(np.float32)
    return x, y


def test_ridge_is_that_of_himalaya():
    from himalaya.backend import set_backend
    from himalaya.ridge import Ridge

    set_backend("numpy")  # it is the process's, and banded ridge sets it to torch
    x, y = data()
    for alpha in (1.0, 100.0):
        own = ridge.solve(x, y, [alpha])[0]
        theirs = Ridge(alpha=alpha, fit_intercept=False).fit(x, y).coef_
        assert np.abs(own - theirs).max() < 5e-6 * np.abs(theirs).max()


def test_the_alpha_of_each_voxel_is_the_best_of_the_folds():
    x, y = data(noise=20.0)
    y[:, 0] = x @ np.arange(12, dtype=np.float32)  # without noise: the least penalty is best
    fitted = ridge.fit(x, y, [120])
    assert fitted.alpha[0] == min(ridge.ALPHAS) < np.median(fitted.alpha)


def test_folds_are_contiguous_and_hold_every_row_out_once():
    found = ridge.folds([50, 30, 43], 5)
    assert np.array_equal(np.concatenate(found), np.arange(123))
    assert all((np.diff(of) == 1).all() for of in found)


def test_the_full_rank_is_ridge_and_a_lower_one_is_nearest_to_it():
    x, y = data(noise=0.1)
    weights = ridge.fit(x, y, [120]).weights
    full = ridge.reduced(x, weights, 12)
    assert np.allclose(full.predict(x), x @ weights, atol=1e-3)
    low = ridge.reduced(x, weights, 3)
    assert low.bottleneck.shape == (12, 3) and low.heads.shape == (3, 30)
    singular = np.linalg.svd(x @ weights, compute_uv=False)
    left = ((low.predict(x) - x @ weights) ** 2).sum()
    assert left == pytest.approx((singular[3:] ** 2).sum(), rel=1e-3)


def test_reduced_rank_finds_what_has_that_rank():
    x, y = data(rank=2, noise=3.0)
    clean, _ = data(rank=2, noise=0.0)
    truth = data(rank=2, noise=0.0)[1]
    weights = ridge.fit(x, y, [120]).weights
    errors = [((ridge.reduced(x, weights, rank).predict(clean) - truth) ** 2).mean() for rank in (2, 12)]
    assert errors[0] < errors[1]


def test_banded_ridge_shuts_out_a_band_of_noise():
    random = np.random.default_rng(0)
    x, y = data(rows=100, features=6, noise=2.0)
    useless = 3 * random.standard_normal((100, 60)).astype(np.float32)
    fresh_x = random.standard_normal((200, 6)).astype(np.float32)
    clean_x, clean = data(rows=100, features=6, noise=0.0)
    fresh = fresh_x @ np.linalg.lstsq(clean_x, clean, rcond=None)[0]
    noise = 3 * random.standard_normal((200, 60)).astype(np.float32)
    both, fresh_both = np.concatenate([x, useless], 1), np.concatenate([fresh_x, noise], 1)
    weights = banded.fit([x, useless], y, [100], seed=0, searches=12)
    plain = ridge.fit(both, y, [100]).weights
    own = ridge.correlations(fresh_both @ weights, fresh).mean()
    assert own > ridge.correlations(fresh_both @ plain, fresh).mean() + 0.02


def test_the_same_seed_gives_the_same_banded_weights():
    x, y = data()
    bands = [x[:, :5], x[:, 5:]]
    one, two = (banded.fit(bands, y, [120], seed=3, searches=4) for _ in range(2))
    assert np.array_equal(one, two)
