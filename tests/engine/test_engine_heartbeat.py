"""The sign of life, and who judges it (scripts/health.py), as processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from tests.engine import toy
from training.engine import heartbeat
from training.workspace import PROJECT


@pytest.fixture
def process(tmp_path):
    """A process that beats once for each line it is sent, and rests at the line `rest`."""
    code = (
        "import sys; from training.engine import heartbeat; heartbeat.SECONDS = 0.0\n"
        "for line in sys.stdin:\n"
        "    heartbeat.rest() if line == 'rest\\n' else heartbeat.beat()\n"
        "    print('done', flush=True)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "ATHANOR_HEARTBEAT": str(tmp_path / "beat")}
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True, env=environment)

    def say(line: str) -> None:
        process.stdin.write(line + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == "done\n"

    process.say = say
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def health(folder, seconds="60"):
    environment = {"PATH": os.environ["PATH"], "ATHANOR_HEARTBEAT": str(folder), "ATHANOR_HEALTH_SECONDS": seconds}
    words = [sys.executable, str(PROJECT / "scripts" / "health.py")]
    return subprocess.run(words, env=environment, capture_output=True, text=True)


def test_alive_hung_and_over(process, tmp_path):
    folder = tmp_path / "beat"
    assert health(folder).stdout == "no training runs\n"
    process.say("beat")
    assert health(folder).returncode == 0 and "1 training process" in health(folder).stdout
    (mark,) = folder.iterdir()
    os.utime(mark, (time.time() - 1000, time.time() - 1000))
    hung = health(folder)
    assert hung.returncode == 1 and f"process {process.pid} has made no step for 100" in hung.stdout
    assert health(folder, "2000").returncode == 0
    process.say("beat")
    assert health(folder).returncode == 0
    process.say("rest")
    assert health(folder).stdout == "no training runs\n"


def test_a_process_that_ended_is_not_hung(process, tmp_path):
    process.say("beat")
    (mark,) = (tmp_path / "beat").iterdir()
    os.utime(mark, (0, 0))
    process.kill()
    process.wait()
    assert health(tmp_path / "beat").returncode == 0


def test_a_training_beats_at_every_step_and_held_out_batch_and_rests_when_it_is_over(tmp_path, monkeypatch):
    beats = []
    monkeypatch.setattr("training.engine.run.beat", lambda: beats.append("step"))
    monkeypatch.setattr("training.engine.validate.beat", lambda: beats.append("held-out"))
    monkeypatch.setattr(heartbeat, "rest", lambda: beats.append("rest"))
    done = toy.run(tmp_path)
    assert beats.count("step") == done.step
    assert beats.count("held-out") > 0
    assert beats[-1] == "rest" and beats.count("rest") == 1
