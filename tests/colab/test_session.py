"""The session's clock, its limits as flags of the runner, and the settings that they come from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import datetime

import pytest

from training.colab import session as sessions
from training.colab import surroundings
from training.colab.session import budget_flags, estimate_training_time_remaining, runs_a_month, used_hours
from training.colab.settings import ColabSettings, load_settings
from training.colab.surroundings import ColabError, session_start

from .conftest import PROJECT


def test_a_session_begins_with_the_first_process_or_the_first_call_whichever_is_older(session, monkeypatch):
    now = time.time()
    monkeypatch.setattr(surroundings, "_first_process_start", lambda: now - 7200)
    assert session_start() == pytest.approx(now - 7200)
    monkeypatch.setattr(surroundings, "_first_process_start", lambda: now + 99)  # the container was started again
    assert session_start() == pytest.approx(now - 7200), "the stamp of the first call is kept"
    monkeypatch.setattr(surroundings, "_first_process_start", lambda: now - 9999)
    assert session_start(now - 60) == pytest.approx(now - 60) == session_start(), "what was given is kept"
    assert estimate_training_time_remaining(session_hours=12) == pytest.approx(12 - 60 / 3600, abs=0.01)


def test_the_start_of_the_first_process_is_a_time_in_the_past():
    assert 0 < surroundings._first_process_start() <= time.time()


@pytest.fixture
def six_minutes(session, monkeypatch):
    """A session of six minutes that began just now, and a GPU of 10 units an hour."""
    monkeypatch.setattr(sessions, "check_gpu", lambda **_: type("G", (), {"units_per_hour": 10.0, "name": "A100"}))
    monkeypatch.setattr(sessions, "used_hours", lambda out: 1.5)
    session_start(time.time())

    def flags(*words, **more):
        return budget_flags(*words, settings=session.settings(), session_hours=0.1, **more)

    return flags


def test_a_job_that_is_to_finish_gets_the_hours_used_plus_those_left_without_the_margin(six_minutes):
    flags = six_minutes()
    assert flags[0] == "--max-hours" and float(flags[1]) == pytest.approx(1.5 + (6 - 0.5) / 60, abs=0.005)
    assert flags[2:] == ["--price-per-hour", f"{10 * 58.99 / 600:.4f}"]


def test_a_job_that_is_to_be_saved_gets_the_time_of_the_end(six_minutes):
    flag, at = six_minutes(False)[:2]
    assert flag == "--session-ends"
    assert datetime.fromisoformat(at).timestamp() == pytest.approx(session_start() + 5.5 * 60, abs=5)


def test_units_become_a_budget(six_minutes):
    assert six_minutes(units=60)[4:] == ["--budget-usd", f"{60 * 58.99 / 600:.2f}"]


def test_a_session_that_ends_too_soon_is_refused(six_minutes):
    with pytest.raises(ColabError, match=r"6 min of this session are left, and its end needs 35: start a new session"):
        six_minutes(margin_minutes=35)


def test_the_hours_used_are_those_of_the_ledger(session, tmp_path):
    assert used_hours(tmp_path) == 0.0
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/budget.json").write_text(json.dumps({"job": {"began": "2026-12-01T00:00:00Z", "sessions": [
        {"id": "a", "stage": "train", "began": "2026-12-01T00:00:00Z", "seconds": 5400}]}}))  # fmt: skip
    assert used_hours(tmp_path) == pytest.approx(1.5)
    (tmp_path / "runs/budget.json").write_text("{")
    with pytest.raises(ColabError, match=r"not known:\n.*budget.json cannot be read"):
        used_hours(tmp_path)


def test_what_a_run_costs_in_units_and_how_many_fit_into_a_month():
    assert runs_a_month(10, 10) == (
        "100 compute units (9.83 USD); 6 such runs of 600 units a month (Colab Pro+, 58.99 USD, 2025-12)"
    )
    with pytest.raises(ColabError, match="above 0"):
        runs_a_month(0, 10)


# -- settings ------------------------------------------------------------------------------------------------------


def test_the_file_of_settings_is_read_with_the_environments_yaml_and_holds_every_key(session):
    read = load_settings()
    assert (read.subscription.cost_per_month_usd, read.subscription.compute_units) == (58.99, 600)
    assert read.session.margin_minutes == 20 and read.drive.mount_path == "/content/drive"
    text = (PROJECT / "training/configs/colab_setup.yaml").read_text()
    for section in ("subscription", "compute", "session", "drive", "data"):
        for key in vars(getattr(read, section)):
            assert f"\n  {key}: " in text, f"{section}.{key}"


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"sesion": {}}, r"no section `sesion`; did you mean `session`"),
        ({"session": {"margin_minute": 1}}, r"session: there is no key `margin_minute`; did you mean `margin_minutes`"),
        ({"session": {"keep": "two"}}, r"session.keep takes a whole number from 0 up, not 'two'"),
        ({"subscription": {"compute_units": "600 units"}}, r"compute_units takes a number from 0 up"),
        ({"compute": {"units_per_hour": {"T4": -1}}}, r"units_per_hour.T4 takes a number"),
        ([1], r"must hold sections"),
    ],
)
def test_a_wrong_key_or_value_is_refused_with_its_place(plain, message):
    with pytest.raises(ColabError, match=message):
        ColabSettings.of(plain, "colab_setup.yaml")


def test_every_key_of_the_settings_is_used():
    code = "".join(path.read_text() for path in PROJECT.glob("training/colab/*.py")) + "".join(
        (PROJECT / name).read_text() for name in ("training/colab_setup.py", "scripts/prepare_data_for_upload.sh")
    )
    settings = ColabSettings()
    for section in vars(settings):
        for key in vars(getattr(settings, section)):
            assert code.count(key) > 1, f"{section}.{key}: declared, and nowhere used"


def test_the_kernel_needs_the_standard_library_alone():
    code = "import sys; sys.path.insert(0, sys.argv[1]); import training.colab_setup as s; print(s.detect_colab())"
    clean = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-S", "-I", "-c", code, str(PROJECT)], capture_output=True, text=True, env=clean
    )
    assert done.stdout == "None\n", done.stderr
