"""Row 5: SIGTERM or SIGINT in every phase of a job, through the real command line.

This module is also that command in a separate interpreter: python -m soak.stops ROOT PHASE NUMBER
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from soak.harness import Mutant, Row, Trial, edited, patched
from soak.processes import Ended, expect, forked, start
from soak.runs import (
    RICH,
    SAMPLES,
    VAL_SAMPLES,
    Toy,
    beside,
    expect_done,
    expect_same,
    merged,
    step_of,
    train,
)
from tests import toys
from tests.engine import toy
from tests.export import toy as exporting
from training import cli
from training.data.manifest import Row as ManifestRow
from training.engine.checkpoints import checkpoint_folder
from training.engine.loop import run
from training.engine.process import signals
from training.errors import Interrupted
from training.export import coreml, package, receipt
from training.stages import export as export_stage
from training.stages import splits as splits_stage
from training.workspace import Workspace

WITHIN = 10.0  # seconds
HELD = 0.25  # seconds that a phase is prolonged, so that the signal arrives during it
PHASES = ("warm-up", "compile", "step", "validation", "save", "export")
#: Phase -> how many points of it a signal may be sent at; a point is identified by its number.
NUMBERS = {"warm-up": 4, "compile": 1, "step": 24, "validation": 12, "save": 12, "export": 4}
EXPORTED = "toy_encoder"


def stop_requested(trial: Trial) -> None:
    """A signal in one of the phases must end the command in time; the same command again must then complete the work.
    The command runs in a forked process; in every fifth round of the phases, in a new interpreter."""
    phase, number_of_signal, own = _kind(trial.index)
    number = trial.random.randrange(NUMBERS[phase])
    root = trial.folder / "run"
    root.mkdir()
    label = f"{number_of_signal.name} in {phase}, point {number}"
    process = (_Interpreter if own else start)(_command, root, phase, number)
    until = time.monotonic() + 120
    while not (root / "phase").exists():
        expect(process.running and time.monotonic() < until, f"{label}: was never reached\n{process.output[-2000:]}")
        time.sleep(0.002)
    time.sleep(trial.random.uniform(0, HELD if phase != "compile" else 4.0))
    signalled = time.monotonic()
    process.kill(number_of_signal)
    ended = process.wait(WITHIN + 5)
    took = time.monotonic() - signalled
    expect(not ended.timed_out and took <= WITHIN, f"{label}: it took {took:.1f} s\n{ended.tail}")
    expect(ended.code == 75, f"{label}: exit code {ended.code}\n{ended.tail}")
    step = 0
    if phase != "export":
        step = max(step_of(root), 0)
        lost = f"{label}: step {_begun(root) + 1} had begun, and step {step} is saved\n{ended.tail}"
        expect(step >= _begun(root), lost)
    again = forked(_command, root, "export" if phase == "export" else "none", -1)
    expect_done(again)
    if phase == "export":
        _expect_exported(root, label)
    elif not (phase == "compile" and step):  # compiled code rounds differently from the reference
        expect_same(root, trial.soak.folder / "reference")


def _kind(index: int) -> tuple[str, signal.Signals, bool]:
    turn = index // len(PHASES)
    return PHASES[index % len(PHASES)], (signal.SIGTERM, signal.SIGINT)[turn % 2], turn % 5 == 4


def _label(index: int) -> str:
    phase, number, own = _kind(index)
    return f"{number.name} in {phase}{', a separate process' * own}"


def _begun(root: Path) -> int:
    """The number of the newest step that began, counted from 0; also 0 if there is none."""
    path = root / "begun"
    return int(path.read_text().split()[-1]) if path.exists() else 0


def _expect_exported(root: Path, label: str) -> None:
    verified = forked(_verify, root)
    expect(verified.code == 0, f"{label}: after the same command again the exports do not verify\n{verified.tail}")
    litter = [path.name for path in (root / "exports").iterdir() if path.name.startswith(".making")]
    expect(not litter, f"{label}: left behind: {litter}")


# -- the command ---------------------------------------------------------------------------------------------------


class Phased(Toy):
    """Creates the file `phase` when it reaches the requested point, and waits there for HELD seconds."""

    root: ClassVar[Path]
    wanted: ClassVar[tuple[str, int]]
    reached: ClassVar[dict[str, int]]  # phase -> number of the last point

    @classmethod
    def at(cls, phase: str, number: int | None = None) -> None:
        """Called at each point of `phase`. `number`: of this point; by default, one more than the last."""
        count = cls.reached.get(phase, -1) + 1
        cls.reached[phase] = count
        if cls.wanted == (phase, count if number is None else number):
            (cls.root / "phase").touch()
            if phase != "compile":
                time.sleep(HELD)

    def dataset(self, rows: list[Any], training: bool) -> toy.ToyDataset:
        self.at("warm-up")
        return super().dataset(rows, training)

    def build(self, constants: dict[str, Any]) -> toy.ToyModel:
        self.at("warm-up")
        return super().build(constants)

    def validate(self, model: Any, batch: dict[str, Any]) -> dict[str, Any]:
        self.validated = getattr(self, "validated", 0) + 1
        if self.validated == 1:
            self.at("warm-up")
            self.at("compile")
        elif self.validated > 2:  # the first two batches are those of the sanity check
            self.at("validation")
        return super().validate(model, batch)

    def before_loss(self, step: int) -> None:
        with (self.root / "begun").open("a") as file:
            file.write(f"{step}\n")
        self.at("step", step)


def _command(root: Path, phase: str, number: int) -> None:
    """`python -m training train toy`, or `export`; never returns."""
    Phased.root, Phased.wanted, Phased.reached = root, (phase, number), {}
    arguments = _prepare_export(root) if phase == "export" else _prepare_training(root, phase)
    sys.exit(cli.main([*arguments, "--out", str(root)]))


def _prepare_training(root: Path, phase: str) -> list[str]:
    sys.modules.setdefault("soak.stops", sys.modules[__name__])  # if this is __main__: the registry imports by name
    toys.add(Phased)
    splits = {"train": toy.rows(SAMPLES), "val": toy.rows(VAL_SAMPLES, 1000)}
    splits_stage.load_split = lambda recipe, workspace, split, **roots: splits[split]
    _hold(checkpoint_folder, "write_state", "save")
    rare = {} if phase == "save" else {"save_minutes": 10.0}
    settings = merged(toy.BASE, merged(RICH, {"training": rare | {"compile": phase == "compile"}}))
    (root / "config.yaml").write_text(json.dumps(settings))  # JSON is YAML, too
    return ["train", "toy", "--config", str(root / "config.yaml"), "--device", "cpu"]


def _prepare_export(root: Path) -> list[str]:
    toys.add(exporting.EncoderRecipe, exporting.DecoderRecipe)
    export_stage.load_split = lambda *_, **__: [ManifestRow({"id": str(n)}, f"toy.jsonl:{n}") for n in range(3)]
    receipt.code_version = lambda *folders: f"code of {folders}"
    coreml.installed = lambda: False  # it is slow, and has no further kind of point
    workspace, recipe = Workspace(root), exporting.EncoderRecipe
    if not workspace.manifests.exists():
        workspace.manifests.mkdir(parents=True)
        workspace.manifest(recipe.manifest, "val").write_text('{"id": "0"}\n')
        exporting.save_checkpoint(workspace, recipe)
    _hold(export_stage, "_check_finite", "export")
    for name in ("_weights", "_onnx", "_int8_files"):
        _hold(package.Package, name, "export")
    return ["export", EXPORTED]


def _hold(owner: Any, name: str, phase: str) -> None:
    real = getattr(owner, name)

    def held(*arguments: Any, **options: Any) -> Any:
        Phased.at(phase)
        return real(*arguments, **options)

    setattr(owner, name, held)


def _verify(root: Path) -> None:
    toys.add(exporting.EncoderRecipe, exporting.DecoderRecipe)
    sys.exit(cli.main(["verify", str(root / "exports")]))


class _Interpreter:
    """The command in a new interpreter, with the interface of processes.Child."""

    def __init__(self, _command: Callable[..., None], root: Path, phase: str, number: int):
        self.root, self.began = root, time.monotonic()
        with (root / "output").open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "soak.stops", str(root), phase, str(number)],
                stdout=output, stderr=output, env=os.environ | {"OMP_NUM_THREADS": "1"},
            )  # fmt: skip

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    @property
    def output(self) -> str:
        return (self.root / "output").read_text(errors="replace")

    def kill(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float) -> Ended:
        late = False
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            late = True
            self.process.kill()
            self.process.wait()
        took = time.monotonic() - self.began
        return Ended(self.process.returncode, None, None, self.output, took, late)


ROWS = (
    Row(
        5, "SIGTERM or SIGINT in warm-up, compilation, step, validation, save, export",
        f"exit 75 within {WITHIN:g} s, the step under way lost at most; the same command again ends with the same bits",
        beside({"reference": partial(train, training={"save_minutes": 10.0})}, stop_requested, name=_label),
        full=30, small=6,
        mutants=(
            Mutant("a stop is not noted in training", patched(signals.Signals, "__enter__", lambda self: self), 6),
            Mutant("leaves without saving", edited(run.Run, "save_due", "or self.asked_to_stop or", "or"), 6),
            Mutant("another exit code", patched(Interrupted, "exit_code", 1), 6),
        ),
    ),
)  # fmt: skip

if __name__ == "__main__":
    _command(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
