"""--session-ends and --wandb: what they mean, and that a stage is stopped, saved and copied when the time has come."""

from __future__ import annotations

import json
import re
import time
from datetime import datetime, timedelta

import pytest

from training.errors import UsageError
from training.registry import domains
from training.runner.options import parse
from training.runner.plan import plan_of
from training.runner.shell import script
from training.runner.values import moment

from .supervised import SAVES

NOW = datetime.fromisoformat("2026-12-01T17:00:00+01:00")


def at(text):
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("given", "means"),
    [
        ("18:30", "2026-12-01T18:30:00+01:00"),
        ("9:05", "2026-12-02T09:05:00+01:00"),  # the next one
        ("2026-12-01T18:30:00+01:00", "2026-12-01T18:30:00+01:00"),
        ("2026-12-01T17:30Z", "2026-12-01T18:30:00+01:00"),
        ("1796146200", "2026-12-01T18:30:00+01:00"),
    ],
)
def test_a_time_of_the_day_a_date_and_seconds_are_understood(given, means):
    assert moment(given, NOW) == at(means)


@pytest.mark.parametrize(
    ("given", "message"),
    [("tomorrow", "takes a time such as"), ("25:00", "takes a time"), ("2026-12-01T16:00Z", "that time has passed"),
     ("-5", "takes a time"), ("2026-11-01T10:00", "has passed")],
)  # fmt: skip
def test_a_time_that_is_none_or_has_passed_is_refused(given, message):
    with pytest.raises(UsageError, match=message):
        moment(given, NOW)


def shell(*words):
    return script(plan_of(parse(list(words), domains())))


def test_every_stage_but_the_last_copy_is_stopped_at_that_time(tmp_path):
    ends = (datetime.now().astimezone() + timedelta(hours=1)).isoformat(timespec="seconds")
    text = shell("--session-ends", ends, "--persist", str(tmp_path / "there"), "--out", str(tmp_path))
    assert f"until={int(at(ends))}\n" in text
    stages = [line for line in text.splitlines() if re.match(r" +(run_)?stage ", line)]
    assert len(stages) > 5
    for line in stages:
        assert ("--until $until" in line) == ("training persist" not in line), line
    assert "until=\n" in shell("--out", str(tmp_path))


def test_a_stage_that_runs_when_the_session_ends_saves_and_ends_with_75(supervised, tmp_path):
    for seconds in (4, 16, 64):  # the longer ones for a host on which the stage has not begun by then
        options = ("--pauses", "0", "--until", str(time.time() + seconds))
        process = supervised.start(SAVES, options=options)
        output, _ = process.communicate(timeout=300)
        if (tmp_path / "runs").exists():
            break
    assert (process.returncode, len(supervised.runs)) == (75, 1) and "this session ends (--session-ends)" in output
    if (tmp_path / "ready").exists():  # it had a handler by then
        assert (tmp_path / "received").read_text() == "SIGTERM" and "saved" in output


def test_no_stage_begins_after_the_session_has_ended(supervised):
    process = supervised.start("wait()", options=("--until", "1"))
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 75 and "this session ends" in output


def test_a_stage_that_ends_before_is_left_alone(supervised):
    assert supervised.run("sys.exit(3)", options=("--until", str(time.time() + 3600))) == (3, 1, "")


def test_wandb_sets_the_project_of_every_family_and_its_package_is_installed(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    text = shell("market", "--wandb", "my factory", "--out", str(tmp_path))
    trained = [line for line in text.splitlines() if "training each train" in line]
    assert trained and all("--set=logging.wandb=online '--set=logging.wandb_project=my factory'" in x for x in trained)
    assert "wandb=yes\n" in text and "wandb=no\n" in shell("--out", str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert "--set=logging.wandb=offline" in shell("market", "--wandb", "a", "--out", str(tmp_path))


def test_the_hours_used_are_printed_for_programs(tmp_path, capsys):
    from training.cli import main

    assert main(["budget", "--json", "--out", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["hours"] == 0
    (tmp_path / "runs").mkdir()
    session = {"id": "a", "stage": "train", "began": "2026-12-01T00:00:00Z", "seconds": 5400, "price": 2.0}
    job = {"began": "2026-12-01T00:00:00Z", "hours": 2.0, "sessions": [session]}
    (tmp_path / "runs/budget.json").write_text(json.dumps({"job": job}))
    assert main(["budget", "--json", "--out", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {
        "hours": 1.5, "usd": 3.0, "usd_per_hour": 2.0, "max_hours": 2.0, "budget_usd": None, "done": False,
    }  # fmt: skip
