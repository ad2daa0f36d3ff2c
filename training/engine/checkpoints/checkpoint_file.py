"""One checkpoint file: written with its SHA-256, linked to a further name, verified, read."""

from __future__ import annotations

import difflib
import hashlib
import os
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from training.data.files import regular_file, sha256, sync
from training.engine.checkpoints.index import FORMAT, INDEX, TEMPORARY, Entry, Index, constants_name, discard
from training.engine.process.heartbeat import beat
from training.errors import UsageError


class HashedFile:
    """A file that hashes what torch writes to it. `error` keeps an OSError, which torch reports as a RuntimeError."""

    def __init__(self, file: Any):
        self.file, self.sha256, self.error = file, hashlib.sha256(), None

    def write(self, data: Any) -> int:
        try:
            self.file.write(data)
        except OSError as error:
            self.error = error
            raise
        self.sha256.update(data)
        beat()  # a slow disk must not count as a hang
        return len(data)

    def flush(self) -> None:
        self.file.flush()


def write_state(path: Path, state: Mapping[str, Any]) -> str:
    """Write `state` to `path` and onto the disk (fsync); returns the file's SHA-256. Raises OSError."""
    with path.open("wb") as file:
        hashed = HashedFile(file)
        try:
            torch.save(dict(state), hashed)
        except RuntimeError as error:
            raise hashed.error or error from error
        file.flush()
        os.fsync(file.fileno())
    return hashed.sha256.hexdigest()


def link(source: Path, name: Path) -> None:
    """Make `name` a further name of the content of `source`, atomically replacing a file of that name. Raises OSError.

    A hard link takes no space and no time. It is created under a temporary name and renamed: os.link refuses a name
    that exists, and removing that file first would leave a moment without it. On a file system without hard links the
    content is copied, and synced before the rename, since a power cut can lose the content of a new file.
    """
    temporary = name.with_name(f"{TEMPORARY}{os.getpid()}-{name.name}")
    temporary.unlink(missing_ok=True)
    try:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
            sync(temporary)
        temporary.replace(name)  # POSIX: does nothing, and leaves `temporary`, when both are the same file already
    finally:
        discard(temporary)


def has(path: Path, digest: str) -> bool:
    """Whether `path` is a file with this SHA-256."""
    return path.is_file() and sha256(path) == digest


def listed_entry(path: Path) -> Entry | None:
    """The entry, under any name, that the index of its folder has for the content of the file at `path`, or None."""
    if not path.is_file():
        return None
    # Hash the file before reading the index: a run that saves meanwhile lists new content before it links a name to it.
    digest = sha256(path)
    return Index.read(path.parent).of_content(digest)


def read(path: Path, device: str = "cpu") -> dict[str, Any]:
    """A checkpoint's content, tensors on `device`: `format`, `family`, `settings`, `model`, `ema`, `constants`,
    `optimizer`, `scaler`, `progress`, `early_stopping`, `metrics`, `provenance`; and `frozen` where only a part of the
    weights is saved (partial.py). Constants in a separate file are read as well.

    Raises UsageError, with a remedy, for a file that is missing, cut short, damaged, or not a checkpoint of Athanor.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"There is no checkpoint {path}. {_nearest(path)}")
    if (path.parent / INDEX).exists() and listed_entry(path) is None:
        raise UsageError(
            f"{path} is damaged or was cut short: its content is not listed in {path.parent / INDEX}. {_nearest(path)}"
        )
    state = load(path, device)
    _resolve_constants(state, path, device)
    return state


def load(path: Path, device: str = "cpu") -> dict[str, Any]:
    """The content that `write_state` wrote to `path`. Code in it is never run. Raises UsageError for other files."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"{path} is not a readable checkpoint ({reason}). {_nearest(path)}") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UsageError(f"{path} is not an Athanor checkpoint of format {FORMAT}. {_nearest(path)}")
    return state


def _resolve_constants(state: dict[str, Any], path: Path, device: str) -> None:
    """Read the constants file to which the checkpoint `state`, read from `path`, refers, into `state`. Raises
    UsageError, with the file and the remedy, where it is missing or damaged."""
    digest = state.pop("constants_ref", None)
    if digest is None:
        return
    try:
        file = path.parent / constants_name(digest)
    except ValueError as error:
        raise UsageError(f"{path} refers to constants that cannot be found: {error}.") from None
    if regular_file(file) is not None:
        raise UsageError(
            f"{path} refers to its constants in {file}, which is missing. Copy that file from where the checkpoint was "
            "saved, or restore it with `python -m training restore`."
        )
    if sha256(file) != digest:
        raise UsageError(
            f"{file}, the constants of {path}, is damaged: its SHA-256 is not that of its name. Restore it with "
            "`python -m training restore`, or copy it from where the checkpoint was saved."
        )
    state["constants"] = load(file, device)["constants"]


def _nearest(path: Path) -> str:
    """A sentence that lists intact checkpoints with similar names, for error messages."""
    folder = path.parent
    at = folder if folder.is_dir() else next((p for p in path.parents if p.is_dir()), Path())
    there = [str(p) for p in at.glob("*.pt")] or [str(p) for p in sorted(at.glob("*/*.pt"))[:20]]
    there = [p for p in there if p != str(path) and listed_entry(Path(p))]
    near = difflib.get_close_matches(str(path), there, 5, 0.0)
    return f"Intact ones near it: {', '.join(near)}." if near else f"There are none in {at}; train first."
