"""Measures: correlations over any blocks, ceilings, significance, and segments."""

from __future__ import annotations

import numpy as np
import pytest

from training.domains.brain.evaluation import measures
from training.domains.brain.evaluation.measures import Moments


def blocks(count: int = 6, length: int = 22, voxels: int = 40, signal: float = 0.5):
    random = np.random.default_rng(7)
    truth = [random.standard_normal((length, voxels)).astype(np.float32) for _ in range(count)]
    noise = [random.standard_normal((length, voxels)).astype(np.float32) for _ in range(count)]
    measured = [5 + signal * t + np.sqrt(1 - signal**2) * n for t, n in zip(truth, noise, strict=True)]
    return truth, measured


def test_correlations_are_numpys():
    predicted, measured = blocks()
    r = Moments.of(predicted, measured).correlations()
    p, y = np.concatenate(predicted), np.concatenate(measured)
    assert r == pytest.approx([np.corrcoef(p[:, v], y[:, v])[0, 1] for v in range(40)], abs=1e-6)


def test_a_draw_is_the_correlation_over_its_blocks():
    predicted, measured = blocks()
    weights = np.array([[2.0, 0, 1, 0, 0, 3]])
    drawn = [0, 0, 2, 5, 5, 5]
    p, y = np.concatenate([predicted[n] for n in drawn]), np.concatenate([measured[n] for n in drawn])
    expected = [np.corrcoef(p[:, v], y[:, v])[0, 1] for v in range(40)]
    assert Moments.of(predicted, measured).correlations(weights)[0] == pytest.approx(expected, abs=1e-6)


def test_a_constant_prediction_has_no_correlation():
    predicted, measured = blocks()
    assert not Moments.of([np.full_like(p, 3) for p in predicted], measured).correlations().any()


def test_the_interval_of_few_blocks_is_above_0_as_seldom_as_it_claims():
    """Of noise, an interval of 95 % is above 0 for one world in forty."""
    found = []
    for seed in range(400):
        random = np.random.default_rng(seed)
        predicted, measured = (random.standard_normal((4, 20, 1)) for _ in range(2))
        found.append(Moments.of([*predicted], [*measured]).mean_of().interval().low > 0)
    assert 0.005 < np.mean(found) < 0.045, np.mean(found)


def test_the_interval_holds_the_expected_correlation():
    predicted, measured = blocks(count=12, signal=0.4)
    draws = Moments.of(predicted, measured).mean_of()
    interval = draws.interval()
    assert interval.low < 0.4 < interval.high and interval.high - interval.low < 0.2


def test_the_ceiling_of_repeats_is_the_root_of_their_correlation():
    random = np.random.default_rng(0)
    signal = random.standard_normal((1, 4000, 10))
    repeats = np.stack([0.5 * signal + np.sqrt(0.75) * random.standard_normal(signal.shape) for _ in range(2)])
    found = measures.ceiling_of(repeats[0], repeats)
    assert found.kind == "repeats"
    assert found.values_SV.mean() == pytest.approx(0.5, abs=0.03)


def test_the_ceiling_between_subjects_is_exact_if_they_are_alike_and_called_a_lower_bound():
    random = np.random.default_rng(0)
    signal = random.standard_normal((4000, 10))
    subjects = np.stack([0.5 * signal + np.sqrt(0.75) * random.standard_normal(signal.shape) for _ in range(4)])
    found = measures.ceiling_of(subjects)
    assert found.values_SV.mean() == pytest.approx(0.5, abs=0.03)
    assert "lower bound" in found.bound
    turned = subjects.copy()
    turned[1:] = turned[1:, :, ::-1]  # voxels do not correspond
    assert measures.ceiling_of(turned).values_SV[0].mean() < 0.3


def test_the_mean_ceiling_of_voxels_without_signal_is_0():
    noise = np.random.default_rng(0).standard_normal((4, 60, 2000))
    assert abs(measures.ceiling_of(noise).values_SV.mean()) < 0.02


def test_no_ceiling_is_known_of_one_subject():
    found = measures.ceiling_of(np.zeros((1, 50, 3)))
    assert found.kind == "unknown" and found.values_SV is None


def test_null_voxels_are_rarely_significant_and_responsive_ones_are_found():
    random = np.random.default_rng(3)
    smooth = np.ones(4) / 2

    def noise(voxels):
        raw = random.standard_normal((203, voxels))
        return np.apply_along_axis(lambda column: np.convolve(column, smooth, "valid"), 0, raw)

    predicted, measured = noise(600), noise(600)
    measured[:, :200] += predicted[:, :200]
    q = measures.false_discovery(measures.pooled_p(*measures.shifted(predicted, measured, [100, 100])))
    assert (q[:200] < 0.05).mean() > 0.9
    assert (q[200:] < 0.05).mean() < 0.06


def test_adjusted_p_values_are_those_of_benjamini_and_hochberg():
    q = measures.false_discovery(np.array([0.01, 0.02, 0.03, 0.04, 0.5]))
    assert q == pytest.approx([0.05, 0.05, 0.05, 0.05, 0.5])


def test_segments_are_recognised_only_by_a_prediction_that_knows_them():
    predicted, measured = blocks(count=2, length=45, voxels=60, signal=0.5)
    found = measures.match_segments(predicted, measured)
    assert (found.of, found.chance) == (10, 1.0) and found.right >= 9
    other, _ = blocks(count=2, length=45, voxels=60)
    unrelated = [np.random.default_rng(n).standard_normal(p.shape) for n, p in enumerate(other)]
    assert measures.match_segments(unrelated, measured).right <= 4


@pytest.mark.parametrize("blocks_of", [[30], [45, 60]])
def test_noise_is_not_significant_however_few_shifts_there_are(blocks_of):
    found = []
    for seed in range(20):
        random = np.random.default_rng(seed)
        predicted, measured = (random.standard_normal((sum(blocks_of), 300)) for _ in range(2))
        q = measures.false_discovery(measures.pooled_p(*measures.shifted(predicted, measured, blocks_of)))
        found.append((q < 0.05).any())
    assert np.mean(found) <= 0.15


@pytest.mark.parametrize(("count", "estimated"), [(2, False), (3, False), (4, True)])
def test_an_interval_needs_four_blocks(count, estimated):
    """Of fewer, whether they differ by chance cannot be seen."""
    assert Moments.of(*blocks(count=count)).mean_of().estimated is estimated
