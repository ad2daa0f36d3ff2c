"""The estimate's benchmark trains what it estimated."""

from benchmarks import estimate


def test_the_predicted_duration_is_compared_with_the_actual_one():
    rows = estimate.measure(small=True)
    assert [row.bar for row in rows] == ["E1", "E2"]
    for row in rows:
        assert row.ours > 0 and row.reference > 0 and "4 steps" in row.note
        assert row.ratio == abs(row.reference / row.ours - 1)
