"""A job with a limit, on hosts of several speeds, by a clock that only its stages move: the reserve is no less than the
last stages take, and at most 1.3 times that; all other time is used for training."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.budget.jobs import FAMILIES, book_of, trained, work
from training.budget import account as accounts
from training.budget import ending as endings
from training.budget import reserve as reserves
from training.budget.account import counted
from training.budget.ending import STAGES, Ending, Line
from training.budget.limit import HOUR, Limit
from training.workspace import Workspace

END = Ending(
    evaluate=Line(10.0, 15.0), export=Line(16.0, 8.0), verify=Line(4.0, 1.0), baseline_share=0.2,
    baseline_most=Line(8.0, 22.0), millions=1.0,
)  # fmt: skip
ENDINGS = {"one": END, "two": replace(END, evaluate=Line(20.0, 10.0), baseline_share=0.0, millions=0.5)}
STEP = 20.0  # seconds of training after which the remaining time is read
LOADING = 8.0  # seconds of a training before its first step
MEGABYTES = {"one": 16.0, "two": 8.0}


class Host:
    """A host on which everything takes `speed` times as long as on the reference cores, and the last stages `off` times
    as long as the families state."""

    def __init__(self, folder, clock, speed, off=1.0):
        self.space, self.clock, self.speed, self.off = Workspace(folder), clock, speed, off

    def run(self, hours):
        """(seconds of the job, seconds of its last stages, the reserve, seconds of training of each family)"""
        limit, began, seconds = Limit(hours=hours), self.clock.now, {}
        work(self.space, self.clock, reserves.TRIAL, self.speed * reserves.TRIAL_SECONDS, limit=limit)
        for at, family in enumerate(FAMILIES):
            seconds[family] = self._train(family, len(FAMILIES) - at, limit)
        kept = sum(book_of(self.space).job.sessions[-1].kept.values())
        ended = self.clock.now
        for stage in STAGES:
            for families in [[family] for family in FAMILIES] if stage == "evaluate" else [FAMILIES]:
                due = [reserves.Due(ENDINGS[name], ENDINGS[name].millions, seconds[name]) for name in families]
                takes = self.speed * self.off * reserves.expected(stage, due)
                work(self.space, self.clock, stage, takes, families, limit, endings=ENDINGS)
                own = reserves.PROCESS if stage == "evaluate" else reserves.COMMON_PROCESSES / 3
                self.clock.advance(self.speed * own)
        self.clock.advance(self.speed * reserves.COMMON_PROCESSES / 3)  # the end of the count
        return self.clock.now - began, self.clock.now - ended, kept, seconds

    def _train(self, family, families_left, limit):
        with counted(self.space, "train", [family], limit, endings=ENDINGS) as account:
            left = account.training_left(family, families_left, [name for name in FAMILIES if name != family])
            self.clock.advance(self.speed * LOADING)
            trained(self.space, family, MEGABYTES[family])
            while (seconds := left()) > 0.1:
                self.clock.advance(min(seconds, STEP))
            return account.ledger.trained(family)


@pytest.mark.parametrize("seen", [1.0, 0.5], ids=["seen by the core", "half of it seen"])
@pytest.mark.parametrize("speed", [0.5, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("spare", [40.0, 200.0, 1000.0], ids=["tight", "half", "ample"])
def test_a_budget_is_kept_and_used(tmp_path, clock, monkeypatch, spare, speed, seen):
    monkeypatch.setattr(endings, "_has_gpu", lambda: False)
    monkeypatch.setattr(accounts, "slowness", lambda: seen * speed)
    hours = speed * (9 + 170 + spare) / HOUR
    took, ending, kept, seconds = Host(tmp_path, clock, speed).run(hours)
    assert ending <= kept <= 1.3 * ending
    assert took <= hours * HOUR
    assert seconds["one"] == pytest.approx(seconds["two"], rel=0.1)
    assert sum(seconds.values()) == pytest.approx(hours * HOUR - kept - 9 * speed, rel=0.02)


@pytest.mark.parametrize("off", [0.9, 1.12])
def test_last_stages_a_tenth_quicker_or_slower_than_stated_are_within_the_margin(tmp_path, clock, monkeypatch, off):
    monkeypatch.setattr(endings, "_has_gpu", lambda: False)
    took, ending, kept, _ = Host(tmp_path, clock, 1.0, off).run(0.2)
    assert ending <= kept <= 1.3 * ending and took <= 0.2 * HOUR
