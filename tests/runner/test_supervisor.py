"""training/runner/supervisor.py: which ends lead to a restart and which do not, and that no process is left behind.
Small scripts take the place of a training; each run of one adds a line to `runs`."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from training import cli
from training.engine.process import heartbeat

from .conftest import FOLLOWS, PROJECT, alive
from .supervised import SAVES

pytestmark = pytest.mark.usefixtures("signals_as_at_a_terminal")


# -- what is started again -----------------------------------------------------------------------------------------


def test_a_killed_command_is_started_again_and_reported(supervised):
    code, runs, output = supervised.run("save(120)\nif run == 1: kill()")
    assert (code, runs) == (0, 2)
    for expected in (
        "killed by SIGKILL",
        "memory of this host",
        "step 120",
        "restart 1 of 4 in 0 s",
        "1 restart in all",
    ):
        assert expected in output


@pytest.mark.parametrize("code", [0, 2, 3, 4, 5, 6, 75, 64, 127])
def test_what_would_only_repeat_is_never_started_again(supervised, code):
    assert supervised.run(f"sys.exit({code})") == (code, 1, "")


@pytest.mark.parametrize(
    ("end", "code", "name"),
    [
        ("sys.exit(1)", 1, "crashed"),
        ("kill()", 137, "SIGKILL"),
        ("sys.exit(137)", 137, "SIGKILL"),  # a rank of training.runner.launch was killed
        ("kill(signal.SIGTERM)", 143, "SIGTERM"),  # not sent by this test
    ],
)
def test_it_stops_after_the_allowed_restarts_without_progress(supervised, end, code, name):
    ended, runs, output = supervised.run(end, options=("--pauses", "0", "--restarts", "2"))
    assert (ended, runs) == (code, 3)
    assert name in output and "2 restarts without progress" in output and f"Exit code {code}." in output


def test_progress_starts_the_count_and_the_pauses_over(supervised):
    code, runs, output = supervised.run(
        "save(min(run, 4))\nkill()", options=("--pauses", "0.01,0.02,0.03", "--restarts", "2")
    )
    assert (code, runs) == (137, 6)  # four that saved something new, and two that did not
    assert [line.split(" restart ")[1] for line in output.splitlines() if ": restart " in line] == [
        *["1 of 2 in 0.01 s."] * 4, "2 of 2 in 0.02 s."
    ]  # fmt: skip


def test_the_same_crash_twice_at_the_same_place_is_not_restarted(supervised):
    code, runs, output = supervised.run('save(7)\ncrash("ValueError: 3 [after 40 steps]")')
    assert (code, runs) == (1, 2)
    assert "crashed (ValueError: 3 [after 40 steps])" in output and "the same crash twice" in output


def test_a_fault_of_compiled_code_twice_at_the_same_step_is_not_restarted(supervised):
    assert supervised.run("save(7)\nkill(signal.SIGSEGV)")[:2] == (139, 2)


def test_another_crash_at_the_same_place_is_tried_again(supervised):
    code, runs, output = supervised.run(
        'save(7)\ncrash(f"ValueError: {run}")', options=("--pauses", "0", "--restarts", "3")
    )
    assert (code, runs) == (1, 4) and "3 restarts without progress" in output


def test_the_same_crash_at_another_place_is_tried_again(supervised):
    assert supervised.run('save(min(run, 3))\ncrash("ValueError: 3")')[:2] == (1, 4)


def test_the_command_line_writes_the_error_of_a_crash_for_the_supervisor(tmp_path, monkeypatch):
    """The file that ATHANOR_CRASH_NOTE names: the error, and how many steps and batches were done."""

    def stumble(_options):
        raise ValueError("3\nof 4")

    monkeypatch.setitem(cli.VERBS, "verify", stumble)
    counts = []
    for note in (tmp_path / "first", tmp_path / "second"):
        monkeypatch.setenv("ATHANOR_CRASH_NOTE", str(note))
        for _ in range(2):  # if several ranks crash, the first writes the note
            with pytest.raises(ValueError, match="3"):
                cli.main(["verify", "x"])
            found = re.fullmatch(r"ValueError: 3 of 4 \[after (\d+) steps and batches\]\n", note.read_text())
            counts.append(int(found[1]))
            for _ in range(40):
                heartbeat.beat()
    assert [count - counts[0] for count in counts] == [0, 0, 80, 80]


def test_a_restart_under_resume_never_continues_the_run_of_the_first_try(supervised):
    supervised.run('if run == 2: save(1, "new")\nif run < 4: kill()', "--resume", "never", "--resume=never")
    assert supervised.runs == [*["--resume never --resume=never"] * 2, *["--resume auto --resume=auto"] * 2]


# -- nothing is left behind ----------------------------------------------------------------------------------------

ORPHAN = """
lock = (here / "lock").open("w")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit(6)
if run == 1:
    # like a rank of torchrun: in a separate session; it ignores SIGTERM and holds the lock of the folder
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    rank = subprocess.Popen(
        [sys.executable, "-S", "-c", code], start_new_session=True, pass_fds=[lock.fileno()], stdout=subprocess.PIPE
    )
    rank.stdout.readline()
    (here / "rank").write_text(str(rank.pid))
"""


def test_processes_left_by_a_killed_training_are_killed_before_the_next_begins(supervised, tmp_path):
    code, runs, output = supervised.run(ORPHAN + "    kill()")
    assert (code, runs) == (0, 2), output
    assert not alive(int((tmp_path / "rank").read_text()))


def test_processes_left_by_the_command_are_killed_at_the_end(supervised, tmp_path):
    assert supervised.run(ORPHAN + "    sys.exit(3)")[0] == 3
    assert not alive(int((tmp_path / "rank").read_text()))


def test_killing_the_supervisor_stops_its_training(supervised, tmp_path):
    process = supervised.start(FOLLOWS + "wait()")
    supervised.await_file()
    process.kill()
    process.wait()
    supervised.await_file("saved")
    assert len(supervised.runs) == 1, "and no one starts it again"


def test_the_command_runs_although_no_temporary_folder_can_be_made(tmp_path):
    """/tmp is full, or read-only: then only the reason of a crash is not known."""
    code = (
        "import sys, tempfile\n"
        "def full(**_): raise OSError(28, 'No space left on device')\n"
        "tempfile.TemporaryDirectory = full\n"
        "from training.runner.supervisor import main\n"
        f"sys.exit(main(['--restarts', '1', '--pauses', '0', '--', {sys.executable!r}, '-c', 'raise SystemExit(1)']))"
    )
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "1 restarts without progress: no further one" in done.stderr
    assert "no Python error was reported" in done.stderr and "Traceback" not in done.stderr


# -- signals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_is_passed_on_and_the_save_waited_for(supervised, tmp_path, name):
    process = supervised.start(SAVES)
    supervised.await_file()
    process.send_signal(signal.Signals[name])
    output, _ = process.communicate(timeout=300)
    assert (process.returncode, len(supervised.runs), output) == (75, 1, "saved\n")
    assert (tmp_path / "received").read_text() == name


def test_a_signal_repeated_within_a_second_is_ignored_and_a_later_one_kills_everything(supervised, tmp_path):
    """A host that shuts down signals the runner, the supervisor and the training at the same moment: it still saves."""
    process = supervised.start(ORPHAN + "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n    wait()")
    supervised.await_file()
    first = time.monotonic()
    process.terminate()
    process.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.6)
    while time.monotonic() < first + 1.1:
        time.sleep(0.01)
    process.terminate()
    before = time.monotonic()
    process.communicate(timeout=300)
    assert process.returncode == 143 and time.monotonic() - before < 10
    assert not alive(int((tmp_path / "rank").read_text()))


def test_a_signal_in_a_pause_ends_it_with_everything_saved(supervised):
    process = supervised.start("kill()", options=("--pauses", "600"))
    assert any("restart 1" in line for line in process.stdout)
    process.terminate()
    assert process.wait(300) == 75
    process.stdout.close()


def test_a_signal_before_the_command_has_a_handler_is_no_failure(supervised):
    """Python takes a while until the first handler is in place; nothing was begun, so nothing is lost."""
    process = supervised.start("wait()")
    supervised.await_file()
    process.terminate()
    assert process.communicate(timeout=300)[0] == "" and process.returncode == 75


def test_a_crash_while_stopping_is_reported_and_not_started_again(supervised):
    process = supervised.start("signal.signal(signal.SIGTERM, lambda *_: crash('OSError: x'))\nwait()")
    supervised.await_file()
    process.terminate()
    output, _ = process.communicate(timeout=300)
    assert (process.returncode, len(supervised.runs)) == (1, 1)
    assert "OSError: x" in output and "while it was stopping" in output


def test_a_stage_that_does_not_stop_in_time_is_killed_with_the_code_of_a_stop(supervised):
    options = ("--restarts", "0", "--stop-within", "0.2")
    process = supervised.start("signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwait()", options=options)
    supervised.await_file()
    process.terminate()
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 75 and "within 0.2 s" in output


# -- the rest ------------------------------------------------------------------------------------------------------


def test_the_supervisor_imports_no_large_package():
    heavy = "{'torch', 'numpy', 'pydantic', 'yaml'}"
    code = f"import sys, training.runner.supervisor; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=PROJECT, text=True) == "[]\n"


@pytest.mark.parametrize(
    ("words", "environment"),
    [([], {}), (["--"], {}), (["--restarts", "-1", "--", "true"], {}), (["--pauses", "soon", "--", "true"], {}),
     (["--", "true"], {"ATHANOR_RESTARTS": "many"}), (["--", "true"], {"ATHANOR_RESTART_PAUSES": "nan"})],
)  # fmt: skip
def test_wrong_usage_is_refused(words, environment):
    words = [sys.executable, "-m", "training.runner.supervisor", *words]
    done = subprocess.run(words, cwd=PROJECT, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 2 and "error: " in done.stderr


def test_the_environment_sets_limit_and_pauses(supervised, monkeypatch):
    monkeypatch.setenv("ATHANOR_RESTARTS", "1")
    monkeypatch.setenv("ATHANOR_RESTART_PAUSES", "0.01")
    code, runs, output = supervised.run("kill()", options=())
    assert (code, runs) == (137, 2) and "restart 1 of 1 in 0.01 s" in output


def test_a_command_that_is_not_there_is_reported():
    words = [sys.executable, "-m", "training.runner.supervisor", "--", "/nowhere/python"]
    done = subprocess.run(words, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 6 and "/nowhere/python cannot be started" in done.stderr


def test_an_index_that_cannot_be_read_is_no_progress(supervised, tmp_path):
    for text in ("{", json.dumps({"files": {"last.pt": {}}})):
        (tmp_path / "index.json").write_text(text)
        (tmp_path / "runs").unlink(missing_ok=True)
        assert supervised.run("kill()", options=("--pauses", "0", "--restarts", "1"))[:2] == (137, 2)
