"""The response to the stimulus comes after it, and as late as the literature says."""

from __future__ import annotations

import numpy as np
import pytest

from training.domains.brain.features.haemodynamics import convolve, delayed, derivative_kernel, glover, kernel


@pytest.mark.parametrize("tr", [0.5, 1.0, 1.5, 2.0, 3.0])
def test_an_impulse_changes_nothing_before_it_and_peaks_4_to_6_seconds_after(tr):
    impulse = np.zeros((120, 1), np.float32)
    impulse[50] = 1
    out = convolve(impulse, kernel(tr))[:, 0]
    assert not out[:50].any()
    assert 4.0 - tr / 2 <= (out.argmax() - 50) * tr <= 6.0 + tr / 2
    assert out.sum() == pytest.approx(1, abs=1e-5)


def test_the_response_is_glovers():
    seconds = np.arange(0, 30, 0.01)
    response = glover(seconds)
    assert seconds[response.argmax()] == pytest.approx(5.03, abs=0.01)
    assert 10 < seconds[response.argmin()] < 13 and response.min() < 0
    assert not glover(np.array([-3.0, -0.1, 0.0])).any()


def test_a_later_response_is_the_response_and_some_of_its_derivative():
    late = kernel(0.5, shift=0.4)
    base = np.stack([kernel(0.5), derivative_kernel(0.5)], 1)
    weights, left, *_ = np.linalg.lstsq(base, late, rcond=None)
    assert weights[1] < 0
    assert left[0] < 0.02 * (late**2).sum()


def test_delays_look_back_only():
    features = np.arange(5, dtype=np.float32)[:, None]
    assert delayed(features, (1, 2)).tolist() == [[0, 0], [0, 0], [1, 0], [2, 1], [3, 2]]
    with pytest.raises(ValueError, match="negative"):
        delayed(features, (-1, 2))
