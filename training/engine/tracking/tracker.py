"""What a run tells: a line on the console and in log.txt, a progress bar on a terminal, metrics.jsonl, TensorBoard,
W&B.

Files first: `metrics.jsonl` holds every record, and what a full disk does not take is written when it does. No tracker
can stop a run or make it wait.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from training.console import discard_closed_output
from training.data.files import disk_errors
from training.engine.tracking.append_only import AppendOnlyFile
from training.engine.tracking.wandb_process import LAST_SECONDS, WandbProcess
from training.errors import UsageError
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
        self._ailing: set[str] = set()  # files that wait for room, of which was told
        if not active:
            return
        require_wandb(logging)
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / SETTINGS).write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
            _drop_after(folder / METRICS, step)
            self._metrics, self._log = AppendOnlyFile(folder / METRICS), AppendOnlyFile(folder / LOG)
            self._open_board(step + 1 if step else None)
        if logging.wandb != "off":
            self.wandb = WandbProcess(wandb_options(folder, settings, logging, title), self.say)

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
        try:
            print(text, flush=True)
        except OSError:
            if not discard_closed_output():  # a console that has gone stops no training: the log has every line
                raise

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
        self._tell_of_the_disk()

    def rewind(self, step: int) -> None:
        """The run goes back to `step`: the records beyond it are dropped, and will come again."""
        if not self.active:
            return
        self._metrics.close()
        with disk_errors(self.folder):
            _drop_after(self.folder / METRICS, step)
            self._metrics = AppendOnlyFile(self.folder / METRICS)
            if self.board is not None:
                self.board.close()
                self._open_board(step + 1)
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

    def _tell_of_the_disk(self) -> None:
        """Once a file begins to wait for room, and once it has it."""
        for file in (self._metrics, *([self.board.file] if self.board is not None else [])):
            name = file.path.name
            if file.failed and name not in self._ailing:
                self._ailing.add(name)
                self.say(f"{file.path} cannot be written ({file.failed.strerror}); its records are kept until it can.")
            elif not file.failed and name in self._ailing:
                self._ailing.remove(name)
                self.say(f"{file.path} is written again; no record is missing.")

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
    """Raise UsageError if W&B is asked for and not installed."""
    if logging.wandb != "off" and importlib.util.find_spec("wandb") is None:
        raise UsageError(
            f"logging.wandb is {logging.wandb}, and the wandb package is not installed. Install it: python -m "
            "pip install wandb, "
            "or set logging.wandb: off."
        )


def _drop_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except ValueError:  # the line that a kill cut short
            continue
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
    temporary.replace(path)
