"""The command line gives each training its share of the limit, and records the time that each stage used."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from training.budget import account as accounts
from training.budget import book as books
from training.budget import limit as limits
from training.budget.account import ledger_path
from training.cli import main
from training.engine.loop.progress import ALL_STEPS, OUT_OF_BUDGET
from training.errors import DataError, ExportError, TrainingError
from training.stages import trial
from training.workspace import Workspace

LIMIT = ["--max-hours=1", "--price-per-hour=2"]


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """stage(verb, *arguments) -> (exit code, the keywords that the stage was called with); `ends`: how it ends."""
    monkeypatch.setattr(limits, "gpus", list)
    monkeypatch.setattr(accounts, "slowness", lambda: 1.0)
    monkeypatch.setattr(trial, "trial", lambda: 9.0)
    monkeypatch.delenv("ATHANOR_RUNNER", raising=False)
    calls = []

    def stand_in(ends):
        def work(*arguments, **keywords):
            calls.append((arguments, keywords))
            if isinstance(ends, Exception):
                raise ends
            return SimpleNamespace(
                finished=ends, already=False, step=1, epoch=1, seconds=1.0, best=tmp_path, run=tmp_path,
                metrics={"val_loss": 1.0},
            )  # fmt: skip

        return work

    def call(verb, *arguments, ends=ALL_STEPS):
        calls.clear()
        monkeypatch.setattr(f"training.stages.{verb}.{verb}", stand_in(ends))
        out = [] if verb == "verify" else ["--out", str(tmp_path)]
        code = main([verb, *arguments, *out])
        return code, calls[0][1] if calls else None

    return call


def job(tmp_path):
    return books.read(ledger_path(Workspace(tmp_path))).job


def test_training_gets_its_share_and_the_limit(stage, tmp_path):
    code, arguments = stage("train", "spectocloud", "--preset=debug", "--families-left=2", *LIMIT)
    assert code == 0 and arguments["limit"] == 3600.0
    assert 1000 < arguments["left"]() < 1800
    _, arguments = stage("train", "midi_generator", "--preset=debug", *LIMIT)
    assert 3000 < arguments["left"]() < 3600
    assert [(s.stage, s.families, s.exit, s.price) for s in job(tmp_path).sessions] == [
        ("trial", (), 0, 2.0),
        ("train", ("spectocloud",), 0, 2.0),
        ("train", ("midi_generator",), 0, 2.0),
    ]


def test_without_a_limit_training_gets_no_limit_and_is_counted(stage, tmp_path):
    _, arguments = stage("train", "spectocloud", "--preset=debug")
    assert arguments["left"] is None and arguments["limit"] is None
    assert len(job(tmp_path).sessions) == 1


def test_a_training_that_its_limit_ended_leaves_the_job_open(stage, tmp_path, capsys):
    stage("train", "spectocloud", "--preset=debug", *LIMIT, ends=OUT_OF_BUDGET)
    main(["budget", "--done", "--out", str(tmp_path)])
    stage("train", "spectocloud", "--preset=debug", "--max-hours=2")
    assert [s.stage for s in job(tmp_path).sessions] == ["trial", "train", "train"]
    main(["budget", "--done", "--out", str(tmp_path)])


def test_a_finished_job_is_followed_by_a_new_one(stage, tmp_path):
    stage("train", "spectocloud", "--preset=debug", *LIMIT)
    main(["budget", "--done", "--out", str(tmp_path)])
    stage("train", "spectocloud", "--preset=debug", *LIMIT)
    assert len(job(tmp_path).sessions) == 1


def test_ranks_other_than_0_neither_record_time_nor_decide(stage, tmp_path, monkeypatch):
    """Nor do they look up a price: a host without the table must not end them."""
    monkeypatch.setenv("RANK", "1")
    code, arguments = stage("train", "spectocloud", "--preset=debug", "--budget-usd=1")
    assert code == 0 and arguments["left"]() == math.inf and arguments["limit"] == math.inf
    assert not ledger_path(Workspace(tmp_path)).exists()


def test_a_stage_that_fails_is_counted_with_its_exit_code(stage, tmp_path):
    assert stage("evaluate", "spectocloud", ends=DataError("nothing there"))[0] == 3
    assert job(tmp_path).sessions[0].exit == 3


def test_what_each_family_cost_goes_into_the_receipt(stage, tmp_path):
    _, arguments = stage("export", *LIMIT)
    assert set(arguments["cost"]) >= {"spectocloud", "midi_generator"}
    assert all(cost["currency"] == "USD" and cost["money"] >= 0 for cost in arguments["cost"].values())
    _, arguments = stage("export", "--max-hours=1")
    assert arguments["cost"]["spectocloud"]["currency"] == "USD"  # at the price that the job was counted at


def test_verification_is_counted_beside_a_ledger_and_nowhere_else(stage, tmp_path):
    (tmp_path / "exports").mkdir()
    assert stage("verify", str(tmp_path / "exports"))[0] == 0
    assert not (tmp_path / "runs").exists()
    stage("export")
    stage("verify", str(tmp_path / "exports"), *LIMIT)
    assert [s.stage for s in job(tmp_path).sessions] == ["export", "verify"]


def test_a_host_is_timed_once_and_only_where_there_is_a_limit_to_keep(stage, tmp_path):
    def stages():
        return [session.stage for session in job(tmp_path).sessions]

    stage("train", "spectocloud", "--preset=debug")
    assert stages() == ["train"]
    for _ in range(2):
        stage("train", "spectocloud", "--preset=debug", *LIMIT)
    assert stages() == ["train", "trial", "train", "train"]


def test_a_host_on_which_a_fixed_export_fails_is_refused_before_anything_is_trained(stage, tmp_path, monkeypatch):
    def broken():
        raise ExportError("A fixed export ended with exit code 1")

    monkeypatch.setattr(trial, "trial", broken)
    code, arguments = stage("train", "spectocloud", "--preset=debug", *LIMIT)
    assert code == ExportError.exit_code and arguments is None


def test_a_limit_that_leaves_no_time_is_refused_with_what_to_do(stage, tmp_path, capsys):
    code, arguments = stage("train", "spectocloud", "--preset=debug", "--max-hours=0.001")
    assert code == TrainingError.exit_code and arguments is None
    output = capsys.readouterr().err
    assert "leaves no time to train" in output and "--max-hours 0." in output and "--resume never" in output
