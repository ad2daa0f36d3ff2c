"""Features are fitted on training rows alone."""

from __future__ import annotations

import numpy as np
import pytest

from training.domains.brain.features.bank import Bank, joined
from training.domains.brain.stimulus.bins import Stimulus

ROWS = np.arange(60)


def stimulus(seed: int = 0, **bands) -> Stimulus:
    random = np.random.default_rng(seed)
    made = {
        "pixels": (random.standard_normal((100, 3)) @ random.standard_normal((3, 50))).astype(np.float32),
        "sound": random.standard_normal((100, 4)).astype(np.float32),
        "words": random.poisson(0.3, (100, 10)).astype(np.float32),
    }
    return Stimulus(1.5, 0.0, made | bands)


def test_held_out_rows_change_no_feature():
    one = stimulus()
    changed = stimulus()
    for values in changed.bands.values():
        values[60:] = 1e6
    before, after = Bank.fitted([one], [ROWS]), Bank.fitted([changed], [ROWS])
    for name, array in before.arrays().items():
        assert np.array_equal(array, after.arrays()[name]), name


def test_training_rows_have_mean_0_and_spread_1():
    one = stimulus()
    features = joined(Bank.fitted([one], [ROWS])(one))[ROWS]
    assert np.abs(features.mean(0)).max() < 1e-4
    assert features.std(0) == pytest.approx(1, abs=1e-3)


def test_components_span_the_pictures():
    one = stimulus()
    bank = Bank.fitted([one], [ROWS])
    assert bank.widths["pixels"] == 3


def test_words_that_are_rare_in_training_rows_are_left_out():
    words = np.zeros((100, 3), np.float32)
    words[::5, 0] = 1
    words[60:, 1] = 1  # never in a training row
    words[[1, 2], 2] = 1
    bank = Bank.fitted([stimulus(words=words)], [ROWS])
    assert bank.widths["words"] == 1
    assert bank.projection["words"][0, 0] == 1


def test_a_band_that_one_run_has_not_is_not_used_and_none_is_an_error():
    one, other = stimulus(), stimulus(1)
    del other.bands["sound"]
    assert Bank.fitted([one, other], [ROWS, ROWS]).bands == ("pixels", "words")
    still = Stimulus(1.5, 0.0, {"sound": np.ones((100, 4), np.float32)})
    with pytest.raises(ValueError, match="nothing in the stimulus changes"):
        Bank.fitted([still], [ROWS])


def test_a_bank_comes_back_from_its_arrays():
    one = stimulus()
    bank = Bank.fitted([one], [ROWS])
    assert np.array_equal(joined(Bank.of(bank.arrays())(one)), joined(bank(one)))
