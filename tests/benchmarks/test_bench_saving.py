"""The saving benchmark measures what it says, on a small model."""

from benchmarks import saving


def test_the_background_holds_the_training_for_less_than_the_disk_takes():
    held, default, often = saving.measure(small=True)
    assert held.ours < held.rival
    assert default.ratio < often.ratio and default.ours == held.ours
    assert "saves in" in often.note
