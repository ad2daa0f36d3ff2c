"""CheckpointManager: states of your own code (a phase of a notebook), on a drive or elsewhere, complete or not there.

The trainings of this project need none of it: they save themselves, and `--persist` copies.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from pathlib import Path
from typing import Any

from training.colab.surroundings import ColabError

EVERY_MINUTES = 30.0
KEEP = 3
PHASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class CheckpointManager:
    """States by phase below `root`. Each is written under a temporary name, synced, and listed in index.json last, with
    its SHA-256; what is not listed does not exist."""

    def __init__(self, root: str | Path, every_minutes: float = EVERY_MINUTES, keep: int = KEEP):
        if keep < 1:
            raise ColabError(f"keep must be 1 or more, not {keep}.")
        self.root, self.every_minutes, self.keep = Path(root), every_minutes, keep

    def save_checkpoint(self, phase: str, state: dict[str, Any], force: bool = False) -> Path | None:
        """Save a state: tensors, numbers, texts, lists and dicts of them (torch.save). Returns its file; None if the
        newest one is younger than `every_minutes`, unless forced. Raises ColabError for what cannot be loaded again
        safely."""
        import torch  # of the kernel or of the environment, whichever calls

        folder, index = self._folder(phase), self._index(phase)
        if index and not force and time.time() - index[-1]["saved"] < self.every_minutes * 60:
            return None
        folder.mkdir(parents=True, exist_ok=True)
        number = index[-1]["number"] + 1 if index else 1
        path, temporary = folder / f"{number:06d}.pt", folder / f".{number:06d}.saving"
        saved = time.time()
        torch.save({"phase": phase, "saved": saved, "state": state}, temporary)
        try:
            torch.load(temporary, map_location="cpu", weights_only=True)
        except Exception as error:
            temporary.unlink()
            raise ColabError(
                f"phase {phase}: the state holds something else than tensors, numbers, texts, lists and dicts, and "
                "could not be loaded again. Save model.state_dict(), not the model."
            ) from error
        _sync(temporary)
        digest = _sha256(temporary)
        temporary.replace(path)
        index.append({"number": number, "file": path.name, "sha256": digest, "saved": saved})
        dropped, index = index[: -self.keep], index[-self.keep :]
        self._write(folder, index)
        for entry in dropped:
            (folder / entry["file"]).unlink(missing_ok=True)
        return path

    def load_latest_checkpoint(self, phase: str) -> dict[str, Any] | None:
        """The newest state that is intact: {"phase", "saved", "state"}; None if there is none. A damaged one is
        reported, and the one before it is loaded."""
        import torch

        for entry in reversed(self._index(phase)):
            path = self._folder(phase) / entry["file"]
            if path.is_file() and _sha256(path) == entry["sha256"]:
                return torch.load(path, map_location="cpu", weights_only=True)
            print(f"{path}: missing, or its SHA-256 does not match index.json; using the one before.")
        return None

    def _folder(self, phase: str) -> Path:
        if not PHASE.fullmatch(phase):
            raise ColabError(f"'{phase}' is no name of a phase: letters, digits, '_', '-' and '.' only.")
        return self.root / phase

    def _index(self, phase: str) -> list[dict[str, Any]]:
        path = self._folder(phase) / "index.json"
        try:
            return json.loads(path.read_text(encoding="utf-8"))["states"]
        except FileNotFoundError:
            return []
        except (ValueError, KeyError) as error:
            raise ColabError(f"{path} cannot be read ({error}): move the folder away to begin again.") from error

    @staticmethod
    def _write(folder: Path, index: list[dict[str, Any]]) -> None:
        temporary = folder / ".index.saving"
        temporary.write_text(json.dumps({"format": 1, "states": index}, indent=1), encoding="utf-8")
        _sync(temporary)
        temporary.replace(folder / "index.json")
        _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
