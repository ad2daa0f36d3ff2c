"""Bar 8 is measured on complete processes, each of which resumes where the previous one stopped."""

from benchmarks import startup


def test_help_is_fast_and_a_resume_trains():
    rows = startup.measure(small=True)
    assert [row.bar for row in rows] == ["8a", "8c"]
    assert all(0.05 < row.ours == row.ratio for row in rows)
    assert rows[0].ours < rows[1].ours, "help needs no torch"
