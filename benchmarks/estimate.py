"""The predicted against the actual duration of a training: the demo corpus, both families, wall clock.

The training runs right after its estimate, in the same process, with the same settings, in a separate workspace.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import Row
from benchmarks.music.demo import prepared_demo
from training.registry import load_recipe
from training.stages.estimate import estimate
from training.stages.train import train
from training.workspace import Workspace

WITHIN = 0.10
RUNS = (("spectocloud", ["training.epochs=2"]), ("midi_generator", ["training.epochs=6"]))


def measure(small: bool) -> list[Row]:
    """Rows E1 and E2: one per family."""
    with tempfile.TemporaryDirectory() as place, _quiet():
        workspace = Workspace(Path(place))
        prepared_demo(workspace, 10 if small else 60)
        return [_row(f"E{n}", *run, workspace, small) for n, run in enumerate(RUNS, 1)]


def _row(bar: str, family: str, overrides: Sequence[str], workspace: Workspace, small: bool) -> Row:
    recipe = load_recipe(family, "debug" if small else "demo", None, [] if small else list(overrides))
    if not small:  # warm up: imports and one-time compilation should not be part of the estimate
        estimate(recipe, workspace, device="cpu")
    predicted = estimate(recipe, workspace, device="cpu")
    before = time.perf_counter()
    train(recipe, workspace, device="cpu")
    took = time.perf_counter() - before
    shutil.rmtree(workspace.checkpoints(family))
    off = abs(took / predicted.training - 1)
    low, high = predicted.training - predicted.doubt, predicted.training + predicted.doubt
    return Row(
        bar, f"{family}: estimated against taken", predicted.training, took, "s", off, f"<= {WITHIN:g} off",
        off <= WITHIN, f"{predicted.steps} steps, {predicted.timed} timed; predicted between {low:.1f} and "
        f"{high:.1f} s; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores",
    )  # fmt: skip


@contextlib.contextmanager
def _quiet():
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield
