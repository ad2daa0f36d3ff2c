"""Bar 8: how long a user waits for `--help`, and how long a rented GPU waits until a training continues.

Both are complete processes, timed from outside: `python -m training --help`, and a resume, from its start to the log
line of its first step. This includes the start of Python and torch, the stores, verifying and loading the checkpoint,
the sanity check and the data loader. On the demo corpus, on a CPU, without torch.compile.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.harness import Row, median
from benchmarks.music.demo import prepared_demo
from benchmarks.running import quiet
from training.registry import recipe_type
from training.workspace import PROJECT, Workspace

HELP, FIRST_STEP = 0.5, 10.0  # s
STEPS = 3  # of a session


def measure(small: bool) -> list[Row]:
    """Rows 8a to 8c."""
    rounds = 2 if small else 9
    times = [_help() for _ in range(rounds + 1)][1:]
    rows = [_row("8a", "`python -m training --help`", times, HELP)]
    with tempfile.TemporaryDirectory() as place:
        workspace = Workspace(Path(place))
        with quiet():
            prepared_demo(workspace, 10 if small else 60)
        families = {"8b": "spectocloud", "8c": "midi_generator"}
        for bar, family in list(families.items())[-1 if small else 0 :]:
            preset = "debug" if small else "demo"
            session(family, preset, workspace, STEPS)
            sessions = [session(family, preset, workspace, (n + 2) * STEPS) for n in range(1 if small else 5)]
            assert all(first == (n + 1) * STEPS + 1 for n, (_, first) in enumerate(sessions)), "a run did not resume"
            seconds = [seconds for seconds, _ in sessions]
            what = f"{recipe_type(family).title}, {preset} preset: from a resume's start to its first step"
            rows.append(_row(bar, what, seconds, FIRST_STEP))
    return rows


def _row(bar: str, what: str, seconds: list[float], most: float) -> Row:
    typical = median(seconds)
    spread = {"ours": [min(seconds), typical, max(seconds)]}
    note = f"median of {len(seconds)}, from {min(seconds):.2f} to {max(seconds):.2f} s"
    return Row(bar, what, typical, None, "s", typical, f"<= {most:g} s", typical <= most, note, spread)


def _help() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "training", "--help"], cwd=PROJECT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def session(family: str, preset: str, workspace: Workspace, until: int) -> tuple[float, int]:
    """Train to step `until` with the real command. Returns the seconds to the first step's log line, and its number."""
    command = [sys.executable, "-m", "training", "train", family, "--preset", preset, "--device", "cpu",
               "--out", str(workspace.root), "--epochs", "1000", "--set", "training.log_every=1",
               "--set", f"training.max_steps={until}"]  # fmt: skip
    began, first, output = time.perf_counter(), None, []
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout or ():
            output.append(line)
            found = re.match(r"step (\d+)/", line)
            if found and first is None:
                first = (time.perf_counter() - began, int(found[1]))
    if process.returncode or first is None:
        raise RuntimeError(f"training ended with {process.returncode}: " + "".join(output)[-1000:])
    return first
