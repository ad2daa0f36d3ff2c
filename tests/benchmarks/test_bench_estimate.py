"""The estimate's benchmark trains what it estimated, and counts how often the stated interval held."""

from dataclasses import replace

from benchmarks import estimate
from benchmarks.estimate import Trial, rows
from tests.stages.test_estimate import ESTIMATE


def test_the_predicted_duration_is_compared_with_the_actual_one():
    found = estimate.measure(small=True)
    assert [row.bar for row in found] == ["E1", "E2", "E3"]
    for row in found[:2]:
        assert row.ours > 0 and row.reference > 0 and "4 steps" in row.note
        assert row.ratio == abs(row.reference / row.ours - 1)


def test_the_median_trial_decides_and_the_interval_must_hold_in_nine_of_ten():
    expected = replace(ESTIMATE, error=0.0)
    good, far = Trial(expected, expected.training * 1.05), Trial(expected, expected.training * 1.5)
    assert good.held and not far.held
    one, two, every = rows({"one": [good] * 6 + [far], "two": [good] * 3})
    assert one.met and two.met and every.met and every.ratio == 90
    assert not rows({"one": [good, far]})[-1].met
