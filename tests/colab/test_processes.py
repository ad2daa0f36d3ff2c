"""`run` and jobs in the background: exit codes, one SIGTERM that is waited for, kernels that are restarted."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from training.colab import jobs, processes
from training.colab.jobs import TrainingJob, follow_job, newest_step, start_job
from training.colab.processes import CommandFailed, run
from training.colab.surroundings import ColabError

from .conftest import PROJECT

#: A job: trains until a signal, which it counts, and saves for a moment.
TRAINS = """#!/usr/bin/env python3
import pathlib, signal, sys, time
here = pathlib.Path(sys.argv[0]).parent
def stop(number, _frame):
    with (here / "signals").open("a") as file:
        file.write(f"{number} ")
    time.sleep(0.3)
    print("saved", flush=True)
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
(here / "ready").touch()
print("setting up", flush=True)
print("step 1/100  loss 3", flush=True)
while not (here / "end").exists():
    time.sleep(0.02)
code = (here / "end").read_text()
print("the end", flush=True)
sys.exit(int(code))
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project whose train_cuda.sh is TRAINS; `end` in it ends the job with the code that it holds."""
    (tmp_path / "train_cuda.sh").write_text(TRAINS)
    (tmp_path / "train_cuda.sh").chmod(0o755)
    monkeypatch.setattr(jobs, "PROJECT", tmp_path)
    monkeypatch.setenv("ATHANOR_PYTHON", sys.executable)
    monkeypatch.setenv("ATHANOR_SESSION_STARTED", str(time.time()))  # not that of this host, which may run for days
    yield tmp_path
    (tmp_path / "end").write_text("0")


@pytest.fixture
def job(tmp_path, session):
    return TrainingJob(tmp_path / "job", session.settings(), session.mount)


# -- run -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "why"), [(1, "see its messages"), (3, "the data was refused"), (6, "on this host")])
def test_a_command_that_fails_raises_with_its_exit_code_in_words(code, why, capsys):
    with pytest.raises(CommandFailed, match=rf"exit code {code}: .*{why}") as found:
        run(["sh", "-c", f"echo out; echo err >&2; exit {code}"])
    assert found.value.code == code and capsys.readouterr().out == "out\nerr\n"


def test_saved_is_no_failure_and_what_to_do_is_printed(capsys):
    assert run(["sh", "-c", "exit 75"]) == 75 and "run the same cell again" in capsys.readouterr().out
    assert run(["true"]) == 0


@pytest.fixture
def stop_button():
    """Presses: SIGINT to this process, as the kernel gets it. One that nothing takes would end the test's worker."""
    stray = []
    before = signal.signal(signal.SIGINT, lambda *_: stray.append("a press that `run` did not take"))
    try:
        yield lambda: os.kill(os.getpid(), signal.SIGINT)
        assert not stray
    finally:
        signal.signal(signal.SIGINT, before)


def pressed_when(press, condition) -> threading.Thread:
    def wait() -> None:
        until = time.monotonic() + 300
        while not condition() and time.monotonic() < until:
            time.sleep(0.01)
        press()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_the_stop_button_reaches_the_command_once_and_its_save_is_waited_for(project, stop_button, capsys):
    first = pressed_when(stop_button, (project / "ready").exists)
    second = pressed_when(stop_button, (project / "signals").exists)  # while it saves
    assert run([project / "train_cuda.sh"]) == 75
    first.join()
    second.join()
    printed = capsys.readouterr().out
    assert "Saving first" in printed and "Still saving" in printed and "saved" in printed
    assert (project / "signals").read_text() == f"{signal.SIGTERM.value} "


def test_a_press_before_there_is_a_command_stops_it_once_it_is_there(stop_button, capsys, monkeypatch):
    real = subprocess.Popen

    def slow(*arguments, **named):
        stop_button()
        return real(*arguments, **named)

    monkeypatch.setattr(processes.subprocess, "Popen", slow)
    with pytest.raises(CommandFailed, match="SIGTERM"):
        run(["sleep", "600"])
    assert "Saving first" in capsys.readouterr().out


# -- jobs ----------------------------------------------------------------------------------------------------------


def test_a_job_is_started_up_to_its_first_step_and_followed_to_its_end(project, job, capsys):
    start_job(job, ["toy"])
    assert job.running() and capsys.readouterr().out == "setting up\nstep 1/100  loss 3\n"
    with pytest.raises(ColabError, match=r"runs in .* already"):
        start_job(job, ["toy"])
    (project / "end").write_text("0")
    assert follow_job(job) == 0 and capsys.readouterr().out == "the end\nThe job is done.\n"


def test_less_than_two_hours_left_is_reported_once(project, job, capsys, monkeypatch):
    left = iter([2.1, 1.9, 1.8])
    monkeypatch.setattr(jobs, "estimate_training_time_remaining", lambda settings: next(left, None) or ended())

    def ended() -> float:
        (project / "end").write_text("0")
        return 1.7

    start_job(job, ["toy"])
    assert follow_job(job) == 0
    assert capsys.readouterr().out.count("Note: less than 2 hours of this session are left (1.9).") == 1


def test_a_job_that_fails_says_so_where_it_is_started_and_where_it_is_followed(project, job, capsys):
    start_job(job, ["toy"])
    (project / "end").write_text("5")
    with pytest.raises(CommandFailed, match="exit code 5: the training failed"):
        follow_job(job)
    (project / "train_cuda.sh").write_text("#!/bin/sh\necho no data\nexit 3\n")
    with pytest.raises(CommandFailed, match="the data was refused"):
        start_job(job, ["toy"])
    assert "no data" in capsys.readouterr().out


def test_another_kernel_finds_the_job_and_stops_it_once(project, job):
    start_job(job, ["toy"])
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\nfrom training.colab.jobs import *\n"
        "job = TrainingJob(Path(sys.argv[2]), ColabSettings(), Path('/content/drive'))\n"
        "job.stop(); job.stop(); print(follow_job(job))"
    )
    words = [sys.executable, "-S", "-c", code, str(PROJECT), str(job.out)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.stdout.endswith("saved\nEverything is saved: run all cells again to continue.\n75\n"), done.stderr
    assert (project / "signals").read_text() == f"{signal.SIGTERM.value} "


def test_a_job_whose_process_was_killed_has_ended(project, job):
    start_job(job, ["toy"])
    os.kill(job.state()["pid"], signal.SIGKILL)
    assert job.code() == 137
    with pytest.raises(ColabError, match="No job was started"):
        TrainingJob(job.out / "other", job.settings, job.mount).running()


def test_the_newest_step_on_this_disk_is_named(tmp_path):
    assert newest_step(tmp_path) == "no step yet"
    for name, step in (("a", 12), ("b", 3)):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        text = f'{{"files": {{"last.pt": {{"step": {step}}}}}}}'
        (tmp_path / "checkpoints" / name / "index.json").write_text(text)
    assert newest_step(tmp_path) == "step 12 of a and step 3 of b"


def test_a_drive_that_is_lost_twice_is_mounted_again_and_each_gap_is_reported(drive, project):
    from training.colab.drive import mount_google_drive, probe

    mount_google_drive(drive.settings())
    job = TrainingJob(drive.content / "job", drive.settings(), drive.mount, str(drive.place))
    start_job(job, ["toy"])

    printed = io.StringIO()

    def faults() -> None:
        until = time.monotonic() + 300
        for gap in (1, 2):
            drive.detach()
            while printed.getvalue().count("The drive answers again") < gap and time.monotonic() < until:
                time.sleep(0.05)
        probe(drive.place)
        (project / "end").write_text("0")

    thread = threading.Thread(target=faults)
    thread.start()
    with contextlib.redirect_stdout(printed):
        assert follow_job(job) == 0
    thread.join()
    text = printed.getvalue()
    assert drive.mounts == 3 and text.count("The drive does not answer (10") == 2, text
    assert text.count("no step yet is safe in") == 2 and text.count("The drive answers again") == 2


def test_commands_of_a_cell_are_not_the_kernels_group():
    """A signal to the kernel's group must not reach them: the stop button would be a second signal."""
    printed: list[str] = []
    run([sys.executable, "-c", "import os; print(os.getsid(0) == os.getpid())"], printed=printed)
    assert "".join(printed) == "True\n" and processes.SAVED == 75
