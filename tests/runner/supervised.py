"""Helper: runs the supervisor on small scripts in place of a training. Each run of a script adds a line to `runs`."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from training.workspace import PROJECT

PRELUDE = """
import fcntl, json, os, signal, subprocess, sys, time
from pathlib import Path
here = Path(os.environ["HERE"])
with (here / "runs").open("a") as file:
    print(*sys.argv[1:], file=file)
run = len((here / "runs").read_text().splitlines())  # 1 for the first

def save(step, run_id="a"):
    (here / "index.json").write_text(json.dumps({"files": {"last.pt": {"step": step, "run_id": run_id}}}))

def crash(note, code=1):
    Path(os.environ["ATHANOR_CRASH_NOTE"]).write_text(note)
    sys.exit(code)

def kill(number=signal.SIGKILL):
    os.kill(os.getpid(), number)
    time.sleep(60)

def wait():
    (here / "ready").touch()
    while True:
        time.sleep(0.01)
"""

SAVES = """
def stop(number, _frame):
    (here / "received").write_text(signal.Signals(number).name)
    time.sleep(0.1)
    print("saved", flush=True)
    sys.exit(75)
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, stop)
wait()
"""


class Supervised:
    def __init__(self, folder):
        self.folder = folder

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(PROJECT), "HERE": str(self.folder)}

    def words(self, script, *arguments, options=("--pauses", "0")) -> list:
        (self.folder / "script.py").write_text(PRELUDE + script)
        words = [sys.executable, "-m", "training.runner.supervisor"]
        words += ["--index", self.folder / "index.json", *options, "--"]
        return [*words, sys.executable, "-S", "-E", self.folder / "script.py", *arguments]

    def start(self, script, *arguments, **options) -> subprocess.Popen:
        return subprocess.Popen(
            self.words(script, *arguments, **options), text=True, env=self.environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, script, *arguments, **options):
        """-> (exit code, how often it was started, the output)."""
        process = self.start(script, *arguments, **options)
        output, _ = process.communicate(timeout=300)
        return process.returncode, len(self.runs), output

    @property
    def runs(self):
        return (self.folder / "runs").read_text().splitlines()

    def await_file(self, name="ready"):
        deadline = time.monotonic() + 300
        while not (self.folder / name).exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        (self.folder / name).unlink()
