"""The saving benchmark, on a small model."""

from benchmarks import saving


def test_a_background_save_blocks_the_training_for_less_time_than_a_synchronous_one():
    held, default, often = saving.measure(small=True)
    assert held.ours < held.reference
    assert default.ratio < often.ratio and default.ours == held.ours
    assert "saves in" in often.note
