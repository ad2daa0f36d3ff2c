"""Parts of the renderer: exact exponentials, roughness, anchors and stored constants."""

import numpy as np
import pytest

from training.domains.music.clouds import anchors, exact
from training.domains.music.clouds import constants as cloud_constants
from training.domains.music.clouds.roughness import pair_table, roughness


def test_exact_exponentials_agree_with_the_maths_library():
    x = np.concatenate([np.linspace(-690, 690, 20001), np.linspace(-1, 1, 2001)])
    np.testing.assert_allclose(exact.exp(x), np.exp(x), rtol=1e-14)
    y = np.concatenate([np.logspace(-300, 300, 20001), np.linspace(0.5, 2, 2001)])
    np.testing.assert_allclose(exact.log(y), np.log(y), rtol=1e-14, atol=1e-16)
    z = np.linspace(0, 5, 1001)
    np.testing.assert_allclose(exact.power(z, 0.7), z**0.7, rtol=1e-14)
    assert exact.power(np.zeros(1), 0.7) == 0


def amplitudes(*chords: dict[int, int]) -> np.ndarray:
    out = np.zeros((len(chords), 128), np.int64)
    for k, chord in enumerate(chords):
        for pitch, velocity in chord.items():
            out[k, pitch] = velocity
    return out


def test_roughness_orders_intervals_as_perceived():
    values = roughness(amplitudes(*({60: 80, 60 + interval: 80} for interval in (12, 7, 4, 2, 1))))
    assert (np.diff(values) > 0).all()
    low, high = roughness(amplitudes({40: 80, 44: 80}, {64: 80, 68: 80}))
    assert low > high  # the same third is rougher in the bass


def test_roughness_does_not_depend_on_loudness():
    soft, loud, one, none = roughness(amplitudes({60: 40, 61: 40}, {60: 120, 61: 120}, {60: 100}, {}))
    assert soft == loud > 0
    assert one == none == 0


def test_roughness_matches_its_formula_term_by_term():
    f1, f2 = 440 * 2 ** (-9 / 12), 440 * 2 ** (-5 / 12)
    total = 0.0
    for i in range(5):
        for j in range(5):
            low, high = sorted(((i + 1) * f1, (j + 1) * f2))
            x = 0.24 * (high - low) / (0.021 * low + 19)
            total += 0.88**i * 0.88**j * (np.exp(-3.5 * x) - np.exp(-5.75 * x))
    expected = 70 * 90 * total / ((70**2 + 90**2) * sum(0.88 ** (2 * i) for i in range(5)))
    assert roughness(amplitudes({60: 70, 64: 90}))[0] == pytest.approx(expected, rel=1e-5)
    assert (pair_table() == pair_table().T).all()


def test_the_positions_of_the_100_anchors_follow_the_formula_of_the_lifeline():
    counts = np.bincount(anchors.ANCHOR_FAMILY)
    assert [family.name for family in anchors.FAMILIES] == ["harmony", "rhythm", "dynamics", "timbre", "texture"]
    assert counts.tolist() == [30, 20, 20, 20, 10]
    assert [family.charge for family in anchors.FAMILIES] == [1.2, 1.0, 0.8, 0.9, 0.7]
    pitch, range_, velocity, density, tension = anchors.ANCHOR_VALUES.T
    np.testing.assert_allclose(anchors.ANCHORS[:, 0], pitch)
    np.testing.assert_allclose(anchors.ANCHORS[:, 1], 0.3 * tension + 0.15 * density + 0.35 * velocity + 0.2 * range_)
    assert len(np.unique(anchors.ANCHOR_VALUES, axis=0)) == 100
    assert ((anchors.ANCHOR_VALUES >= 0) & (anchors.ANCHOR_VALUES <= 1)).all()


def test_the_pattern_is_standard_normal_and_more_even_than_random_points():
    pattern = cloud_constants.PATTERN
    assert pattern.shape == (150, 3)
    np.testing.assert_allclose(pattern.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(pattern.std(0), 1, atol=1e-4)
    np.testing.assert_allclose(np.corrcoef(pattern.T), np.eye(3), atol=0.02)
    nearest = _nearest(pattern)
    rng = np.random.default_rng(0)
    by_chance = np.mean([_nearest(rng.standard_normal((150, 3))) for _ in range(20)])
    assert nearest > 1.1 * by_chance
    assert (pattern.astype(np.float32) == pattern).all()


def _nearest(points: np.ndarray) -> float:
    distance = np.linalg.norm(points[:, None] - points[None], axis=2) + 10 * np.eye(len(points))
    return float(np.median(distance.min(1)))
