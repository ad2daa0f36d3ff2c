"""midi_features: documented, bounded statistics, and all zeros if and only if no note sounds."""

import numpy as np
import pytest

from training.domains.music.clouds.cloud import SPAN_SAMPLES
from training.domains.music.clouds.features import FEATURES, midi_features
from training.domains.music.midi.notes import NOTE

SECONDS = SPAN_SAMPLES / 44100


def notes_of(*rows: tuple) -> np.ndarray:
    """(onset, duration, pitch, velocity[, drum]) -> NOTE, sorted."""
    notes = np.array([(*row[:4], 0, len(row) > 4) for row in rows], NOTE)
    return np.sort(notes, order=["onset", "program", "pitch"])


def named(notes: np.ndarray, start: float = 0.0) -> dict[str, float]:
    """The first words of each feature's description -> its value."""
    return {text.split(" (")[0]: float(x) for text, x in zip(FEATURES, midi_features(notes, start), strict=True)}


def test_features_are_all_zeros_if_and_only_if_no_note_sounds():
    empty = np.zeros(0, NOTE)
    elsewhere = notes_of((10.0, 1.0, 60, 90), (20.0, 1.0, 62, 90))
    for notes, start in ((empty, 0.0), (elsewhere, 12.0)):
        features = midi_features(notes, start)
        assert features.dtype == np.float32 and features.shape == (32,)
        assert not features.any()
    for row in ((10.0, 1.0, 0, 1), (10.0, 0.001, 60, 1), (10.5, 0.01, 36, 1, True)):
        assert midi_features(notes_of(row), 9.5)[0] == 1


def test_a_drum_struck_before_the_window_is_not_heard_in_it():
    assert not midi_features(notes_of((1.0, 2.0, 49, 100, True)), 1.5).any()


def test_all_features_are_bounded_whatever_the_notes():
    rng = np.random.default_rng(0)
    for size in (1, 7, 3000):
        notes = np.zeros(size, NOTE)
        notes["onset"] = np.sort(rng.uniform(0, 3, size))
        notes["duration"] = rng.exponential(0.5, size) + 1e-4
        notes["pitch"], notes["velocity"] = rng.integers(0, 128, size), rng.integers(1, 128, size)
        notes["drum"] = rng.random(size) < 0.3
        features = midi_features(notes, 0.5)
        assert np.isfinite(features).all() and features.min() >= 0 and features.max() <= 1
        assert midi_features(notes, 0.5).tobytes() == features.tobytes()


def test_the_numbers_match_their_descriptions():
    half = SECONDS / 2
    found = named(notes_of((0.0, half, 60, 64), (half, half, 72, 96), (0.1, 0.05, 36, 127, True)))
    assert found["pitch, mean"] == pytest.approx((66 - 36) / 52, abs=1e-4)
    assert found["pitch, standard deviation / 24 semitones"] == pytest.approx(6 / 24, abs=1e-4)
    assert found["pitch, lowest"] == pytest.approx((60 - 36) / 52)
    assert found["pitch, highest"] == pytest.approx((72 - 36) / 52)
    assert found["velocity, loudest"] == 1
    assert found["tones that begin, per second / 20"] == pytest.approx(2 / SECONDS / 20)
    assert found["drums struck per second / 20"] == pytest.approx(1 / SECONDS / 20)
    assert found["share of drums among the notes"] == pytest.approx(1 / 3)
    assert found["tones sounding: most at once / 12"] == pytest.approx(1 / 12)
    assert found["tones sounding: mean over the window / 8"] == pytest.approx(1 / 8, abs=1e-4)
    assert found["share of the window in which a tone sounds"] == pytest.approx(1, abs=1e-4)
    assert found["duration of tones within the window, mean / its length"] == pytest.approx(0.5, abs=1e-4)
    assert found["share of pitch class C, by velocity * time"] == 1
    rising = "pitch, second half less first half,"
    assert next(x for text, x in found.items() if text.startswith(rising)) == pytest.approx((52 + 12) / 104, abs=1e-3)


def test_overlapping_tones_are_counted_and_pitch_classes_weighted():
    found = named(notes_of((0.0, SECONDS, 48, 100), (0.0, SECONDS, 55, 50), (0.0, SECONDS / 2, 67, 100)))
    assert found["tones sounding: most at once / 12"] == pytest.approx(3 / 12)
    assert found["tones sounding: mean over the window / 8"] == pytest.approx(2.5 / 8, abs=1e-4)
    assert found["share of pitch class C, by velocity * time"] == pytest.approx(0.5, abs=1e-4)
    assert found["share of pitch class G, by velocity * time"] == pytest.approx(0.5, abs=1e-4)
    assert found["tension, mean over the sub-frames"] > 0


def test_every_feature_has_its_own_description():
    assert len(FEATURES) == len(set(FEATURES)) == 32
