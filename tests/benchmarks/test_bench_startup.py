"""Bar 8 is measured on complete processes; each training resumes where the previous one stopped."""

from benchmarks import startup


def test_help_is_faster_than_the_first_step_of_a_resumed_training():
    rows = startup.measure(small=True)
    assert [row.bar for row in rows] == ["8a", "8c"]
    assert all(0.05 < row.ours == row.ratio for row in rows)
    assert rows[0].ours < rows[1].ours, "help needs no torch"
