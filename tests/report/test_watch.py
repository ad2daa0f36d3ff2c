"""`watch`: the status of a job, in a terminal and in a pipe."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import signal
import stat
import subprocess
import sys
import time

import pytest

from tests.report import job
from training.budget import book as books
from training.budget.account import ledger_path
from training.cli import main
from training.report.facts import gather
from training.report.watch import gpu_line, screen, spark, watch
from training.workspace import PROJECT, Workspace

SMI = """#!/bin/sh
case "$*" in *--query-gpu=index,name,*) echo '0, NVIDIA H200, 87, 42189, 143771, 612.34, 64';; esac
"""


@pytest.fixture
def running(tmp_path):
    """A job in the middle of a training."""
    workspace = job.make(tmp_path)
    train = books.Session(id="b", stage="train", families=("alpha",), began=books.now(), seconds=90, price=2.0)
    books.store(ledger_path(workspace), books.Book(job=books.Job(began=books.now(), sessions=(train,), hours=1.0)))
    path = next(workspace.runs("alpha").glob("*/metrics.jsonl"))
    path.write_text("".join(line + "\n" for line in path.read_text().splitlines()[:15]))
    (path.parent / "log.txt").write_text("first\nstep 28/60 \x1b[2J of letters\n")
    return workspace


def test_progress_losses_budget_and_pace_are_reported(running):
    text = "\n".join(screen(running, 120))
    for expected in (
        "running: train alpha", "0:01:30 used of 1:00:00, 0:58:30 left", "0.05 USD at 2 USD an hour",
        "training: step 28 of 60, 0:00:32 left", " 47%", "50.0 samples/s", "best 1.175 at step 20", "step 28/60",
    ):  # fmt: skip
        assert expected in text, expected


def test_no_line_is_wider_than_the_terminal_or_has_control_characters(running):
    for width in (20, 40, 80):
        lines = screen(running, width)
        assert max(map(len, lines)) <= width
        assert all(line.isprintable() for line in lines)
    assert all(line.isascii() for line in screen(running, 80, fancy=False))


def test_gpus_are_shown_as_nvidia_smi_reports_them(running, tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "nvidia-smi").write_text(SMI)
    (folder / "nvidia-smi").chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    assert "GPU 0 NVIDIA H200  87 % busy  41.2 of 140.4 GiB  612 W  64 °C" in screen(running, 120)
    (folder / "nvidia-smi").write_text("#!/bin/sh\necho NVML: Driver mismatch; exit 9\n")
    assert "nvidia-smi: NVML: Driver mismatch" in screen(running, 120)
    assert gpu_line("1, Tesla T4, [N/A], 5, 10, [N/A], 40") == "GPU 1 Tesla T4  0.0 of 0.0 GiB  40 °C"


def test_a_folder_in_which_nothing_has_begun_and_a_damaged_ledger_are_reported(tmp_path):
    assert "Nothing has begun here yet." in screen(Workspace(tmp_path), 80)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "budget.json").write_text("{")
    assert any("cannot be read" in line for line in screen(Workspace(tmp_path), 200))


@pytest.mark.parametrize(
    "settings", [b"\xff", b"training: null\n", b"training: {early_stopping: {direction: x}}\n", b"training: [\n"]
)
def test_damaged_settings_of_a_run_are_named_and_its_progress_is_shown(running, settings):
    path = next(running.runs("alpha").glob("*/metrics.jsonl")).with_name("settings.yaml")
    path.write_bytes(settings)
    text = "\n".join(screen(running, 200))
    assert "settings.yaml cannot be read: " in text and "step 28 of 60" in text and "best 1.175 at step 20" in text
    assert any("settings.yaml cannot be read: " in problem for problem in gather(running).problems)


def test_in_a_pipe_it_prints_once_and_without_escapes(running, capsys):
    assert main(["watch", "--out", str(running.root)]) == 0
    output = capsys.readouterr().out
    assert output.count("Athanor") == 1 and "\x1b" not in output
    watch(running, once=True, out=(out := io.StringIO()))
    assert "Alpha" in out.getvalue()


def test_in_a_terminal_it_updates_until_ctrl_c_and_restores_the_screen(running):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "training", "watch", "--out", str(running.root)]
    env = {**os.environ, "PYTHONPATH": str(PROJECT), "PYTHONIOENCODING": "utf-8", "TERM": "xterm"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env, cwd=running.root)
    os.close(theirs)
    output, until = b"", time.monotonic() + 60
    while output.count(b"\x1b[H") < 2 and time.monotonic() < until:
        if select.select([ours], [], [], 1.0)[0]:
            output += os.read(ours, 65536)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    while select.select([ours], [], [], 0.2)[0]:
        try:
            output += os.read(ours, 65536)
        except OSError:  # the other end has gone
            break
    os.close(ours)
    text = output.decode()
    assert text.startswith("\x1b[?1049h") and text.rstrip().endswith("\x1b[?1049l")
    assert text.count("\x1b[H") >= 2 and "Traceback" not in text and "interrupted" not in text
    assert re.search(r"step 28 of 60", text)


def test_a_curve_is_drawn_in_one_line_of_text():
    assert spark([1, 2, 3, float("nan")], 10, True) == "▁▅█" and spark([5, 5], 10, False) == "__"
    assert spark([], 10, True) == "" and len(spark(list(range(1000)), 30, True)) == 30


def test_running_items_of_a_family_are_shown_and_the_others_counted(running):
    for item in ("one", "two", "three"):
        job.write_run(running, f"beta/{item}")
    text = "\n".join(screen(running, 120))
    assert re.search(r"^Beta +3 trained$", text, re.M) and "Beta: one" not in text and "step 28 of 60" in text
    train = books.Session(id="c", stage="train", families=("beta/two",), began=books.now(), seconds=9)
    books.store(ledger_path(running), books.Book(job=books.Job(began=books.now(), sessions=(train,))))
    text = "\n".join(screen(running, 120))
    assert re.search(r"^Beta: two +training: step 60 of 60", text, re.M) and re.search(r"^Beta +2 trained$", text, re.M)
