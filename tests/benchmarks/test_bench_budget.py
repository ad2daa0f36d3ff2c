"""The budget's benchmark compares the time reserved for the end of a job with the time that the end took."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.budget import Done, rows

STAGES = {"Look": 5.0, "Train one": 100.0, "Train two": 100.0, "Evaluate one": 10.0, "Evaluate two": 20.0,
          "Export": 40.0, "Verify": 8.0}  # fmt: skip
DONE = Done(
    budget=300.0, code=0, seconds=285.0, stages=STAGES, steps=("9 steps, the budget is used up",),
    kept={"one": 36.0, "two": 60.0}, exports={"one": 14.0, "two": 20.0},
)  # fmt: skip


def test_the_end_begins_after_the_last_training_and_is_divided_among_the_families():
    assert DONE.ending == 80.0 and DONE.trained == 200.0
    assert DONE.ending_of("one") + DONE.ending_of("two") == pytest.approx(DONE.ending)
    assert DONE.ending_of("one") == pytest.approx(10 + 14 + (80 - 64) / 2)


def test_a_reserve_that_is_too_large_or_too_small_and_an_overrun_are_missed():
    held, kept = rows("half", 2, DONE)[:2]
    assert (held.met, kept.met, kept.ratio) == (True, True, pytest.approx(1.2))
    assert "70% of the time trained (9 steps, the budget is used up)" in held.note
    assert rows("half", 2, replace(DONE, kept={"one": 70.0, "two": 60.0}))[1].met is False
    assert rows("half", 2, replace(DONE, kept={"one": 19.0, "two": 60.0}))[1].met is False
    assert rows("half", 2, replace(DONE, budget=284.0))[0].met is False
    assert [row.met for row in rows("half", 2, replace(DONE, code=4))] == [False]
