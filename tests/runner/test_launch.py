"""training/runner/launch.py: torchrun ends as its processes end. Real torchrun, with small scripts for a training."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from training.host import available_cpus

from .conftest import FOLLOWS, PROJECT, alive


@pytest.fixture
def launch(tmp_path):
    def start(script: str, processes: int = 2, by: Sequence[str] = ()) -> subprocess.Popen:
        (tmp_path / "work.py").write_text(script)
        words = [sys.executable, "-m", "training.runner.launch", "--standalone", f"--nproc_per_node={processes}"]
        environment = {**os.environ, "PYTHONPATH": str(PROJECT), "READY": str(tmp_path / "ready")}
        return subprocess.Popen(
            [*by, *words, str(tmp_path / "work.py")], env=environment, cwd=tmp_path, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    return start


@pytest.mark.parametrize(
    ("script", "code"), [("import sys; sys.exit(3)", 3), ("pass", 0), ("import os; os.abort()", 134)]
)
def test_the_exit_code_is_that_of_the_processes(launch, script, code):
    process = launch(script)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == code, out


def test_ranks_share_the_cpus_and_do_not_take_the_number_for_the_users_setting(launch, tmp_path, monkeypatch):
    """So that each of them leaves its data loader workers a core."""
    for name in ("OMP_NUM_THREADS", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    process = launch(
        "import os, pathlib\n"
        "from training import threads\n"
        "text = f'{os.environ[threads.THREADS]} {threads.chosen()}'\n"
        "pathlib.Path('threads' + os.environ['RANK']).write_text(text)\n"
    )
    out, _ = process.communicate(timeout=300)
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
    deadline = time.monotonic() + 300
    while len(list(tmp_path.glob("ready*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 75, out
    assert sorted(path.name for path in tmp_path.glob("saved*")) == ["saved0", "saved1"]
    assert "Traceback" not in out


# -- killed alone --------------------------------------------------------------------------------------------------

#: Ranks that are commands of this package.
RANKS = f"""
import os
os.environ["HERE"] = os.path.dirname(os.environ["READY"]) + "/" + os.environ["RANK"]
os.mkdir(os.environ["HERE"])
{FOLLOWS}
wait()
"""


def wait_for(*paths: Path) -> None:
    deadline = time.monotonic() + 300
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline, f"{paths} did not come"
        time.sleep(0.02)


@pytest.mark.parametrize("killed", ["launcher", "what started the launcher"])
def test_the_ranks_save_and_end_when_what_is_above_them_is_killed(launch, tmp_path, killed):
    """The launcher follows what started it, and passes that on; the ranks follow the launcher."""
    code = (
        "import os, pathlib, subprocess, sys; from training.parent import as_parent\n"
        "process = subprocess.Popen(sys.argv[1:], env={**os.environ, **as_parent()})\n"
        "pathlib.Path('launcher').write_text(str(process.pid)); process.wait()"
    )
    above = launch(RANKS, by=[sys.executable, "-c", code])
    wait_for(*(tmp_path / rank / "ready" for rank in "01"))
    launcher, *ranks = (int((tmp_path / name).read_text()) for name in ("launcher", "0/ready", "1/ready"))
    os.kill(launcher if killed == "launcher" else above.pid, signal.SIGKILL)
    saved = [tmp_path / rank / "saved" for rank in "01"]
    wait_for(*saved)
    above.communicate(timeout=300)
    deadline = time.monotonic() + 300
    while (left := [process for process in (launcher, *ranks) if alive(process)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left and all(path.exists() for path in saved)
