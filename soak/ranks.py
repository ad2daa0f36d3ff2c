"""Row 18: one of two ranks is killed; the supervisor starts both again, and they continue.

This module is also the program of each rank: python -m training.runner.launch --nproc_per_node=2 -m soak.ranks ROOT
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch

from soak.harness import MUTANT, Mutant, Row, Trial, each, patched
from soak.listing import find_mutant
from soak.processes import Child, expect, forked, start
from soak.runs import Toy, expect_done, expect_same, step_of, train
from training.runner import supervisor
from training.runner.supervisor import Supervisor

STEPS = 12  # 4 epochs of 22 samples in global batches of 8
RANKS = 2


def rank_killed(trial: Trial) -> None:
    """SIGKILL to one of two ranks at a random moment of a run."""
    root = trial.folder / "run"
    root.mkdir()
    child = start(_supervised, root)
    rank, goal = trial.random.randrange(RANKS), trial.random.randint(0, STEPS - 3)
    label = f"rank {rank} killed after step {goal}"
    _wait(child, lambda: (root / f"rank{rank}.pid").exists() and step_of(root) >= goal, label)
    time.sleep(trial.random.uniform(0, 0.1))
    os.kill(int((root / f"rank{rank}.pid").read_text()), signal.SIGKILL)
    ended = child.wait(150)
    expect_done(ended)
    expect(
        "killed by SIGKILL" in ended.output and "restart 1 of" in ended.output, f"{label}: not reported\n{ended.tail}"
    )
    digests = {(root / f"rank{number}.weights").read_text() for number in range(RANKS)}
    expect(len(digests) == 1, f"{label}: the ranks ended with different weights")
    complete = trial.soak.folder / "reference"
    if not complete.exists():  # only now, as it takes long and the trials of a mutant may fail before
        expect_done(forked(_uninterrupted, complete, seconds=150))
    expect_same(root, complete)


def _wait(child: Child, reached: Callable[[], bool], label: str) -> None:
    until = time.monotonic() + 120
    while not reached():
        expect(child.running and time.monotonic() < until, f"{label}: was never reached\n{child.output[-2000:]}")
        time.sleep(0.005)


def _supervised(root: Path) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    index = root / "checkpoints" / "toy" / "index.json"
    command = [
        sys.executable, "-m", "training.runner.launch", "--standalone", f"--nproc_per_node={RANKS}", "-m",
        "soak.ranks", str(root),
    ]  # fmt: skip
    run = Supervisor(command, title="Toy", index=index, restarts=supervisor.RESTARTS, pauses=(0.1,))
    sys.exit(run.run())


def _uninterrupted(root: Path) -> None:
    root.mkdir()
    _supervised(root)


class Ranked(Toy):
    """Keeps the model, to compare its weights at the end."""

    def build(self, constants: dict) -> torch.nn.Module:
        type(self).model = super().build(constants)
        return self.model


def _rank(root: Path) -> None:
    number = os.environ["RANK"]
    (root / f"rank{number}.new").write_text(str(os.getpid()))
    (root / f"rank{number}.new").rename(root / f"rank{number}.pid")
    train(root, Ranked)
    weights = b"".join(p.detach().numpy().tobytes() for p in Ranked.model.parameters())
    (root / f"rank{number}.weights").write_text(hashlib.sha256(weights).hexdigest())


ROWS = (
    Row(
        18, "one of two ranks is killed", "both are started again, resume, and end with the same bits",
        each(rank_killed, 400), full=10, small=1,
        mutants=(Mutant("not started again", patched(supervisor, "RESTARTS", 0), 1),),
    ),
)  # fmt: skip

if __name__ == "__main__":
    wanted = os.environ.get(MUTANT)
    with find_mutant(wanted).fault() if wanted else nullcontext():
        _rank(Path(sys.argv[1]))
