"""Whether two results are the same: as multisets of rows, in order where it counts, with columns in any order."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise

from training.domains.sql.databases.execution import Result

#: Numbers of which at least one is no integer are equal within this relative difference: sums of floats depend on the
#: order of summation. Integers, and floats of integral value, are equal only if they are the same number.
TOLERANCE = 1e-6
#: And within this absolute one: 0.1 + 0.2 - 0.3 is no 0.
SMALLEST = 1e-12
#: Extensions of a partial assignment of columns that are tried before two results are declared different.
_MAX_STEPS = 2_000
_EXACT = 2.0**53  # beyond, a float is no exact integer


def same_rows(gold: Result, other: Result, ordered: bool, ties: Sequence[int] | None = None) -> bool:
    """Whether `other` has the rows of `gold`, each as often, with the columns in some order.

    Args:
        ordered: the order of the rows counts.
        ties: columns of `gold` by which it is ordered, if they are known: rows that are equal in them may be in any
            order among each other. Ignored unless `ordered`.

    NULL equals NULL alone; 1 equals 1.0 and true; a text never equals a number. A result with an error equals nothing.
    """
    if gold.rows is None or other.rows is None:
        return False
    width = len(gold.columns)
    if width != len(other.columns) or len(gold.rows) != len(other.rows):
        return False
    if not gold.rows:
        return True
    codes = _Codes(gold.rows, other.rows)
    expected, found = codes.rows(gold.rows), codes.rows(other.rows)
    if expected == found:
        return True
    if not ordered:
        runs = [0] * len(expected)
    elif ties is None:
        runs = list(range(len(expected)))
    else:
        runs = _runs(expected, ties)
    return _same_under_a_permutation(expected, found, runs, width)


def same_set(gold: Result, other: Result) -> bool:
    """BIRD's criterion: equal as sets of rows, with the columns as they are. It ignores order and repetitions, so it
    accepts a missing or superfluous DISTINCT. Li et al. 2023, "Can LLM Already Serve as A Database Interface?"."""
    if gold.rows is None or other.rows is None:
        return False
    return set(gold.rows) == set(other.rows)


def _runs(rows: Sequence[tuple[int, ...]], keys: Sequence[int]) -> list[int]:
    """For each row the number of its run: consecutive rows that are equal in the columns `keys`."""
    runs = [0]
    for before, row in pairwise(rows):
        runs.append(runs[-1] + any(before[key] != row[key] for key in keys))
    return runs


class _Codes:
    """Integers for the values of two results: equal values have equal codes."""

    def __init__(self, *results: Sequence[tuple]):
        self._codes: dict[tuple[str, object], int] = {}
        numbers = {value for rows in results for row in rows for value in row if _is_number(value)}
        self._number = _clusters(numbers)

    def rows(self, rows: Sequence[tuple]) -> list[tuple[int, ...]]:
        """The rows with their codes in place of the values."""
        return [tuple(map(self._code, row)) for row in rows]

    def _code(self, value: object) -> int:
        if _is_number(value):
            key = ("number", self._number[value])
        elif isinstance(value, float):
            key = ("nan", None)
        else:
            key = (type(value).__name__, value)
        return self._codes.setdefault(key, len(self._codes))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and value == value  # NaN differs from itself


def _clusters(numbers: set[int | float]) -> dict[int | float, int]:
    """number -> the number of its cluster. A cluster is at most TOLERANCE wide, so that a dense sequence of numbers is
    not one chain. Python's 1, 1.0 and True are one key."""
    clusters: dict[int | float, int] = {}
    first = before = None
    count = 0
    for number in sorted(numbers):
        if first is None or not (_close(before, number) and _close(first, number)):
            first = number
            count += 1
        clusters[number] = count
        before = number
    return clusters


def _close(a: int | float, b: int | float) -> bool:
    return not (_integral(a) and _integral(b)) and math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=SMALLEST)


def _integral(number: int | float) -> bool:
    return isinstance(number, int) or (abs(number) < _EXACT and number.is_integer())


# -- the order of the columns ----------------------------------------------------------------------------------------


def _same_under_a_permutation(
    expected: list[tuple[int, ...]], found: list[tuple[int, ...]], runs: list[int], width: int
) -> bool:
    """Whether some order of `found`'s columns makes it equal to `expected`, rows being permuted within runs.

    Trying all orders is n!. A column can only stand for one with the same multiset of (run, values of its row in any
    order, value), which leaves one candidate nearly always. Where several are left, the columns are assigned one by
    one, and the rows so far are compared after each, so that a wrong choice ends early.
    """
    left, right = _signatures(expected, runs), _signatures(found, runs)
    candidates = defaultdict(list)
    columns = list(zip(*found, strict=True))
    for column, signature in enumerate(right):
        # of columns that are equal row by row, any is as good as another
        candidates[signature].append((column, columns[column]))
    # those with the fewest candidates first: they distinguish the rows for the others
    order = sorted(range(width), key=lambda column: len(candidates[left[column]]))
    search = _Search([candidates[left[column]] for column in order], expected, order)
    return search.assign(0, runs, runs, frozenset())


def _signatures(rows: Sequence[tuple[int, ...]], runs: Sequence[int]) -> list[int]:
    """A hash for each column that does not depend on the order of the columns, nor on that of rows in a run."""
    kinds = [hash((run, tuple(sorted(row)))) for run, row in zip(runs, rows, strict=True)]
    columns = zip(*rows, strict=True)
    return [hash(frozenset(Counter(zip(kinds, column, strict=True)).items())) for column in columns]


class _Search:
    """Assigns columns of one result to those of the other."""

    def __init__(self, candidates: list[list[tuple[int, tuple]]], expected: list[tuple[int, ...]], order: list[int]):
        self._candidates = candidates
        self._columns = [[row[column] for row in expected] for column in order]
        self._steps = 0

    def assign(self, depth: int, left: Sequence, right: Sequence, used: frozenset[int]) -> bool:
        """Whether the columns from `depth` on can be assigned. `left`, `right`: the rows of the columns assigned so
        far, as nested pairs."""
        if depth == len(self._columns):
            return True
        extended = list(zip(left, self._columns[depth], strict=True))
        counts = Counter(extended)
        tried: list[tuple] = []
        for column, values in self._candidates[depth]:
            if column in used or values in tried:
                continue
            self._steps += 1
            if self._steps > _MAX_STEPS:
                return False
            tried.append(values)
            other = list(zip(right, values, strict=True))
            if Counter(other) == counts:
                # numbers in place of the pairs: their depth would grow with the columns
                names = {pair: number for number, pair in enumerate(counts)}
                if self.assign(depth + 1, [names[p] for p in extended], [names[p] for p in other], used | {column}):
                    return True
        return False
