"""Checkpoints that are either whole or absent.

A save goes: temporary file, flush, fsync, rename to `last.pt`, fsync of the folder, and only then its SHA-256 is listed
in `index.json` (itself replaced atomically). A file whose content is not listed does not exist, and the one before it
is used: `before_last.pt` keeps it. A kill at any moment leaves a verified newest and a verified best checkpoint.
`best.pt` and `checkpoint_epoch_N.pt` are further names (hard links where the file system has them) of the same content;
the index says which are still to be given, so that the next start gives those that a kill prevented.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import pickle
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from training.data.files import Signature, disk_errors, sha256, signature, sync
from training.engine.process.heartbeat import beat
from training.errors import HostError, UsageError

FORMAT = 1
LAST, BEFORE_LAST, BEST = "last.pt", "before_last.pt", "best.pt"
INDEX = "index.json"
TEMPORARY = ".saving-"
_written: dict[Path, tuple[Signature, str]] = {}  # what this process wrote as last.pt, so as not to read it again


def epoch_name(epoch: int) -> str:
    """File name of the checkpoint kept after `epoch` (1 for the first)."""
    return f"checkpoint_epoch_{epoch}.pt"


def step_name(step: int) -> str:
    """File name of the checkpoint kept after `step` optimizer steps."""
    return f"checkpoint_step_{step}.pt"


@dataclass(frozen=True)
class Entry:
    """What the index says of one file."""

    sha256: str
    step: int  # optimizer steps done
    epoch: int  # epochs finished
    value: float | None  # the monitored validation metric of these weights (lower is better); None: not measured
    run_id: str
    saved: float  # Unix time; in one folder, later is larger


# -- write ---------------------------------------------------------------------------------------------------------


def save(folder: Path, state: Mapping[str, Any], entry: Mapping[str, Any], names: Sequence[str] = ()) -> Path:
    """Write `state` as `last.pt`, and under the further `names`; returns the path of `last.pt`.

    `entry`: the fields of Entry but `sha256` and `saved`. Raises HostError when it cannot be written (no room, no
    right); what was there before is still there and whole.
    """
    temporary = folder / f"{TEMPORARY}{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        digest = _write(temporary, state)
        files = read_index(folder)["files"]
        if LAST in files:
            # Where a save was cut short between its rename and its listing, before_last.pt is the verified one.
            if holds(folder / LAST, files[LAST]["sha256"]):
                link(folder / LAST, folder / BEFORE_LAST)
                files[BEFORE_LAST] = files[LAST]
            elif BEFORE_LAST in files and holds(folder / BEFORE_LAST, files[LAST]["sha256"]):
                files[BEFORE_LAST] = files[LAST]
        temporary.replace(folder / LAST)
        sync(folder)
        # Always later than the one before, though the run may have moved to a host whose clock is behind.
        saved = max(time.time(), files[LAST]["saved"] + 0.001 if LAST in files else 0.0)
        files[LAST] = {**entry, "sha256": digest, "saved": saved}
        others = [name for name in names if name != LAST]
        write_index(folder, files, others)
        # Only now the other names: their content is listed already, so no instant is without a verified `best.pt`.
        _name(folder, files, others)
        _written[folder / LAST] = signature(folder / LAST), digest
    except OSError as error:
        raise _not_saved(folder, error) from error
    finally:
        _discard(temporary)
    return folder / LAST


def apply_retention(folder: Path, keep: int) -> None:
    """Delete the oldest `checkpoint_epoch_N.pt` beyond the newest `keep`; `best.pt` and `last.pt` are never touched.
    Raises HostError where nothing can be written."""
    try:
        files = read_index(folder)["files"]
        old = _epochs(files)[:-keep]
        if old:
            write_index(folder, {name: entry for name, entry in files.items() if name not in old})
            for name in old:
                (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise _not_saved(folder, error) from error


def evict(folder: Path) -> str | None:
    """Delete what is missed least, on a full disk; returns its name, or None where nothing may go.

    That is the oldest `checkpoint_epoch_N.pt`; when none is left, `before_last.pt`, if both `last.pt` and a third
    checkpoint were read and are whole. Never `best.pt`, `last.pt`, or what shares its place with them: that would free
    nothing. Raises HostError where nothing can be written.
    """
    index = read_index(folder)
    files = index["files"]
    try:
        about = {name: (folder / name).stat() for name in files if (folder / name).is_file()}
        for name in (*_epochs(files), BEFORE_LAST):
            if name not in about:
                continue
            same = [other for other in about if about[other].st_ino == about[name].st_ino]
            if {LAST, BEST} & set(same) or about[name].st_nlink > len(same):
                continue
            if BEFORE_LAST in same and not _spared(folder, files, same):
                continue
            for other in same:
                (folder / other).unlink()
            # The other way round the index would have to be written on a disk that is full.
            write_index(folder, {k: entry for k, entry in files.items() if k not in same}, index["naming"])
            return name
    except OSError as error:
        raise _not_saved(folder, error) from error
    return None


def _epochs(files: Mapping[str, Any]) -> list[str]:
    """The listed `checkpoint_epoch_N.pt` and `checkpoint_step_N.pt`, oldest first."""
    kept = (name for name in files if name.startswith(("checkpoint_epoch_", "checkpoint_step_")))
    return sorted(kept, key=lambda name: (files[name]["step"], name))


def _spared(folder: Path, files: Mapping[str, Any], names: Sequence[str]) -> bool:
    """Whether `last.pt` and one more content beside it and `names` are whole."""
    last = files[LAST]["sha256"]
    others = [n for n in files if n not in names and n != LAST and files[n]["sha256"] != last]
    return holds(folder / LAST, last) and any(holds(folder / n, files[n]["sha256"]) for n in others)


def _not_saved(folder: Path, error: OSError) -> HostError:
    try:
        room = f" ({free(folder) / 1e6:,.0f} MB free)"
    except OSError:  # the disk is gone
        room = ""
    return HostError(
        f"Could not save a checkpoint to {folder}: {error.strerror or error}{room}. "
        "The checkpoints saved before are untouched; make room or fix the folder, and run the same command again."
    )


def _discard(temporary: Path) -> None:
    with suppress(OSError):  # where it cannot be removed, nothing could be written either; `sweep` comes by later
        temporary.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Finish what a killed save left: its temporary files go, the names it was to give are given. Only for the holder
    of the folder's lock. Raises HostError where nothing can be written."""
    with disk_errors(folder):
        for litter in folder.glob(f"{TEMPORARY}*"):
            litter.unlink(missing_ok=True)
        index = read_index(folder)
        if index["naming"] and holds(folder / LAST, index["files"][LAST]["sha256"]):
            _name(folder, index["files"], index["naming"])


def _name(folder: Path, files: dict[str, Any], names: Sequence[str]) -> None:
    """Give the content of `last.pt`, which is listed, further names, and list them."""
    if names:
        for name in names:
            link(folder / LAST, folder / name)
            files[name] = files[LAST]
        sync(folder)
        write_index(folder, files)


def holds(path: Path, digest: str) -> bool:
    """Whether the file at `path` has this content."""
    if not path.is_file():
        return False
    if path in _written and _written[path][0] == signature(path):
        return _written[path][1] == digest
    return sha256(path) == digest


def set_aside(folder: Path, run_id: str) -> Path | None:
    """Move a run's checkpoints to `previous/<run_id>/`; returns that folder, or None if there was nothing to move."""
    files = [path for path in folder.glob("*.pt") if not path.is_dir()]
    if not files:
        return None
    aside = folder / "previous" / run_id
    number = 1
    while (aside / LAST).exists():
        number += 1
        aside = folder / "previous" / f"{run_id}-{number}"
    aside.mkdir(parents=True, exist_ok=True)
    if (folder / INDEX).exists():
        shutil.copyfile(folder / INDEX, aside / INDEX)
        sync(aside / INDEX)
    for path in sorted(files, key=lambda p: p.name == LAST):  # `last.pt` goes last: a kill in between is taken up again
        path.replace(aside / path.name)
    sync(aside)
    (folder / INDEX).unlink(missing_ok=True)
    sync(folder)
    return aside


class _Hashed:
    """A file that hashes what torch writes to it. torch reports an OSError from here as RuntimeError, so keep it."""

    def __init__(self, file: Any):
        self.file, self.sha256, self.error = file, hashlib.sha256(), None

    def write(self, data: Any) -> int:
        try:
            self.file.write(data)
        except OSError as error:
            self.error = error
            raise
        self.sha256.update(data)
        beat()  # a slow disk is no hang
        return len(data)

    def flush(self) -> None:
        self.file.flush()


def _write(path: Path, state: Mapping[str, Any]) -> str:
    with path.open("wb") as file:
        hashed = _Hashed(file)
        try:
            torch.save(dict(state), hashed)
        except RuntimeError as error:
            raise hashed.error or error from error
        file.flush()
        os.fsync(file.fileno())
    return hashed.sha256.hexdigest()


def link(source: Path, name: Path) -> None:
    """Give `source`'s content the further name `name`, atomically replacing what had it."""
    temporary = name.with_name(f"{TEMPORARY}{os.getpid()}-{name.name}")
    temporary.unlink(missing_ok=True)
    try:
        try:
            os.link(source, temporary)
        except OSError:  # a file system without hard links
            shutil.copyfile(source, temporary)
            sync(temporary)
        temporary.replace(name)  # leaves `temporary` behind when both are the same file already
    finally:
        _discard(temporary)


def write_index(folder: Path, files: Mapping[str, Any], naming: Sequence[str] = ()) -> None:
    """Replace the index. `naming`: the names that `last.pt` is about to be given. Raises OSError."""
    temporary = folder / f"{TEMPORARY}{os.getpid()}-{INDEX}"
    try:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump({"format": FORMAT, "files": files, "naming": list(naming)}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(folder / INDEX)
    finally:
        _discard(temporary)
    sync(folder)


def free(folder: Path) -> int:
    """Bytes free for this user on the disk of `folder`, which need not exist yet."""
    at = folder
    while not at.exists():
        at = at.parent
    return shutil.disk_usage(at).free


# -- read ----------------------------------------------------------------------------------------------------------


def listed(folder: Path) -> dict[str, Entry]:
    """The index, newest content first: what was saved last, though it may stand at an earlier step than one before it
    (a run that went back). A listed file may still be damaged: see `whole`."""
    entries = {name: Entry(**values) for name, values in read_index(folder)["files"].items()}
    order = {LAST: 0, BEFORE_LAST: 1}
    return dict(sorted(entries.items(), key=lambda e: (order.get(e[0], 2), -e[1].step, -e[1].saved, e[0] != BEST)))


def whole(path: Path) -> Entry | None:
    """The entry of the file at `path` if its content is listed in its folder's index, else None."""
    if not path.is_file():
        return None
    digest = sha256(path)
    entries = listed(path.parent)
    same = [entry for entry in entries.values() if entry.sha256 == digest]
    return same[0] if same else None


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint in `folder`, or None."""
    return _find(folder, listed(folder))


def best(folder: Path) -> Path | None:
    """`best.pt`; where it is damaged, the whole checkpoint with the lowest monitored value; None if there is none."""
    if whole(folder / BEST):
        return folder / BEST
    entries = listed(folder)  # once: a run may be changing it
    valued = [(entry.value, name) for name, entry in entries.items() if entry.value is not None]
    return _find(folder, {name: entries[name] for _, name in sorted(valued)})


def _find(folder: Path, entries: Mapping[str, Entry]) -> Path | None:
    """The first of `entries` whose content is there: under its own name, or, where a save was cut short between its
    rename and its listing, under `before_last.pt`."""
    for name, entry in entries.items():
        for path in (folder / name, folder / BEFORE_LAST):
            if path.is_file() and sha256(path) == entry.sha256:
                return path
    return None


def read(path: Path, device: str = "cpu") -> dict[str, Any]:
    """A checkpoint's content (the keys of ARCHITECTURE.md), tensors on `device`.

    Raises UsageError, naming what to do, for a file that is missing, cut short, damaged, or no checkpoint of ours.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"There is no checkpoint {path}. {_nearest(path)}")
    if (path.parent / INDEX).exists() and whole(path) is None:
        raise UsageError(
            f"{path} is damaged or was cut short: its content is not listed in {path.parent / INDEX}. {_nearest(path)}"
        )
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"{path} is not a readable checkpoint ({reason}). {_nearest(path)}") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UsageError(f"{path} is no Athanor checkpoint of format {FORMAT}. {_nearest(path)}")
    return state


def _nearest(path: Path) -> str:
    """A sentence with the checkpoints that could have been meant."""
    folder = path.parent
    at = folder if folder.is_dir() else next((p for p in path.parents if p.is_dir()), Path())
    there = [str(p) for p in at.glob("*.pt")] or [str(p) for p in sorted(at.glob("*/*.pt"))[:20]]
    there = [p for p in there if p != str(path) and whole(Path(p))]
    near = difflib.get_close_matches(str(path), there, 5, 0.0)
    return f"Whole ones near it: {', '.join(near)}." if near else f"There are none in {at}; train first."


def read_index(folder: Path) -> dict[str, Any]:
    """`files`: name -> its entry, as plain values. `naming`: names that a killed save did not come to give. Raises
    UsageError if it is damaged."""
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        files, naming = dict(index["files"]), list(index.get("naming", ()))
        for name in (*files, *naming):  # files are linked and deleted by these names
            if not isinstance(name, str) or Path(name).name != name:
                raise ValueError(f"{name!r} is no name of a file in it")
        return {"files": files, "naming": naming}
    except FileNotFoundError:
        return {"files": {}, "naming": []}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{folder / INDEX} cannot be read ({error}). Without it no checkpoint in {folder} can be trusted: "
            "restore it, or move the folder away to start anew."
        ) from None
