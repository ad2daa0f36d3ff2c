"""The predicted against the actual duration of a training: the demo corpus, both families, wall clock.

Each trial trains right after its estimate, in the same process, with the same settings. As a single trial depends on
chance, there are several. Measured are how far the predictions are off (median), and how often the training's time was
within the stated interval, which must hold in nine of ten.

python -m benchmarks.estimate [--preset demo] [--trials N] [--steps N] [--pieces N]     a line per trial, then the rows
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.harness import Row
from benchmarks.music.demo import prepared_demo
from training.registry import load_recipe
from training.stages.estimate import Estimate, estimate
from training.stages.train import train
from training.workspace import Workspace

WITHIN, HELD = 0.10, 0.90
TRIALS, PIECES = 6, 60
FAMILIES = ("spectocloud", "midi_generator")
STEPS = {"spectocloud": 144, "midi_generator": 300}


@dataclass(frozen=True)
class Trial:
    """A prediction, and the actual time."""

    found: Estimate
    took: float  # seconds

    @property
    def off(self) -> float:
        """The error as a share of the prediction; positive: the training took longer."""
        return self.took / self.found.training - 1

    @property
    def held(self) -> bool:
        return abs(self.took - self.found.training) <= self.found.doubt

    def line(self) -> str:
        found = self.found
        return (
            f"{found.title}: {found.training:.1f} s predicted ({found.training - found.doubt:.1f} to "
            f"{found.training + found.doubt:.1f}), {self.took:.1f} s taken ({self.off:+.1%}); {found.steps} steps, "
            f"{found.timed} timed, drift {found.drift:.1%}; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
        )


def measure(small: bool) -> list[Row]:
    """Rows E1 and E2: one per family; E3: all trials."""
    if small:
        return rows(trials("debug", 1, 10, dict.fromkeys(FAMILIES, 4)))
    return rows(trials("demo", TRIALS, PIECES, STEPS))


def trials(
    preset: str, number: int, pieces: int, steps: dict[str, int], say: Callable[[str], None] = lambda line: None
) -> dict[str, list[Trial]]:
    """Family -> its trials. The families alternate, so that changes in the host's speed affect both alike."""
    done: dict[str, list[Trial]] = {family: [] for family in steps}
    with tempfile.TemporaryDirectory() as place:
        workspace = Workspace(Path(place))
        with _quiet():
            prepared_demo(workspace, pieces)
        for at in range(number):
            for family, most in steps.items():
                # A warm-up, so that imports and one-time compilation are not part of the times.
                done[family].append(_trial(family, preset, most, workspace, warm=at == 0 and number > 1))
                say(done[family][-1].line())
    return done


def _trial(family: str, preset: str, steps: int, workspace: Workspace, *, warm: bool) -> Trial:
    recipe = load_recipe(family, preset, None, ["training.epochs=1000", f"training.max_steps={steps}"])
    with _quiet():
        if warm:
            estimate(recipe, workspace, device="cpu")
        found = estimate(recipe, workspace, device="cpu")
        before = time.perf_counter()
        train(recipe, workspace, device="cpu")
    took = time.perf_counter() - before
    shutil.rmtree(workspace.checkpoints(family))
    assert found is not None  # nothing was trained before
    return Trial(found, took)


def rows(done: dict[str, list[Trial]]) -> list[Row]:
    """One row per family with its median trial, and one with the share of all trials in which the interval held."""
    out = []
    for number, (family, found) in enumerate(done.items(), 1):
        off = median(abs(trial.off) for trial in found)
        middle = min(found, key=lambda trial: abs(abs(trial.off) - off))
        out.append(
            Row(
                f"E{number}", f"{family}: estimated against taken, median of {len(found)} trials",
                middle.found.training, middle.took, "s", off, f"<= {WITHIN:g} off", off <= WITHIN,
                f"off by {', '.join(f'{trial.off:+.1%}' for trial in found)}; {middle.found.steps} steps, "
                f"{middle.found.timed} timed; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores",
            )
        )  # fmt: skip
    every = [trial for found in done.values() for trial in found]
    held = sum(trial.held for trial in every) / len(every)
    widths = median(trial.found.doubt / trial.found.training for trial in every)
    out.append(
        Row(
            "E3", "trainings whose time lay in the interval that was stated", 100 * held, None, "%", 100 * held,
            f">= {100 * HELD:.0f} %", held >= HELD,
            f"{len(every)} trials; the interval: {widths:.0%} to either side (median)",
        )
    )  # fmt: skip
    return out


@contextlib.contextmanager
def _quiet():
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def main(arguments: Sequence[str]) -> None:
    from benchmarks.table import line

    parser = argparse.ArgumentParser(prog="python -m benchmarks.estimate", description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="demo", help="demo or debug")
    parser.add_argument("--trials", type=int, default=TRIALS, help="number of trials of each family")
    parser.add_argument("--steps", type=int, help="steps of each training; default: 144 and 300")
    parser.add_argument("--pieces", type=int, default=PIECES, help="number of pieces in the demo corpus")
    options = parser.parse_args(arguments)
    steps = dict.fromkeys(FAMILIES, options.steps) if options.steps else STEPS
    done = trials(options.preset, options.trials, options.pieces, steps, lambda text: print(text, flush=True))
    for row in rows(done):
        print(line(row.plain()))


if __name__ == "__main__":
    main(sys.argv[1:])
