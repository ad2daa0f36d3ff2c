"""The real command line under its supervisor gets a signal in phases that come before a training (soak/ has the other
phases, and repetitions): it ends within ten seconds with 75, leaves no incomplete file and no process, and can be
continued."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.domains.music.corpora import make_corpus
from training.engine.checkpoints import checkpoint_file
from training.engine.checkpoints.checkpoint_folder import CheckpointFolder

PROJECT = Path(__file__).resolve().parents[2]
LITTER = (".saving-*", ".writing-*", ".making-*")
#: phase -> (verb, a text that it prints when it reaches the phase, or the seconds after its start)
PHASES = {
    "imports of prepare": ("prepare", 0.4),
    "decoding": ("prepare", "tokens: "),
    "imports of train": ("train", 1.2),
    "first batch": ("train", "M parameters"),
}


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A workspace in which one phase after the other is begun, stopped, and continued."""
    return make_corpus(tmp_path_factory.mktemp("stopping"), songs=6)


def begin(out: Path, verb: str) -> subprocess.Popen:
    words = [sys.executable, "-m", "training.runner.supervisor", "--restarts", "0", "--"]
    words += [sys.executable, "-m", "training", verb]
    if verb == "train":
        words += ["midi_generator", "--preset", "debug", "--device", "cpu", "--set", "training.max_steps=5000"]
        words += ["--epochs", "1000"]
    else:
        words += ["--val-split", "0.3"]
    return subprocess.Popen(
        [*words, "--out", str(out), "--midi-root", str(out / "midi")], cwd=out, text=True, bufsize=1,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def session(leader: int) -> list[str]:
    """Processes that are left of a session."""
    table = subprocess.check_output(["ps", "-eo", "sess,stat,args"], text=True).splitlines()[1:]
    return [line for line in table if line.split()[0] == str(leader) and not line.split()[1].startswith("Z")]


@pytest.mark.parametrize("phase", PHASES)
def test_a_request_to_stop_ends_each_phase_within_ten_seconds(out, phase):
    verb, moment = PHASES[phase]
    process = begin(out, verb)
    if isinstance(moment, float):
        while not Path("/proc", str(process.pid), "task", str(process.pid), "children").read_text():
            time.sleep(0.01)
        time.sleep(moment)
    else:
        assert any(moment in line for line in process.stdout)
    began = time.monotonic()
    process.send_signal(signal.SIGINT if phase == "decoding" else signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 75 and time.monotonic() - began < 10, output
    assert "Traceback" not in output and not session(process.pid)
    assert [path for name in LITTER for path in out.rglob(name)] == []
    if phase == "decoding":  # what comes next needs it
        process = begin(out, verb)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output


def test_a_closed_pipe_does_not_prevent_the_last_save(out):
    """`train_cuda.sh | tee run.log`: the same Ctrl-C ends tee, and every later write to the pipe is an error."""
    process = begin(out, "train")
    assert any("step 1/" in line for line in process.stdout)
    process.stdout.close()
    process.terminate()
    assert process.wait(60) == 75
    newest = CheckpointFolder(out / "checkpoints" / "midi_generator").latest()
    assert checkpoint_file.read(newest)["progress"]["step"] >= 1
