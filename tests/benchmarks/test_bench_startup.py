"""Bar 8 is measured on whole processes that go on where the one before stopped."""

from benchmarks import startup


def test_help_comes_at_once_and_a_resume_trains():
    rows = startup.measure(small=True)
    assert [row.bar for row in rows] == ["8a", "8c"]
    assert all(0.05 < row.ours == row.ratio for row in rows)
    assert rows[0].ours < rows[1].ours, "help needs no torch"
