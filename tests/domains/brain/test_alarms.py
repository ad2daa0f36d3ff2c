"""Faults of the data are named before anything is trained."""

from __future__ import annotations

import numpy as np
import pytest

from training.domains.brain.alarms import subjects
from training.domains.brain.alarms.lag import scan, stretch
from training.domains.brain.features.haemodynamics import convolve, kernel

TR, VOLUMES = 1.5, 400
ROWS = np.concatenate([np.arange(0, 150), np.arange(220, VOLUMES)])


def laboratory(shift: float = 0.0, rate: float = 0.0, signal: float = 0.6) -> tuple[np.ndarray, np.ndarray]:
    """Features [T, 6] and BOLD [T, 80] of a film that began `shift` seconds after the first volume, and was shown
    (1 + rate) times as long."""
    random = np.random.default_rng(11)
    fine = random.standard_normal((VOLUMES * 3 + 100, 6))
    fine = np.stack([np.convolve(column, np.ones(12) / 12, "same") for column in fine.T], 1)
    steps = np.arange(VOLUMES) * TR * 2  # features at 2 Hz
    features = fine[np.minimum(steps.astype(int), len(fine) - 1)]
    seen_at = np.clip((np.arange(VOLUMES) * TR - shift) / (1 + rate) * 2, 0, len(fine) - 1)
    seen = fine[seen_at.astype(int)]
    scale = features.std(0)
    bold = convolve((seen / scale).astype(np.float32), kernel(TR)) @ random.standard_normal((6, 80))
    bold = signal * bold / bold.std(0) + np.sqrt(1 - signal**2) * random.standard_normal(bold.shape)
    return (features / scale).astype(np.float32), bold.astype(np.float32)


def test_aligned_data_raises_no_alarm():
    features, bold = laboratory()
    found = scan(features, bold, ROWS, TR)
    assert found.found and abs(found.best) <= 1 and found.aligned
    assert not stretch(features, bold, ROWS, TR).present


@pytest.mark.parametrize(("shift", "volumes", "word"), [(15.0, 10, "later"), (-15.0, 10, "earlier"), (6.0, 4, "later")])
def test_a_shift_is_named_in_volumes_with_its_direction(shift, volumes, word):
    found = scan(*laboratory(shift=shift), ROWS, TR)
    assert not found.aligned
    assert abs(found.best - shift / TR) <= 1
    speed = stretch(*laboratory(shift=shift), ROWS, TR, found.best)
    assert not speed.present and speed.shifted
    sentence = found.sentence()
    assert f"misaligned by {abs(found.best)} TR" in sentence and f"s {word} than" in sentence and "--onset" in sentence


@pytest.mark.parametrize("rate", [0.03, -0.03])
def test_a_stretch_of_3_percent_is_named(rate):
    features, bold = laboratory(rate=rate)
    found = stretch(features, bold, ROWS, TR, scan(features, bold, ROWS, TR).best)
    assert not found.shifted and found.last == pytest.approx(rate * VOLUMES * TR, abs=3)
    assert found.present and found.rate == pytest.approx(rate, abs=0.006)
    assert f"stretched by {100 * found.rate:+.1f} %" in found.sentence()


def test_noise_raises_no_alarm():
    features, _ = laboratory()
    for seed in range(5):
        noise = np.random.default_rng(seed).standard_normal((VOLUMES, 80)).astype(np.float32)
        found = scan(features, noise, ROWS, TR)
        assert not found.found and found.aligned and "nothing can be predicted" in found.sentence()


def test_the_alarms_look_at_training_rows_alone():
    features, bold = laboratory()
    before = scan(features, bold, ROWS, TR)
    held = np.setdiff1d(np.arange(VOLUMES), ROWS)
    bold[held] = 1e3
    assert scan(features, bold, ROWS, TR) == before


def test_a_subject_that_is_late_is_named():
    random = np.random.default_rng(3)
    shared = np.stack(
        [np.convolve(column, np.ones(5) / 5, "same") for column in random.standard_normal((80, VOLUMES))], 1
    )
    bolds = [(shared + random.standard_normal(shared.shape)).astype(np.float32) for _ in range(4)]
    assert not any(subjects.sentence("x", one) for one in subjects.scans(bolds, ROWS, TR))
    bolds[2] = np.roll(bolds[2], 5, 0)
    sentences = [subjects.sentence(str(n), one) for n, one in enumerate(subjects.scans(bolds, ROWS, TR))]
    assert [bool(sentence) for sentence in sentences] == [False, False, True, False]
    assert "subject 2 is 5 TR (7.5 s) later than the others" in sentences[2]


def test_subjects_without_anything_in_common_raise_no_alarm():
    random = np.random.default_rng(4)
    bolds = [random.standard_normal((VOLUMES, 80)).astype(np.float32) for _ in range(4)]
    assert not any(subjects.sentence("x", one) for one in subjects.scans(bolds, ROWS, TR))
