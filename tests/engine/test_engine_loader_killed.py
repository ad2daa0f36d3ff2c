"""A run whose data loader workers are killed, and one that is killed itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from torch.testing import assert_close

from tests.engine import toy
from tests.engine.test_engine_loader import gone


class Killed(toy.ToyRecipe):
    """Kills one of its data loader workers in every third step, and in every second held-out batch."""

    calls = 0

    def losses(self, model, batch, progress):
        if progress.step % 3 == 1:
            kill_one()
        return super().losses(model, batch, progress)

    def validate(self, model, batch):
        type(self).calls += 1
        if self.calls % 2 and self.calls > 2:
            kill_one()
        return super().validate(model, batch)


def children() -> list[int]:
    """Process ids of the data loader workers. A test's process has another child, if an earlier test has started the
    interpreter of tests/warm.py, which later tests need."""
    found = [int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]
    return [pid for pid in found if not _is_warm(pid)]


def _is_warm(pid: int) -> bool:
    try:
        return b"tests.warm" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:  # it has just ended
        return False


def kill_one() -> None:
    os.kill(children()[-1], signal.SIGKILL)


def test_a_run_whose_workers_are_killed_ends_in_the_same_weights(tmp_path):
    """Workers are killed in the middle of steps and of validation batches."""
    from training.engine.checkpoints import checkpoint_file

    straight = toy.run(tmp_path / "straight", data={"num_workers": 0})
    killed = toy.run(tmp_path / "killed", Killed, data={"num_workers": 2})
    log = (killed.run / "log.txt").read_text()
    assert log.count("SIGKILL") >= 2
    assert_close(
        checkpoint_file.read(killed.last)["model"], checkpoint_file.read(straight.last)["model"], rtol=0, atol=0
    )  # fmt: skip
    assert killed.metrics == straight.metrics


ORPHANS = """
import os, signal, sys, time
sys.path[:0] = [{root!r}]
from pathlib import Path
from tests.engine.test_engine_loader import Dataset, loader
from training.workspace import exclusive

with exclusive(Path({folder!r}), "a test"), \\
        loader(Dataset(lambda index: time.sleep(1000) if index == 9 else None), patience=1000) as batches:
    for number, batch in enumerate(batches):
        if number == 2:
            print(*[worker.pid for worker in batches.workers], flush=True)
"""


def test_a_killed_run_leaves_no_worker_and_no_lock(tmp_path):
    """Not even a worker that is in the middle of an item; the next run can use the folder at once."""
    from training.workspace import exclusive

    root = str(Path(__file__).parents[2])
    with subprocess.Popen([sys.executable, "-c", ORPHANS.format(root=root, folder=str(tmp_path))], stdout=-1) as run:
        pids = [int(word) for word in run.stdout.readline().split()]
        assert len(pids) == 2 and not any(gone(pid) for pid in pids)
        run.kill()
        run.wait()
        with exclusive(tmp_path, "the next run"):
            pass
        until = time.monotonic() + 5
        while not all(ended(pid) for pid in pids) and time.monotonic() < until:
            time.sleep(0.001)
    assert time.monotonic() < until


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
