"""training/runner/launch.py: torchrun ends as its processes end. Real torchrun, with small scripts for a training."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from training.host import available_cpus

from .conftest import PROJECT


@pytest.fixture
def launch(tmp_path):
    def start(script: str, processes: int = 2) -> subprocess.Popen:
        (tmp_path / "work.py").write_text(script)
        words = [sys.executable, "-m", "training.runner.launch", "--standalone", f"--nproc_per_node={processes}"]
        environment = {**os.environ, "PYTHONPATH": str(PROJECT), "READY": str(tmp_path / "ready")}
        return subprocess.Popen(
            [*words, str(tmp_path / "work.py")], env=environment, cwd=tmp_path, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    return start


@pytest.mark.parametrize(
    ("script", "code"), [("import sys; sys.exit(3)", 3), ("pass", 0), ("import os; os.abort()", 134)]
)
def test_the_exit_code_is_that_of_the_processes(launch, script, code):
    process = launch(script)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == code, out


def test_ranks_share_the_cpus_and_know_that_no_user_set_the_number(launch, tmp_path, monkeypatch):
    """So that each of them leaves its data loader workers a core."""
    for name in ("OMP_NUM_THREADS", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    process = launch(
        "import os, pathlib\n"
        "from training import threads\n"
        "told = f'{os.environ[threads.THREADS]} {threads.chosen()}'\n"
        "pathlib.Path('threads' + os.environ['RANK']).write_text(told)\n"
    )
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    expected = f"{max(1, available_cpus() // 2)} None"
    assert [path.read_text() for path in sorted(tmp_path.glob("threads*"))] == [expected, expected]


def test_a_stop_is_passed_on_and_waited_for(launch, tmp_path):
    """torchrun's own answer would be a traceback and exit 1, while the processes still save."""
    process = launch(
        "import os, pathlib, signal, sys, time\n"
        "def stop(*_):\n"
        "    time.sleep(1.5)\n"
        "    pathlib.Path('saved' + os.environ['RANK']).touch()\n"
        "    sys.exit(75)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "pathlib.Path(os.environ['READY'] + os.environ['RANK']).touch()\n"
        "while True: time.sleep(0.1)\n"
    )
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("ready*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 75, out
    assert sorted(path.name for path in tmp_path.glob("saved*")) == ["saved0", "saved1"]
    assert "Traceback" not in out
