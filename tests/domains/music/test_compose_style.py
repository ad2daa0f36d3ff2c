"""Style measurements, on notes of known style."""

import numpy as np
import pytest

from training.domains.music.midi.notes import NOTE
from training.domains.music.midi.style import articulation, features, majorness


def _line(pitches, gap=0.5, share=1.0, velocity=64, program=0, drum=False):
    notes = np.zeros(len(pitches), NOTE)
    notes["onset"] = np.arange(len(pitches)) * gap
    notes["duration"] = gap * share
    notes["pitch"], notes["velocity"], notes["program"], notes["drum"] = pitches, velocity, program, drum
    return notes


MAJOR, MINOR = [60, 64, 67, 72, 71, 67, 65, 62, 60], [57, 60, 64, 69, 68, 64, 62, 60, 57]


def test_measures_of_a_plain_line():
    found = features(_line(MAJOR, gap=0.25, share=0.4, velocity=90), tempo=120)
    assert found["density"] == pytest.approx(9 / (8 * 0.25 + 0.1))
    assert found["velocity"] == 90 and found["tempo"] == 120
    assert found["pitch"] == pytest.approx(np.mean(MAJOR)) and found["articulation"] == pytest.approx(0.4)
    assert "tempo" not in features(_line(MAJOR))


def test_major_and_minor_are_distinguished_in_every_key():
    for shift in range(12):
        assert majorness(_line([p + shift for p in MAJOR])) > 0.1
        assert majorness(_line([p + shift for p in MINOR])) < -0.1


def test_articulation_is_measured_per_instrument():
    both = np.concatenate([_line(MAJOR, share=0.3), _line(MINOR, gap=0.6, share=0.3, program=40)])
    assert articulation(both) == pytest.approx(0.3)


def test_drums_affect_only_density_and_velocity():
    drums = _line([36] * 8, gap=0.3, drum=True)
    found = features(drums)
    assert found["density"] > 3 and found["pitch"] == 60 and found["majorness"] == 0 and found["articulation"] == 1


def test_a_piece_without_notes_has_a_defined_style():
    assert features(np.zeros(0, NOTE)) == {
        "density": 0.0, "velocity": 0.0, "pitch": 60.0, "majorness": 0.0, "articulation": 1.0,
    }  # fmt: skip
