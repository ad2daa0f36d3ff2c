"""What a run tells: a line on the console and in log.txt, a progress bar on a terminal, metrics.jsonl, TensorBoard,
W&B.

Files first: `metrics.jsonl` holds every record, and what a full disk does not take is written when it does. No tracker
can stop a run or make it wait.
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
HURRIED_SECONDS = 2.0  # that a run which was stopped waits for W&B


class Tracker:
    """Rank 0's records, in `folder`; on the other ranks (`active=False`) every method does nothing.

    `step`: records beyond it in an earlier metrics.jsonl of the same run are dropped (they will come again).
    """

    def __init__(
        self, folder: Path, settings: dict[str, Any], logging: Logging, *, title: str, step: int, active: bool
    ):
        self.active, self.title, self.folder, self.logging = active, title, folder, logging
        self.bar: tqdm | None = None
        self.board: Any = None
        self.wandb: WandbProcess | None = None
        self._waits = False  # files wait for room, and that was reported
        self._settings: bytes | None = None  # what is still to be written to SETTINGS
        if not active:
            return
        require_wandb(logging)
        self._settings = yaml.safe_dump(settings, sort_keys=False).encode()
        self._metrics = self._records_up_to(step)
        self._open_board(step + 1 if step else None)
        self._log = AppendOnlyFile(folder / LOG)
        for file in self._files():
            if file.failed and not is_full(file.failed):  # a fault that does not pass is refused before any work
                raise HostError(f"Cannot write {file.path}: {file.failed.strerror}.")
        self._report_disk_state()
        if logging.wandb != "off":
            self.wandb = WandbProcess(wandb_options(folder, settings, logging, title), self.say)

    def _records_up_to(self, step: int, waiting: bytes = b"") -> AppendOnlyFile:
        """The file of records, from which those beyond `step` are dropped; `waiting`: its end, not written yet."""
        path = self.folder / METRICS
        with disk_errors(path):
            written, kept = _up_to(path.read_bytes() if path.exists() else b"", waiting, step)
            if path.exists():
                os.truncate(path, written)  # which a full disk allows
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
        """One line for people."""
        if not self.active:
            return
        self._log.write(text.encode("utf-8", "backslashreplace") + b"\n")
        if self.bar is not None:
            self.bar.write(text)
            return
        print(text, flush=True)

    def begin(self, step: int, total: int) -> None:
        """Show a progress bar, if someone is there to see it."""
        if self.active and sys.stderr.isatty():
            self.bar = tqdm(total=total, initial=step, desc=self.title, unit="step", dynamic_ncols=True, leave=False)

    def advance(self) -> None:
        """One more step."""
        if self.bar is not None:
            self.bar.update()

    def record(self, kind: str, step: int, values: Mapping[str, float | int | str]) -> None:
        """One record: `kind` is train or validation."""
        if not self.active:
            return
        self._metrics.write(json.dumps({"kind": kind, "step": step, **values}).encode() + b"\n")
        numbers = {f"{kind}/{k}": v for k, v in values.items() if isinstance(v, int | float)}
        for tracker in (self.board, self.wandb):
            if tracker is not None:
                tracker.record(step, numbers)
        self._report_disk_state()

    def rewind(self, step: int) -> None:
        """The run goes back to `step`: the records beyond it are dropped, and will come again."""
        if not self.active:
            return
        self._metrics = self._records_up_to(step, self._metrics.close())
        if self.board is not None:
            self.board.purge(step + 1)
        if self.bar is not None:
            self.bar.update(step - self.bar.n)

    def close(self, hurried: bool = False) -> None:
        """Flush and close everything; `hurried`: the host may be taken away in seconds."""
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
        """Once files begin to wait for room, and once they have it."""
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
    """Of wandb.init: a run of ours is one run there, however often it is started, and whoever adds to it later."""
    return {
        "project": logging.wandb_project, "mode": logging.wandb, "name": f"{title} {folder.name}",
        "id": folder.name, "resume": "allow", "dir": str(folder.absolute()), "config": settings,
    }  # fmt: skip


def require_wandb(logging: Logging) -> None:
    """Raise UsageError if W&B is requested and not installed."""
    if logging.wandb != "off" and importlib.util.find_spec("wandb") is None:
        raise UsageError(
            f"logging.wandb is {logging.wandb}, and the wandb package is not installed. Install it: python -m "
            "pip install wandb, "
            "or set logging.wandb: off."
        )


def _up_to(written: bytes, waiting: bytes, step: int) -> tuple[int, bytes]:
    """Records stand in the order of their steps. Of those up to `step`: how many bytes are among the written ones, and
    the others. What a kill cut short is no record."""
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
