"""The estimate's benchmark trains what it estimated."""

from benchmarks import estimate


def test_what_is_predicted_stands_beside_what_was_taken():
    rows = estimate.measure(small=True)
    assert [row.bar for row in rows] == ["E1", "E2"]
    for row in rows:
        assert row.ours > 0 and row.rival > 0 and "4 steps" in row.note
        assert row.ratio == abs(row.rival / row.ours - 1)
