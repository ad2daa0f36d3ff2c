"""Row 19: trackers that cannot be reached, and logs whose files are deleted or whose disk is full, in a run that must
continue.

The cost of a tracker is the time that the training spends in its calls, as a share of the training's time. Comparing
the times of two runs would not do: on a busy machine they differ by more than the permitted 5 %.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import torch

from soak import mounts
from soak.harness import Mutant, Row, Trial, patched
from soak.processes import expect
from soak.runs import Toy, beside, expect_same, train
from training.engine.loop import loop
from training.engine.tracking import append_only as lines
from training.engine.tracking import tracker as tracking
from training.engine.tracking.tracker import Tracker

MOST = 0.05  # largest permitted share of the training's time
STEP = 0.01  # seconds that a step takes at least
END = 5.0  # seconds that the end may take beyond LAST_SECONDS, on a busy machine
SETTINGS = {"training": {"log_every": 5, "save_minutes": 10.0}}  # for 96 steps
SAMPLES = 96

#: A stand-in for the wandb package. The environment variable SOAK_FAULT selects its fault: "hangs in log".
FAKE = """
import os, signal, sys, time
fault = os.environ["SOAK_FAULT"]
def misbehave(where):
    if fault == "raises in " + where: raise ConnectionError("unreachable")
    if fault == "hangs in " + where: time.sleep(3600)
    if fault == "dies in " + where: os.kill(os.getpid(), signal.SIGKILL)
    if fault == "is slow in " + where: time.sleep(0.5)
    if fault == "floods in " + where: [print("x" * 1000) for _ in range(1000)]
class Run:
    url = "https://wandb.example/run"
    def log(self, values, step): misbehave("log")
    def finish(self): misbehave("finish")
def init(**options): misbehave("init"); return Run()
misbehave("import")
"""
WANDB = [f"{how} in {where}" for how in ("hangs", "raises", "dies", "is slow", "floods")
         for where in ("init", "log", "finish", "import")]  # fmt: skip
LOGS = [
    "its folder is deleted",
    "metrics.jsonl is deleted",
    "all event files are deleted",
    "the disk is full for a while",
]
FAULTS = [fault for pair in zip(WANDB, LOGS * len(WANDB), strict=False) for fault in pair]  # alternating


class Losing(Toy):
    """Runs `faults`, which damage the logs, at their steps. Its steps take as long as those of a small model: compared
    with a toy's two milliseconds, writing a line to a log would be a large share."""

    faults: ClassVar[dict[int, Callable[[], Any]]] = {}

    def before_loss(self, step: int) -> None:
        until = time.perf_counter() + STEP / 2  # of two micro-batches
        while time.perf_counter() < until:
            pass
        for due in [at for at in self.faults if at <= step]:
            self.faults.pop(due)()


def _seconds_in(owner: Any, *names: str) -> dict[str, float]:
    """Wrap these functions of `owner`; returns a dictionary in which the seconds spent in each are summed up."""
    spent = dict.fromkeys(names, 0.0)

    def timed(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return real(*arguments, **options)
            finally:
                spent[name] += time.perf_counter() - began

        return call

    for name in names:
        setattr(owner, name, timed(name, getattr(owner, name)))
    return spent


def unreachable(trial: Trial) -> None:
    """A run with one fault, compared with a run without trackers."""
    fault = FAULTS[trial.index % len(FAULTS)]
    root, logs = trial.folder / "run", trial.folder / "run" / "runs" / "toy"
    in_tracker, complete = _seconds_in(Tracker, "record", "close"), _seconds_in(loop, "fit")
    settings: dict[str, Any] = {"logging": {"tensorboard": True}}
    Losing.faults = {}
    if fault in WANDB:
        (trial.folder / "wandb.py").write_text(FAKE, encoding="utf-8")
        sys.path.insert(0, str(trial.folder))
        os.environ |= {
            "PYTHONPATH": f"{trial.folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
            "SOAK_FAULT": fault,
        }
        settings["logging"] = {"wandb": "online", "tensorboard": False}
    else:
        Losing.faults = _of_the_logs(fault, logs, trial)
    tracking.LAST_SECONDS = 2.0  # instead of 10, as many trials wait this long for a tracker that hangs
    began = time.perf_counter()
    train(root, Losing, rows=SAMPLES, **(SETTINGS | settings))
    took = time.perf_counter() - began
    (run,) = logs.iterdir()
    share = in_tracker["record"] / complete["fit"]
    expect(share <= MOST, f"{fault}: {share:.1%} of the training's time went into its trackers")
    end = in_tracker["close"]
    expect(end <= tracking.LAST_SECONDS + END, f"{fault}: the end took {end:.1f} s (of {took:.1f} s)")
    reference = trial.soak.folder / "alone"
    (other,) = (reference / "runs" / "toy").iterdir()
    ours, theirs = _records(run), _records(other)
    expect(ours == theirs, f"{fault}: {len(ours)} of {len(theirs)} records are in metrics.jsonl, or differ")
    expect_same(root, reference)


def _of_the_logs(fault: str, logs: Path, trial: Trial) -> dict[int, Callable[[], Any]]:
    first, second = sorted(trial.random.sample(range(2, 80), 2))
    if fault == "its folder is deleted":
        return {first: lambda: shutil.rmtree(next(logs.iterdir())), second: lambda: shutil.rmtree(next(logs.iterdir()))}
    if fault == "the disk is full for a while":
        if mounts.unable():
            return _full_by_stand_in(first, second)
        mounts.enter()
        mounts.disk(logs, 1 << 20)
        ballast = logs / "ballast"
        return {first: lambda: _fill(ballast), second: ballast.unlink}
    pattern = "metrics.jsonl" if "metrics" in fault else "events.*"
    return {first: lambda: [path.unlink() for path in logs.glob(f"*/{pattern}")]}


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            return


def _full_by_stand_in(first: int, second: int) -> dict[int, Callable[[], Any]]:
    real = os.write

    def refuse() -> None:
        def write(handle: int, data: Any) -> int:
            if "/runs/" in str(Path(f"/proc/self/fd/{handle}").readlink()):
                raise OSError(28, "No space left on device")
            return real(handle, data)

        os.write = write

    return {first: refuse, second: lambda: setattr(os, "write", real)}


def _records(run: Path) -> list[dict[str, Any]]:
    """The records of metrics.jsonl without the values that depend on time."""
    clock = ("samples_per_second", "input_wait", "seconds", "tflops", "seconds_left", "time")
    path = run / tracking.METRICS
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
    return [{key: value for key, value in row.items() if not any(word in key for word in clock)} for row in rows]


# -- mutants -------------------------------------------------------------------------------------------------------


class _InProcess:
    """W&B in the training's process, as W&B's examples use it, with errors caught."""

    def __init__(self, options: dict[str, Any], say: Callable[[str], None]):
        import wandb

        self.run = wandb.init(**options)

    def record(self, step: int, numbers: dict[str, float]) -> None:
        with suppress(ConnectionError):
            self.run.log(numbers, step=step)

    def close(self, seconds: float) -> None:
        self.run.finish()


def _keeps_its_file(log: lines.AppendOnlyFile) -> int:
    """The descriptor of the file that was opened first, even if that was deleted or replaced."""
    if log._handle is None:
        log.path.parent.mkdir(parents=True, exist_ok=True)
        log._handle = log._open()
    return log._handle


class _Plain:
    """A log file that is opened only once."""

    failed = None

    def __init__(self, path: Path):
        self.path, self.file = path, path.open("ab", buffering=0)

    def write(self, data: bytes) -> None:
        with suppress(OSError):
            self.file.write(data)

    def close(self) -> None:
        self.file.close()


def _reference(folder: Path) -> None:
    torch.set_num_threads(1)
    train(folder, Toy, rows=SAMPLES, **SETTINGS)


ROWS = (
    Row(
        19, "tracker unreachable",
        "at most 5 % slower, same weights, all metrics on disk",
        beside({"alone": _reference}, unreachable, seconds=45, name=lambda index: FAULTS[index % len(FAULTS)]),
        full=80, small=8,
        mutants=(
            Mutant("W&B in the training's process", patched(tracking, "WandbProcess", _InProcess), trials=1),
            Mutant("a log is opened once", patched(tracking, "AppendOnlyFile", _Plain), trials=8),
            Mutant("a log is not looked for", patched(lines.AppendOnlyFile, "_find", _keeps_its_file), trials=8),
        ),
        note=lambda: "" if not mounts.unable() else "full disk by a stand-in",
    ),
)  # fmt: skip
