"""Verifies exact resume: a training that is killed repeatedly ends with the same bits as one that is not.

Both are real processes with the user's own settings and data, in scratch folders under --out that share its manifests
and its cache. The straight run is not interrupted; the killed run is ended (SIGKILL to all of its processes) at random
moments and started again.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.errors import AthanorError, DataError, HostError, Interrupted, TrainingError, UsageError
from training.parent import as_parent
from training.stages.scratch import scratch
from training.workspace import Workspace

SCRATCH = ".prove-resume"  # under --out
STEPS, KILLS = 30, 3
MARK = "ATHANOR_TRIAL"  # set in the environment of every process of a trial, so that all of them can be found
POLL = 0.002  # seconds between two reads of the log
COMPARED = (
    "model",
    "ema",
    "optimizer",
    "scaler",
    "constants",
    "frozen",
    "fitted",
    "early_stopping",
    "metrics",
    "progress",
)
#: Keys of metrics.jsonl that depend on the clock.
CLOCKED = {"samples_per_second", "rounds_per_second", "input_wait", "tflops", "seconds_left", "seconds"}
#: On a GPU, two straight runs may differ by rounding. A difference of more than this many times theirs is a fault.
NOISE = 10.0


@dataclass
class Difference:
    """The differences between two runs."""

    tensors: int = 0  # number of compared tensors
    records: int = 0  # number of compared records of the log
    differing: list[str] = field(default_factory=list)  # paths of differing values, in the checkpoint's order
    relative: float = 0.0  # the largest difference in any tensor, relative to that tensor's largest value
    worst: str = ""  # the path of that tensor
    record: str = ""  # the first record of the log that differs

    @property
    def none(self) -> bool:
        return not self.differing and not self.record

    def __str__(self) -> str:
        parts = []
        if self.differing:
            parts.append(
                f"{len(self.differing)} values differ, the first is {self.differing[0]}; the largest relative "
                f"difference is {self.relative:.2g} ({self.worst or 'no tensor'})."
            )
        parts.append(f"In the log, the first difference is {self.record}." if self.record else "The logs are equal.")
        return " ".join(parts)


def prove_resume(
    family: str,
    workspace: Workspace,
    arguments: Sequence[str] = (),
    *,
    steps: int = STEPS,
    kills: int = KILLS,
    ranks: int = 1,
    seed: int | None = None,
    command: Sequence[str] = (),
) -> Difference:
    """Train `family` for `steps` steps, once without interruption and once with `kills` kills, and compare weights,
    EMA, optimizer state and log. `arguments`: further flags of `train`. `ranks`: processes that train together. `seed`:
    of the random moments of the kills. `command`: is run instead of `python -m training train FAMILY`.

    Raises TrainingError (exit 5) where they differ by more than a GPU's rounding, naming the first tensor and step; if
    a run itself fails, an error with its exit code.
    """
    seed = secrets.randbelow(10**6) if seed is None else seed
    chance = random.Random(seed)
    words = [*(command or [*_launch(ranks), "train", family]), *arguments]
    words += ["--set", f"training.max_steps={steps}", "--set", "training.log_every=1"]
    together = f", {ranks} processes each" if ranks > 1 else ""
    print(f"{steps} steps of {family}, uninterrupted and with {kills} kill -9 (--kill-seed {seed}){together}.")
    with scratch(workspace, SCRATCH, "proving resume") as folder:
        straight = _Trial(folder / "straight", workspace, family, words)
        before = time.monotonic()
        straight.run()
        one = straight.result()
        done = one["progress"]["step"]
        print(f"  uninterrupted: {done} steps in {time.monotonic() - before:.0f} s ({one['progress']['finished']})")
        # Saved every few steps, so that the run also resumes in the middle of an epoch.
        each = one["progress"]["seconds"] / done
        often = ["--set", f"training.save_minutes={max(1e-5, 2 * each / 60):.6f}"]
        killed = _Trial(folder / "killed", workspace, family, [*words, *often])
        for moment in sorted(chance.sample(range(1, done), min(kills, done - 1))):
            killed.run(moment, chance.uniform(0, each))
        killed.run()
        print(f"  killed {killed.kills} times: {killed.result()['progress']['step']} steps")
        if not any(killed.resumed_from):
            print("  No kill came after a save in the middle of the run: use more --steps.")
        found = compare(one, killed.result(), straight.records(), killed.records())
        if not found.none and one["provenance"]["hardware"]["device"] != "CPU":
            print(f"  Not equal bit for bit, as CUDA kernels need not be: {found} The uninterrupted run is repeated.")
            again = _Trial(folder / "again", workspace, family, words)
            again.run()
            own = compare(one, again.result(), straight.records(), again.records())
            print(f"  Two uninterrupted runs differ by {own.relative:.2g}, the killed one by {found.relative:.2g}.")
            if found.relative <= NOISE * own.relative:
                print("Equal but for the GPU's own rounding.")
                return found
        if not found.none:
            raise TrainingError(f"The killed run differs from the uninterrupted one. {found}")
    print(
        f"Equal, bit for bit: {found.tensors} tensors of weights, EMA and optimizer, and {found.records} records of "
        "losses and metrics."
    )
    return found


def _launch(ranks: int) -> list[str]:
    if ranks == 1:
        return [sys.executable, "-m", "training"]
    launcher = [sys.executable, "-m", "training.runner.launch"]
    return [*launcher, "--standalone", f"--nproc_per_node={ranks}", "-m", "training"]


# -- a trial -------------------------------------------------------------------------------------------------------


class _Trial:
    """One run in a separate folder, which shares the workspace's data and cache."""

    def __init__(self, folder: Path, workspace: Workspace, family: str, words: Sequence[str]):
        self.folder, self.family = folder, family
        self.command = [*words, "--out", str(folder)]
        self.mark = secrets.token_hex(8)
        self.kills = 0
        self.resumed_from: list[int] = []  # the step that was saved last before each kill
        from training.stages.trained import needed_runs

        folder.mkdir()
        root = workspace.root.absolute()
        workspace.cache.mkdir(exist_ok=True)
        for name in ("data", "cache", *(f"checkpoints/{needed}" for needed in needed_runs(family))):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(root / name)

    def run(self, moment: int | None = None, delay: float = 0.0) -> None:
        """Run to the end; or, if `moment` is given, until at least one step is done and step `moment` is in the log,
        then kill it `delay` seconds later."""
        begin, before = self._saved(), self._written()
        with (self.folder / "output.txt").open("ab") as output:
            process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                env={**os.environ, **as_parent(), MARK: self.mark, "PYTHONUNBUFFERED": "1"},
            )  # fmt: skip
        try:
            while process.poll() is None:
                if moment is not None and self._written() != before and self.step() >= max(moment, begin + 1):
                    time.sleep(delay)
                    self._kill(process)
                    return
                time.sleep(POLL)
        finally:
            self._end(process)
        if process.returncode:
            raise _failure(process.returncode, (self.folder / "output.txt").read_text(errors="replace"))

    def _kill(self, process: subprocess.Popen) -> None:
        at = self.step()
        self._end(process)
        if process.returncode == -signal.SIGKILL:
            self.kills += 1
            self.resumed_from.append(self._saved())
            print(f"  kill -9 after step {at}: it continues from step {self.resumed_from[-1]}")
        else:
            print(f"  it had ended at step {at} before the kill came")

    def _end(self, process: subprocess.Popen) -> None:
        """SIGKILL to every process of the trial: loaders and ranks have separate process groups."""
        while True:
            found = _marked(f"{MARK}={self.mark}".encode())
            if process.poll() is None:
                found.add(process.pid)
            if not found:
                return
            for number in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            if process.pid in found:
                process.wait()

    def _saved(self) -> int:
        from training.engine.checkpoints.checkpoint_file import read
        from training.engine.checkpoints.checkpoint_folder import CheckpointFolder

        newest = CheckpointFolder(self.folder / "checkpoints" / self.family).latest()
        return read(newest)["progress"]["step"] if newest else 0

    def _written(self) -> int:
        """The modification time of the log in nanoseconds; 0 if there is none."""
        path = self._log()
        return path.stat().st_mtime_ns if path else 0

    def step(self) -> int:
        """The newest step in the log; 0 before the first."""
        path = self._log()
        if path is None:
            return 0
        lines = path.read_bytes().rpartition(b"\n")[0].splitlines()
        return json.loads(lines[-1])["step"] if lines else 0

    def records(self) -> list[dict[str, Any]]:
        """The records of the log, without the keys that depend on the clock."""
        path = self._log()
        lines = path.read_text(encoding="utf-8").splitlines() if path else []
        return [{k: v for k, v in json.loads(line).items() if k not in CLOCKED} for line in lines]

    def _log(self) -> Path | None:
        return next((self.folder / "runs" / self.family).glob("*/metrics.jsonl"), None)

    def result(self) -> dict[str, Any]:
        """The newest checkpoint."""
        from training.engine.checkpoints.checkpoint_file import read
        from training.engine.checkpoints.checkpoint_folder import CheckpointFolder

        newest = CheckpointFolder(self.folder / "checkpoints" / self.family).latest()
        if newest is None:
            raise HostError(f"The trial in {self.folder} ended without a checkpoint.")
        return read(newest)


def _marked(mark: bytes) -> set[int]:
    """The processes with `mark` in their environment, without zombies; none if there is no /proc."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # gone, or somebody else's
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                found.add(int(folder.name))
    return found


def _failure(code: int, output: str) -> AthanorError:
    """The error of a run that failed although it was not killed, with its exit code."""
    last = "\n".join(f"    {line}" for line in output.splitlines()[-15:])
    kinds = {kind.exit_code: kind for kind in (UsageError, DataError, TrainingError, HostError, Interrupted)}
    return kinds.get(code, TrainingError)(f"A run of the proof ended with exit code {code}:\n{last}")


# -- comparing -----------------------------------------------------------------------------------------------------


def compare(
    one: Mapping[str, Any],
    other: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    other_records: Sequence[Mapping[str, Any]],
) -> Difference:
    """Compare two checkpoints and their logs bit for bit, without what depends on the clock."""
    out = Difference(records=len(records))
    for part in COMPARED:
        if part == "progress":
            pair = [{k: v for k, v in state[part].items() if k != "seconds"} for state in (one, other)]
        else:
            pair = [one.get(part), other.get(part)]  # `frozen`: only where most weights are
        _walk(pair[0], pair[1], part, out)
    for number in range(max(len(records), len(other_records))):
        mine, yours = (list_[number] if number < len(list_) else None for list_ in (records, other_records))
        if repr(mine) != repr(yours):
            out.record = _shown(mine, yours)
            break
    return out


def _walk(one: Any, other: Any, path: str, out: Difference) -> None:
    import torch

    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        out.tensors += 1
        if not _same_bits(one, other):
            out.differing.append(path)
            relative = _relative(one, other)
            if relative >= out.relative:
                out.relative, out.worst = relative, path
    elif isinstance(one, Mapping) and isinstance(other, Mapping) and one.keys() == other.keys():
        for key in one:
            _walk(one[key], other[key], f"{path}.{key}", out)
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        for number, (mine, yours) in enumerate(zip(one, other, strict=True)):
            _walk(mine, yours, f"{path}.{number}", out)
    elif repr(one) != repr(other):  # NaN equals NaN here
        out.differing.append(path)


def _same_bits(one: Any, other: Any) -> bool:
    import torch

    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    bits = [value.contiguous().reshape(-1).view(torch.uint8) for value in (one, other)]
    return torch.equal(*bits)


def _relative(one: Any, other: Any) -> float:
    if one.shape != other.shape:
        return float("inf")
    one, other = one.double(), other.double()
    return float((one - other).abs().max() / one.abs().max().clamp(min=1e-30))


def _shown(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> str:
    if one is None or other is None:
        return f"that one has no more records at step {(one or other or {}).get('step')}"
    names = [key for key in {**one, **other} if repr(one.get(key)) != repr(other.get(key))]
    shown = ", ".join(f"{name} {one.get(name)} and {other.get(name)}" for name in names[:3])
    return f"at step {one['step']} ({one['kind']}): {shown}"
