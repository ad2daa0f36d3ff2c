"""training/runner/supervisor.py: the process that started it is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from training import parent

from .conftest import alive
from .supervised import SAVES

pytestmark = pytest.mark.usefixtures("signals_as_at_a_terminal")


def started_by_another(supervised, script, **options):
    """-> (a process that waits for the supervisor that it starts, the number of the supervisor)."""
    words = supervised.words(script, **options)
    code = (
        "import os, subprocess, sys; from training.parent import as_parent\n"
        "process = subprocess.Popen(sys.argv[1:], env={**os.environ, **as_parent()})\n"
        "print(process.pid, flush=True); process.wait()"
    )
    between = subprocess.Popen(
        [sys.executable, "-c", code, *words], env=supervised.environment, text=True, stdout=subprocess.PIPE,
        stderr=(supervised.folder / "output").open("w"),
    )  # fmt: skip
    return between, int(between.stdout.readline())


def test_a_supervisor_whose_runner_is_killed_stops_the_command_and_ends(supervised, tmp_path):
    runner, supervisor = started_by_another(supervised, SAVES)
    supervised.await_file()
    runner.kill()
    output, _ = runner.communicate(timeout=300)  # until the last of them has closed it
    assert output == "saved\n" and (tmp_path / "received").read_text() == "SIGTERM"
    while alive(supervisor):
        time.sleep(0.01)
    assert len(supervised.runs) == 1


def test_a_runner_that_is_killed_while_the_command_stops_does_not_end_it_at_once(supervised, tmp_path):
    """The signal had come before: to end everything takes a second request, which this is not."""
    slow = SAVES.replace("time.sleep(0.1)", "while not (here / 'go').exists(): time.sleep(0.01)")
    runner, supervisor = started_by_another(supervised, slow)
    supervised.await_file()
    os.kill(supervisor, signal.SIGTERM)
    while not (tmp_path / "received").exists():
        time.sleep(0.01)
    time.sleep(1.1)  # nearer together they would be one request
    runner.kill()
    deadline = time.monotonic() + 3 * parent.SECONDS
    while time.monotonic() < deadline:
        assert alive(supervisor)
        time.sleep(0.01)
    (tmp_path / "go").touch()
    assert runner.communicate(timeout=300)[0] == "saved\n"


def test_a_runner_that_is_killed_in_a_pause_ends_it(supervised):
    runner, supervisor = started_by_another(supervised, "kill()", options=("--pauses", "600"))
    while "restart 1" not in (supervised.folder / "output").read_text():
        time.sleep(0.01)
    runner.kill()
    runner.communicate(timeout=300)
    while alive(supervisor):
        time.sleep(0.01)
    assert len(supervised.runs) == 1
