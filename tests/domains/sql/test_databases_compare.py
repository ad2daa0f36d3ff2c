"""When two results are the same: repetitions, order, ties, columns in another order, floats."""

from __future__ import annotations

import random
import time

import pytest

from training.domains.sql.databases.compare import same_rows, same_set
from training.domains.sql.databases.execution import Result

NAN = float("nan")


def result(*rows, width=None):
    width = len(rows[0]) if rows else width or 1
    return Result(tuple(f"c{n}" for n in range(width)), tuple(rows), None, 0.0)


FAILED = Result((), None, "timeout", 1.0)


@pytest.mark.parametrize(
    ("gold", "other", "same"),
    [
        ([(1, "a"), (2, "b")], [(2, "b"), (1, "a")], True),  # rows in another order
        ([(1, "a"), (2, "b")], [("a", 1), ("b", 2)], True),  # columns in another order
        ([(1, "a"), (2, "b")], [("b", 1), ("a", 2)], False),  # the same columns, but other rows
        ([(1,), (1,), (2,)], [(1,), (2,), (2,)], False),  # repetitions count
        ([(1,), (1,)], [(1,)], False),
        ([(1, 1)], [(1,)], False),
        ([(1,)], [(1.0,)], True),
        ([(1,)], [(True,)], True),
        ([(1,)], [("1",)], False),
        ([(None,)], [(0,)], False),
        ([(None,)], [("",)], False),
        ([(None, 1)], [(None, 1)], True),
        ([("a",)], [(b"a",)], False),
        ([(0.1 + 0.2,)], [(0.3,)], True),
        ([(100.0,)], [(100.001,)], False),
        ([(2.5,)], [(2.5000001,)], True),
        ([(10_000_001,)], [(10_000_002,)], False),  # integers are never nearly equal
        ([(10_000_001.0,)], [(10_000_002.0,)], False),
        ([(0.0,)], [(1e-9,)], False),
        ([(0.1 + 0.2 - 0.3,)], [(0,)], True),  # what summing leaves where the sum is 0
        ([(NAN,)], [(NAN,)], True),
        ([(float("inf"),)], [(float("-inf"),)], False),
        ([(0.3, "b"), (0.1 + 0.2, "a")], [(0.3, "a"), (0.3, "b")], True),  # sorted by the float, they pair wrongly
        ([(1, 2), (2, 1)], [(1, 2), (2, 1)], True),
        ([(1, 2), (2, 3), (3, 1)], [(2, 1), (3, 2), (1, 3)], True),  # columns with the same values
        ([(1, 2), (2, 3), (3, 1)], [(1, 3), (2, 1), (3, 3)], False),
        # each column and each row has the same values, but the rows differ
        (
            [(1, 2, 3), (2, 3, 1), (3, 1, 2)] * 2,
            [(1, 2, 3), (2, 3, 1), (3, 1, 2), (1, 3, 2), (3, 2, 1), (2, 1, 3)],
            False,
        ),
    ],
)
def test_results_as_multisets(gold, other, same):
    assert same_rows(result(*gold), result(*other), ordered=False) is same
    assert same_rows(result(*other), result(*gold), ordered=False) is same


@pytest.mark.parametrize(
    ("other", "ties", "same"),
    [
        ([("a", 3), ("b", 2), ("c", 2), ("d", 1)], None, True),
        ([("a", 3), ("c", 2), ("b", 2), ("d", 1)], None, False),
        ([("a", 3), ("c", 2), ("b", 2), ("d", 1)], (1,), True),
        ([(3, "a"), (2, "c"), (2, "b"), (1, "d")], (1,), True),  # with the columns in another order too
        ([("c", 2), ("a", 3), ("b", 2), ("d", 1)], (1,), False),
        ([("a", 3), ("c", 2), ("b", 2), ("d", 1)], (1, 0), False),
        ([("d", 1), ("c", 2), ("b", 2), ("a", 3)], (1,), False),
    ],
)
def test_results_in_order(other, ties, same):
    gold = result(("a", 3), ("b", 2), ("c", 2), ("d", 1))
    assert same_rows(gold, result(*other), ordered=True, ties=ties) is same
    assert same_rows(gold, result(*other), ordered=False)


def test_errors_and_empty_results():
    assert not same_rows(FAILED, FAILED, ordered=False)
    assert not same_rows(result((1,)), FAILED, ordered=False)
    assert same_rows(result(width=2), result(width=2), ordered=True)
    assert not same_rows(result(width=2), result(width=1), ordered=False)
    assert not same_set(FAILED, FAILED)


def test_the_criterion_of_bird_passes_what_the_multiset_does_not():
    assert same_set(result((1,), (1,), (2,)), result((2,), (1,)))
    assert not same_set(result((1, "a")), result(("a", 1)))


@pytest.mark.parametrize("seed", range(30))
def test_a_permuted_result_is_the_same_and_a_changed_one_is_not(seed):
    rng = random.Random(seed)
    width, length = rng.randint(1, 7), rng.randint(1, 30)
    values = [rng.choice([1, 2, 2.5, "a", "b", None]) for _ in range(rng.randint(2, 6))]
    rows = [tuple(rng.choice(values) for _ in range(width)) for _ in range(length)]
    order = rng.sample(range(width), width)
    moved = [tuple(row[column] for column in order) for row in rng.sample(rows, length)]
    assert same_rows(result(*rows), result(*moved), ordered=False)
    place, column = rng.randrange(length), rng.randrange(width)
    changed = [list(row) for row in moved]
    changed[place][column] = "other"
    assert not same_rows(result(*rows), result(*map(tuple, changed)), ordered=False)


@pytest.mark.parametrize("same", [True, False])
def test_many_columns_with_the_same_values_take_no_time(same):
    """Twelve columns that are permutations of each other: 12! orders would be 479 million."""
    rng = random.Random(1)
    columns = [rng.sample(range(60), 60) for _ in range(12)]
    other = [columns[n] for n in rng.sample(range(12), 12)]
    if not same:
        other[5] = rng.sample(range(60), 60)
    gold = result(*zip(*columns, strict=True))
    began = time.process_time()
    assert same_rows(gold, result(*rng.sample(list(zip(*other, strict=True)), 60)), ordered=False) is same
    assert same_rows(result(*[(1,) * 12] * 50), result(*[(1,) * 12] * 50), ordered=False)
    assert time.process_time() - began < 2
