"""Splits against their definition, on 200 random sets."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest

from training.domains.market.splits.overfitting import overfitting
from training.domains.market.splits.purging import (
    Spans,
    combinatorial,
    folds,
    overlapping,
    split_in_time,
    walk_forward,
)


def random_spans(random: np.random.Generator, count: int | None = None) -> Spans:
    count = count or int(random.integers(30, 120))
    begins = np.sort(random.integers(0, 400, count))
    return Spans(begins, begins + random.integers(1, 40, count))


def allowed(spans: Spans, held: list[tuple[int, int]], purge: int, embargo: int) -> set[int]:
    """The definition, row by row."""
    out = set()
    for i in range(len(spans)):
        good = True
        for first, last in held:
            inside = first <= i < last
            overlaps = any(
                spans.begins[i] < spans.ends[j] and spans.begins[j] < spans.ends[i] for j in range(first, last)
            )
            end = max(spans.ends[first:last])
            later = [k for k in range(len(spans)) if spans.begins[k] >= end]
            near = first - purge <= i < first or (i >= last and i in later[:embargo]) or (i >= last and i not in later)
            good &= not (inside or overlaps or near)
        if good:
            out.add(i)
    return out


def test_folds_equal_their_definition_on_200_random_sets():
    random = np.random.default_rng(0)
    for _ in range(200):
        spans = random_spans(random)
        purge, embargo = int(random.integers(0, 6)), int(random.integers(0, 12))
        parts = int(random.integers(2, 6))
        found = folds(spans, parts, purge, embargo)
        assert np.concatenate([held for _, held in found]).tolist() == list(range(len(spans)))
        for fit, held in found:
            assert set(fit.tolist()) == allowed(spans, [(held[0], held[-1] + 1)], purge, embargo)
            assert overlapping(spans.take(fit), spans.take(held)) == 0
        for fit, held in walk_forward(spans, parts, purge, embargo):
            expected = {i for i in allowed(spans, [(held[0], held[-1] + 1)], purge, embargo) if i < held[0]}
            assert set(fit.tolist()) == expected


def test_combinatorial_splits_equal_their_definition_on_200_random_sets():
    random = np.random.default_rng(1)
    for _ in range(200):
        spans = random_spans(random, int(random.integers(30, 60)))
        purge, embargo = int(random.integers(0, 4)), int(random.integers(0, 5))
        found = combinatorial(spans, 4, 2, purge, embargo)
        for chosen, (fit, held) in zip(found.splits, found, strict=True):
            groups = [found.groups[block] for block in chosen]
            assert set(fit.tolist()) == allowed(spans, groups, purge, embargo)
            assert sorted(held.tolist()) == [i for first, last in groups for i in range(first, last)]
            assert overlapping(spans.take(fit), spans.take(held)) == 0


def test_six_over_two_are_15_splits_and_5_paths_that_hold_out_every_block_once():
    found = combinatorial(random_spans(np.random.default_rng(2), 100))
    assert len(found.splits) == 15
    assert found.paths.shape == (5, 6)
    for path in found.paths:
        for block, split in enumerate(path.tolist()):
            assert block in found.splits[split]
    for block in range(6):
        assert len(set(found.paths[:, block].tolist())) == 5


def test_overlaps_are_counted_as_defined_on_200_random_sets():
    random = np.random.default_rng(3)
    for _ in range(200):
        first, second = random_spans(random, 20), random_spans(random, 20)
        expected = sum(
            any(first.begins[i] < second.ends[j] and second.begins[j] < first.ends[i] for i in range(20))
            for j in range(20)
        )
        assert overlapping(first, second) == expected


def test_train_val_and_test_follow_each_other_with_days_intact_and_a_distance():
    random = np.random.default_rng(4)
    begins = np.arange(20_000) * 5
    spans = Spans(begins, begins + random.integers(1, 250, 20_000))
    day = (begins // 1_440).astype(np.int32)
    found = split_in_time(spans, day)
    assert [len(found[name]) > 1_000 for name in ("train", "val", "test")] == [True] * 3
    for before, after in combinations(("train", "val", "test"), 2):
        assert overlapping(spans.take(found[before]), spans.take(found[after])) == 0
        assert not set(day[found[before]].tolist()) & set(day[found[after]].tolist())
        assert found[after][0] - found[before][-1] > 1_440 + 60 - 1
    assert abs(len(found["train"]) - 14_000) < 600
    assert found["test"][-1] == 19_999


def test_a_label_longer_than_the_purge_that_reaches_over_a_border_is_left_out():
    begins = np.arange(20_000) * 5
    spans = Spans(begins, begins + 5)
    day = (begins // 1_440).astype(np.int32)
    (first, second) = (found[0] for found in list(split_in_time(spans, day, 0, 0).values())[1:])
    long = np.array([first - 400, second - 400])
    spans.ends[long] = [begins[first] + 5, begins[second]]  # over the first border, and up to the second
    found = split_in_time(spans, day, 0, 0)
    assert long[0] not in found["train"] and long[1] in found["val"]
    assert len(found["train"]) == first - 1


def test_without_purging_overlaps_are_seen():
    spans = Spans(np.arange(100), np.arange(100) + 5)
    assert overlapping(spans.take(np.arange(50)), spans.take(np.arange(50, 100))) == 4


def plain_pbo(returns: np.ndarray, parts: int) -> float:
    blocks = np.array_split(returns, parts)
    below = []
    for half in combinations(range(parts), parts // 2):
        inside = np.concatenate([blocks[i] for i in half])
        outside = np.concatenate([blocks[i] for i in range(parts) if i not in half])
        best = (inside.mean(0) / inside.std(0)).argmax()
        sharpe = outside.mean(0) / outside.std(0)
        rank = (sharpe <= sharpe[best]).sum() / (returns.shape[1] + 1)
        below.append(math.log(rank / (1 - rank)) <= 0)
    return float(np.mean(below))


def test_the_probability_of_overfitting_equals_its_definition():
    random = np.random.default_rng(5)
    for strategies in (2, 5, 9):
        returns = random.standard_normal((96, strategies))
        assert overfitting(returns, 8).probability == pytest.approx(plain_pbo(returns, 8))


def test_a_real_edge_is_not_overfitting_and_noise_is_a_coin():
    random = np.random.default_rng(6)
    noise = random.standard_normal((320, 20))
    assert 0.2 < np.mean([overfitting(random.standard_normal((320, 20))).probability for _ in range(5)]) < 0.8
    noise[:, 3] += 0.5
    assert overfitting(noise).probability < 0.01


def test_too_few_days_are_refused():
    with pytest.raises(ValueError, match="do not suffice"):
        overfitting(np.zeros((10, 3)))
