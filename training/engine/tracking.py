"""What a run tells: a line on the console and in log.txt, a progress bar on a terminal, metrics.jsonl, TensorBoard,
W&B.

Files first: `metrics.jsonl` holds every record; a tracker that fails is switched off, and training goes on.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from training.console import mute_what_is_gone
from training.errors import UsageError
from training.settings import Logging

METRICS, LOG, SETTINGS = "metrics.jsonl", "log.txt", "settings.yaml"


class Tracker:
    """Rank 0's records, in `folder`; on the other ranks (`active=False`) every method does nothing.

    `step`: records beyond it in an earlier metrics.jsonl of the same run are dropped (they will come again).
    """

    def __init__(
        self, folder: Path, settings: dict[str, Any], logging: Logging, *, title: str, step: int, active: bool
    ):
        self.active, self.title, self.folder = active, title, folder
        self.bar: tqdm | None = None
        self.board: Any = None
        self.wandb: Any = None
        if not active:
            return
        require_wandb(logging)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SETTINGS).write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
        _drop_after(folder / METRICS, step)
        self._metrics = (folder / METRICS).open("a", encoding="utf-8", buffering=1)
        self._log = (folder / LOG).open("a", encoding="utf-8", buffering=1)
        if logging.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(folder), purge_step=step + 1 if step else None)
        if logging.wandb != "off":
            self.wandb = importlib.import_module("wandb").init(
                project=logging.wandb_project, mode=logging.wandb, name=f"{title} {folder.name}", id=folder.name,
                resume="allow", dir=str(folder), config=settings,
            )  # fmt: skip

    def say(self, text: str) -> None:
        """One line for people."""
        if not self.active:
            return
        self._log.write(text + "\n")
        if self.bar is not None:
            self.bar.write(text)
            return
        try:
            print(text, flush=True)
        except OSError:
            if not mute_what_is_gone():  # a console that has gone stops no training: the log has every line
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
        self._metrics.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        numbers = {f"{kind}/{k}": v for k, v in values.items() if isinstance(v, int | float)}
        if self.board is not None:
            for name, value in numbers.items():
                self.board.add_scalar(name, value, step)
        if self.wandb is not None:
            try:
                self.wandb.log(numbers, step=step)
            except Exception as error:  # noqa: BLE001  whatever a tracker raises, training goes on
                self.wandb = None
                self.say(f"W&B failed and is off for the rest of the run ({error}); {METRICS} holds everything.")

    def rewind(self, step: int) -> None:
        """The run goes back to `step`: the records beyond it are dropped, and will come again."""
        if not self.active:
            return
        self._metrics.close()
        _drop_after(self.folder / METRICS, step)
        self._metrics = (self.folder / METRICS).open("a", encoding="utf-8", buffering=1)
        if self.board is not None:
            from torch.utils.tensorboard import SummaryWriter

            self.board.close()
            self.board = SummaryWriter(str(self.folder), purge_step=step + 1)
        if self.bar is not None:
            self.bar.update(step - self.bar.n)

    def close(self) -> None:
        """Flush and close everything."""
        if not self.active:
            return
        if self.bar is not None:
            self.bar.close()
            self.bar = None
        if self.board is not None:
            self.board.close()
        if self.wandb is not None:
            self.wandb.finish()
        self._metrics.close()
        self._log.close()
        self.active = False

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def require_wandb(logging: Logging) -> None:
    """Raise UsageError if W&B is asked for and not installed."""
    if logging.wandb != "off" and "wandb" not in sys.modules and importlib.util.find_spec("wandb") is None:
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


def duration(seconds: float) -> str:
    """1:02:03, or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
