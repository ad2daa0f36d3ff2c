"""training/parent.py: which processes stop when their parent ends, and which do not. Real processes are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from training import parent

from .conftest import FOLLOWS, PROJECT, alive

#: Starts the command in its arguments as a child that follows it, and waits for its end.
STARTS = f"""
import os, subprocess, sys
sys.path.insert(0, {str(PROJECT)!r})
from training.parent import as_parent
subprocess.run(sys.argv[1:], env={{**os.environ, **as_parent()}})
"""

#: A save that takes until the file `go` is there.
SLOW = """
at_once = save

def save():
    (here / "saving").touch()
    while not (here / "go").exists():
        time.sleep(0.01)
    at_once()

"""


class Family:
    """A parent, and a child that writes its process number to `ready` and, when it gets a signal, writes `saved`."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "child.py").write_text(FOLLOWS + "wait()\n")

    def environment(self, **more: str) -> dict[str, str]:
        return {**os.environ, "HERE": str(self.folder), **more}

    def start(self, *wrapper: str) -> subprocess.Popen:
        words = [*wrapper, sys.executable, "-S", str(self.folder / "child.py")]
        return subprocess.Popen([sys.executable, "-S", "-c", STARTS, *words], env=self.environment())

    def wait_for(self, name: str) -> str:
        deadline = time.monotonic() + 300
        while not (self.folder / name).exists():
            assert time.monotonic() < deadline, f"{name} did not come"
            time.sleep(0.01)
        return (self.folder / name).read_text()


@pytest.fixture
def family(tmp_path):
    return Family(tmp_path)


def kill(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()


def test_a_child_whose_parent_is_killed_gets_sigterm(family):
    process = family.start()
    child = int(family.wait_for("ready"))
    kill(process)
    assert family.wait_for("saved") == "SIGTERM"
    while alive(child):
        time.sleep(0.01)


def test_an_interpreter_that_is_a_script_stands_between_the_two_and_changes_nothing(family, tmp_path):
    (tmp_path / "python").write_text('#!/bin/sh\n"$@"\nexit $?\n')
    (tmp_path / "python").chmod(0o755)
    process = family.start(str(tmp_path / "python"))
    family.wait_for("ready")
    with pytest.raises(
        subprocess.TimeoutExpired
    ):  # several looks: the parent is there, though it is not the direct one
        process.wait(3 * parent.SECONDS)
    assert not (tmp_path / "saved").exists()
    kill(process)
    assert family.wait_for("saved") == "SIGTERM"


def test_a_parent_that_had_gone_before_the_first_look_is_noticed(family):
    gone = subprocess.Popen(["true"])
    gone.wait()
    environment = family.environment(**{parent.PARENT: str(gone.pid)})
    words = [sys.executable, "-S", family.folder / "child.py"]
    process = subprocess.Popen(words, env=environment, stderr=(family.folder / "printed").open("w"))
    try:
        assert process.wait(300) == 75 and family.wait_for("saved") == "SIGTERM"
    finally:
        kill(process)
    assert f"process {gone.pid}, which started process {process.pid}, has ended" in family.wait_for("printed")


def test_a_process_without_the_variable_outlives_its_parent(family):
    """A command that a user started in a shell, or with nohup, continues without it."""
    words = [sys.executable, "-S", str(family.folder / "child.py")]
    shell = subprocess.Popen(["sh", "-c", '"$@" & wait', "-", *words], env=family.environment())
    child = int(family.wait_for("ready"))
    kill(shell)
    try:
        deadline = time.monotonic() + 3 * parent.SECONDS
        while time.monotonic() < deadline:
            assert alive(child)
            time.sleep(0.01)
        assert not (family.folder / "saved").exists()
    finally:
        os.kill(child, signal.SIGTERM)


def test_the_number_of_the_parent_is_not_inherited_by_grandchildren(monkeypatch):
    monkeypatch.setenv(parent.PARENT, str(os.getppid()))
    parent.follow(lambda: True)
    assert parent.PARENT not in os.environ
    assert parent.as_parent() == {parent.PARENT: str(os.getpid())}


def test_a_child_that_is_stopping_already_gets_no_second_signal(family):
    """The second one would end it at once, in the middle of what it saves."""
    (family.folder / "child.py").write_text(FOLLOWS + SLOW + "wait()\n")
    process = family.start()
    child = int(family.wait_for("ready"))
    os.kill(child, signal.SIGTERM)
    family.wait_for("saving")
    kill(process)
    deadline = time.monotonic() + 3 * parent.SECONDS
    while time.monotonic() < deadline:
        assert alive(child)
        time.sleep(0.01)
    (family.folder / "go").touch()
    family.wait_for("saved")
    assert (family.folder / "requests").read_text() == "SIGTERM\n"


def test_every_command_that_is_run_at_once_stops_with_the_one_that_runs_them(family, tmp_path):
    """`each` and `node A B`: the process that started them is killed, and nothing is left to pass a signal on."""
    (tmp_path / "run.py").write_text(f"""
import sys
sys.path.insert(0, {str(PROJECT)!r})
from training.stages.children import Children
with Children(print) as children:
    children.run({{n: ["env", f"HERE={tmp_path}/{{n}}", {sys.executable!r}, "-S", {str(tmp_path / "child.py")!r}]
                  for n in "ab"}}, 2)
""")
    for name in "ab":
        (tmp_path / name).mkdir()
    process = subprocess.Popen([sys.executable, tmp_path / "run.py"])
    for name in "ab":
        family.wait_for(f"{name}/ready")
    kill(process)
    for name in "ab":
        assert family.wait_for(f"{name}/saved") == "SIGTERM"
