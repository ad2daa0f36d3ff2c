"""The heartbeat, and the two that detect a hang by it: scripts/health.py and the watchdog, run as processes."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import pickle
import subprocess
import sys
import time

import pytest
import torch

from tests.engine import toy
from training.engine.checkpoints import checkpoint_file
from training.engine.checkpoints.checkpoint_folder import CheckpointFolder
from training.engine.checkpoints.index import FORMAT
from training.engine.process import distributed, heartbeat
from training.workspace import PROJECT


@pytest.fixture
def process(tmp_path):
    """A process that calls `beat` for each line it is sent, and `stop_watching` for the line `stop`."""
    code = (
        "import sys; from training.engine.process import heartbeat; heartbeat.SECONDS = 0.0\n"
        "heartbeat.watch(0, None)\n"
        "for line in sys.stdin:\n"
        "    heartbeat.stop_watching() if line == 'stop\\n' else heartbeat.beat()\n"
        "    print('done', flush=True)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "ATHANOR_HEARTBEAT": str(tmp_path / "beat")}
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True, env=environment)

    def send(line: str) -> None:
        process.stdin.write(line + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == "done\n"

    process.send = send
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def health(folder, seconds="60"):
    environment = {"PATH": os.environ["PATH"], "ATHANOR_HEARTBEAT": str(folder), "ATHANOR_HEALTH_SECONDS": seconds}
    words = [sys.executable, str(PROJECT / "scripts" / "health.py")]
    return subprocess.run(words, env=environment, capture_output=True, text=True)


def test_the_health_check_tells_running_hung_and_finished_processes_apart(process, tmp_path):
    folder = tmp_path / "beat"
    assert health(folder).stdout == "no training runs\n"
    process.send("beat")
    assert health(folder).returncode == 0 and "1 training process" in health(folder).stdout
    (file,) = folder.iterdir()
    os.utime(file, (time.time() - 1000, time.time() - 1000))
    hung = health(folder)
    assert hung.returncode == 1 and f"process {process.pid} has made no step for 100" in hung.stdout
    assert health(folder, "2000").returncode == 0
    process.send("beat")
    assert health(folder).returncode == 0
    process.send("stop")
    assert health(folder).stdout == "no training runs\n"


def test_the_health_check_ignores_a_process_that_has_ended(process, tmp_path):
    process.send("beat")
    (file,) = (tmp_path / "beat").iterdir()
    os.utime(file, (0, 0))
    process.kill()
    process.wait()
    assert health(tmp_path / "beat").returncode == 0


def test_a_run_sends_a_heartbeat_at_every_step_and_validation_batch_until_it_ends(tmp_path, monkeypatch):
    beats = []
    monkeypatch.setattr("training.engine.loop.run.beat", lambda: beats.append("step"))
    monkeypatch.setattr("training.engine.loop.validate.beat", lambda: beats.append("held-out"))
    monkeypatch.setattr(heartbeat, "stop_watching", lambda: beats.append("stop"))
    done = toy.run(tmp_path)
    assert beats.count("step") == done.step
    assert beats.count("held-out") > 0
    assert beats[-1] == "stop" and set(beats[: beats.index("stop")]) == {"step", "held-out"}


# -- the watchdog --------------------------------------------------------------------------------------------------

STOP = "heartbeat.stop_watching()"
WORK = """
import ctypes, signal, sys, threading, time
from pathlib import Path
from training.engine.process import heartbeat

def hang():
    {how}

threading.Thread(target=threading.Event().wait, daemon=True).start()
heartbeat.watch(1 / 60, Path(sys.argv[1], "run", "stacks.txt"))
for step in range(30):
    time.sleep(0.05)
    heartbeat.beat()
{then}
"""
HANGS = {
    "a lock that is never released": "(lock := threading.Lock()).acquire(); lock.acquire()",
    "C code that keeps the interpreter's lock": "mutex = ctypes.create_string_buffer(64)\n"
    "    for _ in range(2): ctypes.PyDLL(None).pthread_mutex_lock(mutex)",
}


def work(folder, *, how="pass", then="hang()") -> subprocess.CompletedProcess:
    words = [sys.executable, "-c", WORK.format(how=how, then=then), str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize("hang", HANGS)
def test_a_hung_process_writes_its_stacks_and_exits(tmp_path, hang):
    """Also where a collective, a driver or a disk never returns to Python."""
    process = work(tmp_path, how=HANGS[hang])
    assert process.returncode == 1, process.stderr
    for text in (process.stderr, (tmp_path / "run/stacks.txt").read_text()):
        assert "in hang" in text and "threading.py" in text, "the main thread, and the other one"


def test_heartbeats_restart_the_watchdog_and_nothing_is_left_after_it_is_stopped(tmp_path):
    """30 steps take longer than the limit; afterwards no timer, thread or empty file is left."""
    process = work(tmp_path, then=f"{STOP}; time.sleep(1.7); print(signal.getitimer(signal.ITIMER_REAL))")
    assert (process.returncode, process.stdout) == (0, "(0.0, 0.0)\n"), process.stderr
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.parametrize("ends", ["well", "with an error"])
def test_the_watchdog_runs_from_building_the_model_to_the_end_of_the_run(tmp_path, monkeypatch, ends):
    """Preparing data before that may take hours without a heartbeat."""
    calls = []
    monkeypatch.setattr(heartbeat, "watch", lambda minutes, path: calls.append((minutes, path.name)))
    monkeypatch.setattr(heartbeat, "stop_watching", lambda: calls.append("stop"))

    class Reported(toy.ToyRecipe):
        def fit_constants(self, rows):
            calls.append("constants")
            return super().fit_constants(rows)

        def build(self, constants):
            calls.append("model")
            if ends == "with an error":
                raise RuntimeError
            return super().build(constants)

    with pytest.raises(RuntimeError) if ends == "with an error" else contextlib.nullcontext():
        toy.run(tmp_path, Reported, training={"epochs": 1, "hang_minutes": 3})
    assert calls[:3] == ["constants", (3, "stacks_of_rank_0.txt"), "model"] and calls[-1] == "stop"


def test_waiting_for_rank_0_does_not_count_as_a_hang(monkeypatch):
    """Rank 0 may save to a slow disk: the other ranks send heartbeats while they wait."""
    beats = []
    monkeypatch.setattr(distributed, "beat", lambda: beats.append(1))

    class Store:
        def check(self, _keys):
            return len(beats) >= 3

        def get(self, _key):
            return pickle.dumps((5, None))

    assert distributed.Ranks(1, 2, torch.device("cpu"), Store()).on_rank_zero(lambda: 0) == 5


def test_a_save_to_a_slow_disk_does_not_count_as_a_hang(tmp_path, monkeypatch):
    beats = []
    monkeypatch.setattr(checkpoint_file, "beat", lambda: beats.append(1))
    entry = {"step": 1, "epoch": 0, "value": None, "run_id": "a"}
    CheckpointFolder(tmp_path).save({"format": FORMAT, "model": {str(n): torch.zeros(9) for n in range(5)}}, entry)
    assert len(beats) >= 5, "at least one heartbeat for each tensor"


def test_hang_minutes_of_0_starts_no_watchdog(tmp_path, monkeypatch):
    armed = []
    monkeypatch.setattr(faulthandler, "dump_traceback_later", lambda *_a, **_k: armed.append(1))
    toy.run(tmp_path, training={"hang_minutes": 0, "epochs": 1})
    assert not armed
