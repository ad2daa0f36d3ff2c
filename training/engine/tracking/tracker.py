"""The logs of a run: console and log.txt, a progress bar on a terminal, metrics.jsonl, TensorBoard, W&B.

`metrics.jsonl` holds every record. Records that a full disk refuses are written once it has space. A failure of
TensorBoard or W&B neither stops a run nor makes it wait.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from training.data.files import disk_errors, is_full, write_atomic
from training.engine.tracking.append_only import AppendOnlyFile
from training.engine.tracking.wandb_process import LAST_SECONDS, WandbProcess
from training.errors import HostError, UsageError
from training.settings import Logging

METRICS, LOG, SETTINGS = "metrics.jsonl", "log.txt", "settings.yaml"
HURRIED_SECONDS = 2.0  # a stopped run waits at most so long for W&B


class Tracker:
    """Rank 0's records, in `folder`; on the other ranks (`active=False`) every method does nothing.

    `step`: the step from which the run continues. Records of later steps in its metrics.jsonl are dropped, as these
    steps are trained again.
    """

    def __init__(
        self, folder: Path, settings: dict[str, Any], logging: Logging, *, title: str, step: int, active: bool
    ):
        self.active, self.title, self.folder, self.logging = active, title, folder, logging
        self.bar: tqdm | None = None
        self.board: Any = None
        self.wandb: WandbProcess | None = None
        self._waits = False  # whether data waits for disk space, which was reported
        self._settings: bytes | None = None  # the content of SETTINGS, until it is written
        if not active:
            return
        require_wandb(logging)
        self._settings = yaml.safe_dump(settings, sort_keys=False).encode()
        self._metrics = self._records_up_to(step)
        self._open_board(step + 1 if step else None)
        self._log = AppendOnlyFile(folder / LOG)
        for file in self._files():
            if file.failed and not is_full(file.failed):  # a lasting error: end before training
                raise HostError(f"Cannot write {file.path}: {file.failed.strerror}.")
        self._report_disk_state()
        if logging.wandb != "off":
            self.wandb = WandbProcess(wandb_options(folder, settings, logging, title), self.say)

    def _records_up_to(self, step: int, waiting: bytes = b"") -> AppendOnlyFile:
        """Open the file of records, and drop those after `step`. `waiting`: records that were not written yet."""
        path = self.folder / METRICS
        with disk_errors(path):
            written, kept = _up_to(path.read_bytes() if path.exists() else b"", waiting, step)
            if path.exists():
                os.truncate(path, written)  # possible on a full disk, unlike writing the file again
        file = AppendOnlyFile(path)
        file.write(kept)
        return file

    def _files(self) -> list[AppendOnlyFile]:
        return [self._metrics, self._log, *([self.board.file] if self.board is not None else [])]

    def _open_board(self, purge: int | None) -> None:
        if self.logging.tensorboard:
            from training.engine.tracking.board import Board

            self.board = Board(self.folder, purge)

    def say(self, text: str) -> None:
        """Print a line, and write it to log.txt."""
        if not self.active:
            return
        self._log.write(text.encode("utf-8", "backslashreplace") + b"\n")
        if self.bar is not None:
            self.bar.write(text)
            return
        print(text, flush=True)

    def begin(self, step: int, total: int) -> None:
        """Show a progress bar if stderr is a terminal."""
        if self.active and sys.stderr.isatty():
            self.bar = tqdm(total=total, initial=step, desc=self.title, unit="step", dynamic_ncols=True, leave=False)

    def advance(self) -> None:
        """Advance the progress bar by one step."""
        if self.bar is not None:
            self.bar.update()

    def record(self, kind: str, step: int, values: Mapping[str, float | int | str]) -> None:
        """Write one record to metrics.jsonl, TensorBoard and W&B; `kind`: train or validation."""
        if not self.active:
            return
        self._metrics.write(json.dumps({"kind": kind, "step": step, **values}).encode() + b"\n")
        numbers = {f"{kind}/{k}": v for k, v in values.items() if isinstance(v, int | float)}
        for tracker in (self.board, self.wandb):
            if tracker is not None:
                tracker.record(step, numbers)
        self._report_disk_state()

    def rewind(self, step: int) -> None:
        """After a rollback to `step`: drop the records of later steps, which are trained again."""
        if not self.active:
            return
        self._metrics = self._records_up_to(step, self._metrics.close())
        if self.board is not None:
            self.board.purge(step + 1)
        if self.bar is not None:
            self.bar.update(step - self.bar.n)

    def close(self, hurried: bool = False) -> None:
        """Flush and close everything; `hurried`: wait only briefly, as the host may be shut down within seconds."""
        if not self.active:
            return
        if self.bar is not None:
            self.bar.close()
            self.bar = None
        if self.board is not None:
            self.board.close()
        if self.wandb is not None:
            self.wandb.close(HURRIED_SECONDS if hurried else LAST_SECONDS)
        self._metrics.close()
        if self._metrics.failed:
            self.say(f"The last records are not in {self._metrics.path}: {self._metrics.failed.strerror}.")
        self._log.close()
        self.active = False

    def _report_disk_state(self) -> None:
        """Report once that files cannot be written, and once that they can be written again."""
        self._write_settings()
        waiting = [file for file in self._files() if file.failed]
        for file in waiting:
            file.write(b"")
        failed = [file for file in self._files() if file.failed]
        if failed and not self._waits:
            self._waits = True
            self.say(
                f"The logs in {self.folder} cannot be written ({failed[0].failed.strerror}). Training continues; the "
                "records are kept in memory until they can be written."
            )
        elif self._waits and not failed:
            self._waits = False
            self.say(f"The logs in {self.folder} can be written again; no record is missing.")

    def _write_settings(self) -> None:
        if self._settings is None:
            return
        try:
            write_atomic(self.folder / SETTINGS, self._settings)
            self._settings = None
        except HostError as error:
            if not is_full(error.__cause__):
                raise

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, kind: type | None, *error: object) -> None:
        self.close(hurried=kind is not None)


def wandb_options(folder: Path, settings: dict[str, Any], logging: Logging, title: str) -> dict[str, Any]:
    """Arguments of wandb.init. A run has the same id at each start, so that W&B shows it as one run."""
    return {
        "project": logging.wandb_project, "mode": logging.wandb, "name": f"{title} {folder.name}",
        "id": folder.name, "resume": "allow", "dir": str(folder.absolute()), "config": settings,
    }  # fmt: skip


def require_wandb(logging: Logging) -> None:
    """Raise UsageError if W&B is requested and not installed."""
    if logging.wandb != "off" and importlib.util.find_spec("wandb") is None:
        raise UsageError(
            f"logging.wandb is {logging.wandb}, and the wandb package is not installed. Install it: python -m "
            "pip install wandb, or set logging.wandb: off."
        )


def _up_to(written: bytes, waiting: bytes, step: int) -> tuple[int, bytes]:
    """Of the records up to `step`, which are in the order of steps: how many bytes of them are in `written`, and the
    bytes that are not. A line that a kill cut short is dropped."""
    at = 0
    for line in (written + waiting).splitlines(keepends=True):
        try:
            if json.loads(line)["step"] > step:
                break
        except ValueError:
            break
        at += len(line)
    kept = (written + waiting)[:at]
    if kept and not kept.endswith(b"\n"):
        kept += b"\n"
    return min(at, len(written)), kept[len(written) :]
