"""Stopping the runner: the real supervisor, and small scripts in place of the stages."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from training import parent

from .conftest import PROJECT, alive

STAGE = f"""#!{sys.executable} -S
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {str(PROJECT)!r})
from training.parent import follow
if sys.argv[2] == "training.runner.supervisor" and os.environ["DOES"] != "has no handler yet":
    os.execv({sys.executable!r}, [{sys.executable!r}, *sys.argv[1:]])
here, verb = Path(os.environ["HERE"]), sys.argv[sys.argv.index("training", 1) + 1]
with (here / "verbs").open("a") as file:
    print(verb, file=file)
if verb == os.environ["AT"]:
    requests = []
    def stop(*_):
        requests.append(time.monotonic())
        try:
            print("stop requested", flush=True)
        except OSError:  # the terminal has gone
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if os.environ["DOES"] != "ignores signals":
            sys.exit(0 if os.environ["DOES"] == "ends normally" else 75)
    if os.environ["DOES"] != "has no handler yet":
        signal.signal(signal.SIGTERM, stop)
        follow(lambda: requests)
    (here / "ready.part").write_text(str(os.getpid()))
    (here / "ready.part").rename(here / "ready")
    while True:
        time.sleep(0.01)
"""


pytestmark = pytest.mark.usefixtures("signals_as_at_a_terminal")


class Runner:
    def __init__(self, folder):
        self.folder = folder
        (folder / "python").write_text(STAGE)
        (folder / "python").chmod(0o755)

    def environment(self, at, does="saves") -> dict[str, str]:
        environment = {**os.environ, "ATHANOR_PYTHON": str(self.folder / "python"), "HERE": str(self.folder)}
        return environment | {"AT": at, "DOES": does, "ATHANOR_OUT": str(self.folder / "out")}

    def start(self, at, does="saves", *arguments, by=(), **options) -> subprocess.Popen:
        """Start the runner, through the words `by` if there are some; returns when the stage `at` runs."""
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} | options
        words = [*by, PROJECT / "train_cuda.sh", *arguments]
        process = subprocess.Popen(words, env=self.environment(at, does), text=True, **pipes)
        deadline = time.monotonic() + 300
        while not (self.folder / "ready").exists():
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.01)
        return process

    @property
    def verbs(self):
        return (self.folder / "verbs").read_text().split()

    @property
    def stage(self) -> int:
        return int((self.folder / "ready").read_text())

    @property
    def stage_lives(self):
        return alive(self.stage)

    @property
    def supervisor(self) -> int:
        return int(Path("/proc", str(self.stage), "stat").read_text().rpartition(")")[2].split()[1])

    def again(self, *arguments) -> int:
        """The same command, with stages that end at once; returns its exit code."""
        words = [PROJECT / "train_cuda.sh", *arguments]
        done = subprocess.run(words, env=self.environment("none"), stdin=subprocess.DEVNULL, capture_output=True)
        return done.returncode


@pytest.fixture
def runner(tmp_path):
    return Runner(tmp_path)


#: Options with which a stage is reached without many others before it.
QUICK = {"evaluate": ["--skip-manifests", "--skip-spectocloud", "--skip-midi"], "train": ["--skip-manifests"]}


@pytest.mark.parametrize("at", ["doctor", "prepare", "train", "evaluate"])
def test_a_signal_reaches_the_running_stage_and_its_exit_code_comes_back(runner, at):
    """Without a terminal: on SIGTERM to the runner, the stage saves, and the runner ends with its exit code."""
    process = runner.start(at, "saves", *QUICK.get(at, []))
    process.terminate()
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 75
    assert "stop requested" in output and "Run the same command again" in output
    assert runner.verbs[-1] == at


def test_a_signal_before_any_handler_is_installed_is_no_failure(runner):
    """Every Python process, the supervisor too, takes some time until its first handler is installed."""
    process = runner.start("doctor", "has no handler yet")
    process.terminate()
    process.communicate(timeout=300)
    assert process.returncode == 75 and runner.verbs == ["doctor"]


def test_a_stage_that_ends_normally_after_a_signal_is_the_last(runner):
    process = runner.start("train", "ends normally")
    process.terminate()
    process.communicate(timeout=300)
    assert process.returncode == 75 and runner.verbs[-1] == "train"


@pytest.mark.parametrize("at", ["prepare", "train"])
def test_a_second_signal_ends_everything_at_once(runner, at):
    process = runner.start(at, "ignores signals")
    process.terminate()
    assert "stop requested\n" in process.stdout
    time.sleep(1.1)  # nearer together they would be one request
    assert process.poll() is None
    before = time.monotonic()
    process.terminate()
    process.communicate(timeout=300)
    assert process.returncode == 143 and time.monotonic() - before < 10
    assert not runner.stage_lives


def test_an_interrupted_job_is_copied_before_it_ends(runner, tmp_path):
    process = runner.start("train", "saves", "--persist", tmp_path / "drive")
    process.terminate()
    process.communicate(timeout=300)
    assert process.returncode == 75 and runner.verbs == ["doctor", "restore", "prepare", "train", "persist"]


def test_a_terminal_that_closes_is_a_request_to_stop(runner):
    """The connection to a rented host breaks: SIGHUP, and from then on every write to the terminal fails."""
    controller, terminal = pty.openpty()
    process = runner.start(
        "train", stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True,
        preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),  # becomes its controlling terminal
    )  # fmt: skip
    os.close(terminal)
    os.close(controller)
    assert process.wait(300) == 75
    assert runner.verbs[-1] == "train" and not runner.stage_lives


def test_a_runner_in_the_background_of_a_script_is_stopped_by_sigterm(runner):
    """For such a process the shell ignores SIGINT and SIGQUIT; a shell script inherits that and cannot undo it."""

    def in_the_background():
        for number in (signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)

    process = runner.start("train", preexec_fn=in_the_background)
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    process.terminate()
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 75 and "stop requested" in output and runner.verbs[-1] == "train"


def test_nohup_is_respected(runner):
    process = runner.start("train", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    for pid in (process.pid, int((runner.folder / "ready").read_text())):
        os.kill(pid, signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    process.terminate()
    process.communicate(timeout=300)
    assert process.returncode == 75


# -- one of the processes is killed alone --------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["doctor", "prepare", "train", "evaluate"])
def test_a_runner_that_is_killed_leaves_no_stage_behind_and_the_same_command_continues(runner, at):
    process = runner.start(at, "saves", *QUICK.get(at, []))
    supervisor = runner.supervisor
    process.kill()
    output, _ = process.communicate(timeout=300)  # until the last that writes there has ended
    while alive(supervisor) or runner.stage_lives:
        time.sleep(0.01)
    assert "stop requested" in output and runner.verbs[-1] == at
    assert runner.again(*QUICK.get(at, [])) == 0


def test_a_supervisor_that_is_killed_leaves_no_stage_behind_and_no_further_one_begins(runner):
    process = runner.start("train", "saves", *QUICK["train"])
    os.kill(runner.supervisor, signal.SIGKILL)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 137 and "stop requested" in output and runner.verbs[-1] == "train"
    assert not runner.stage_lives
    assert runner.again(*QUICK["train"]) == 0


def test_the_runner_continues_when_its_own_parent_ends(runner):
    """A shell that started it with nohup and ends, a notebook whose kernel ends: the runner continues."""
    started = 'nohup "$@" > "$HERE/output" 2>&1 & echo $!; read -r _'
    shell = runner.start("train", "saves", *QUICK["train"], by=["sh", "-c", started, "-"], stdin=subprocess.PIPE)
    number = int(shell.stdout.readline())
    shell.kill()
    shell.communicate()
    deadline = time.monotonic() + 3 * parent.SECONDS
    while time.monotonic() < deadline:
        assert alive(number) and runner.stage_lives
        time.sleep(0.01)
    os.kill(number, signal.SIGTERM)
    while alive(number):
        time.sleep(0.01)
    assert "Run the same command again" in (runner.folder / "output").read_text()
