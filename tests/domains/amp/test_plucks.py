"""Synthetic guitar is in tune, finite, and the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from training.domains.amp.plucks import playing, pluck


@pytest.mark.parametrize("note", [40, 57.5, 69, 84])
@pytest.mark.parametrize("rate", [44_100, 48_000, 96_000])
def test_a_string_sounds_at_its_pitch(note, rate):
    sound = pluck(note, 1.0, rate, np.random.default_rng(0))
    assert sound.dtype == np.float32 and len(sound) == rate and np.abs(sound).max() == pytest.approx(1)
    pitch = 440 * 2 ** ((note - 69) / 12)
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(rate), 4 * rate))  # bins of a quarter of a Hz
    around = spectrum[int(3.6 * pitch) : int(4.4 * pitch)]
    assert (around.argmax() + int(3.6 * pitch)) / 4 == pytest.approx(pitch, rel=0.006), "a tenth of a semitone"


def test_playing_is_a_function_of_its_seed_and_never_clips():
    one, same, other = playing(5, 48_000, 1), playing(5, 48_000, 1), playing(5, 48_000, 2)
    assert np.array_equal(one, same) and not np.array_equal(one, other)
    assert len(one) == 5 * 48_000 and np.isfinite(one).all() and 0.05 < np.abs(one).max() < 0.75
    silent = np.abs(one.reshape(-1, 4_800)).max(1) < 1e-4
    assert silent.mean() < 0.2
