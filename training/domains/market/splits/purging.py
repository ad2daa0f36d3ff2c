"""Splits in time in which no label of a fitted decision overlaps one of a held-out decision.

A decision spans the time from `decided` to `ends`. What is fitted keeps three rules (Lopez de Prado 2018, chapter 7):
its span overlaps the span of no held-out decision; it is not among the `purge` decisions before a held-out block; and
not among the `embargo` decisions after the end of its last label, whose features still contain that time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np

PURGE = 60  # decisions
EMBARGO = 1_440  # decisions
SHARES = (0.70, 0.15, 0.15)  # train, val, test

Fold = tuple[np.ndarray, np.ndarray]  # int64 indices: fitted, held out


@dataclass(frozen=True, eq=False)
class Spans:
    """The spans of decisions: int64 [N] each, `begins` ascending."""

    begins: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.begins)

    def take(self, index: np.ndarray) -> Spans:
        return Spans(self.begins[index], self.ends[index])

    def usable(self, first: int, last: int, purge: int, embargo: int) -> np.ndarray:
        """Which decisions may be fitted if those from `first` to before `last` are held out: bool [N]."""
        begin, end = self.begins[first], self.ends[first:last].max()
        out = np.ones(len(self), bool)
        out[max(0, first - purge) : last] = False
        out[:first] &= self.ends[:first] <= begin
        after = int(np.searchsorted(self.begins, end))  # the first that begins when the last label has ended
        out[last : max(last, after + embargo)] = False
        return out


def split_in_time(spans: Spans, day: np.ndarray, purge: int = PURGE, embargo: int = EMBARGO) -> dict[str, np.ndarray]:
    """Split -> indices of its decisions, int64: train, val and test, one after the other.

    A border is the beginning of a trading day. Left out are decisions whose label reaches over a border, the last
    `purge` before it, and the first `embargo` after it. `day`: int [N], ascending.
    """
    count = len(spans)
    borders = [_day_begin(day, round(count * share)) for share in np.cumsum(SHARES)[:-1]]
    edges = [0, *borders, count]
    out = {}
    for number, name in enumerate(("train", "val", "test")):
        first, last = edges[number], edges[number + 1]
        keep = np.arange(first + (embargo if number else 0), max(last - (purge if last < count else 0), 0))
        if last < count:
            keep = keep[spans.ends[keep] <= spans.begins[last]]
        out[name] = keep
    return out


def _day_begin(day: np.ndarray, index: int) -> int:
    return int(np.searchsorted(day, day[min(index, len(day) - 1)]))


def blocks(count: int, parts: int) -> list[tuple[int, int]]:
    """`parts` contiguous blocks (first, after the last) of about equal length."""
    edges = [round(count * part / parts) for part in range(parts + 1)]
    return list(pairwise(edges))


def folds(spans: Spans, parts: int, purge: int = PURGE, embargo: int = EMBARGO) -> list[Fold]:
    """Purged k-fold: each block is held out once."""
    return [
        (np.flatnonzero(spans.usable(first, last, purge, embargo)), np.arange(first, last))
        for first, last in blocks(len(spans), parts)
    ]


def walk_forward(spans: Spans, parts: int, purge: int = PURGE, embargo: int = EMBARGO) -> list[Fold]:
    """Each block but the first is held out, and what lies before it is fitted."""
    out = []
    for first, last in blocks(len(spans), parts + 1)[1:]:
        usable = spans.usable(first, last, purge, embargo)
        usable[first:] = False
        out.append((np.flatnonzero(usable), np.arange(first, last)))
    return out


@dataclass(frozen=True, eq=False)
class Combinatorial:
    """Combinatorial purged cross-validation (Lopez de Prado 2018, chapter 12).

    `groups`: bounds of the blocks. `splits`: for each, the held-out blocks. `paths`: int [paths, groups], the split
    from which a path takes its predictions of each block.
    """

    spans: Spans
    groups: list[tuple[int, int]]
    splits: list[tuple[int, ...]]
    paths: np.ndarray
    usable: np.ndarray  # bool [groups, N]: which decisions may be fitted if a block is held out

    def __iter__(self) -> Iterator[Fold]:
        for held in self.splits:
            fit = np.logical_and.reduce(self.usable[list(held)])
            yield np.flatnonzero(fit), np.concatenate([np.arange(*self.groups[block]) for block in held])


def combinatorial(
    spans: Spans, parts: int = 6, held: int = 2, purge: int = PURGE, embargo: int = EMBARGO
) -> Combinatorial:
    """Every choice of `held` of `parts` blocks is held out once: binomial(parts, held) splits. With 6 and 2: 15 splits,
    5 paths."""
    groups = blocks(len(spans), parts)
    splits = list(combinations(range(parts), held))
    paths = np.empty((math.comb(parts - 1, held - 1), parts), np.int64)
    seen = [0] * parts
    for number, chosen in enumerate(splits):
        for block in chosen:
            paths[seen[block], block] = number
            seen[block] += 1
    usable = np.stack([spans.usable(first, last, purge, embargo) for first, last in groups])
    return Combinatorial(spans, groups, splits, paths, usable)


def overlapping(first: Spans, second: Spans) -> int:
    """How many spans of `second` overlap a span of `first`. This checks a split however it was made."""
    if not len(first) or not len(second):
        return 0
    order = np.argsort(first.begins, kind="stable")
    begins = first.begins[order]
    latest = np.maximum.accumulate(first.ends[order])  # of all that begin up to each
    before = np.searchsorted(begins, second.ends, side="left")  # those that begin before a span ends
    return int(((before > 0) & (latest[np.maximum(before - 1, 0)] > second.begins)).sum())
