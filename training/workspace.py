"""One object owns every path that a run writes to; `--out DIR` moves all of them.

data/manifests/<manifest>_{train,val,test}.jsonl      checked rows; summary.json, quarantine.jsonl
cache/<kind>/                                         stores: arrays and index
checkpoints/<family>/                                 best.pt last.pt checkpoint_epoch_N.pt index.json
runs/<family>/<run-id>/                               config, metrics.jsonl, TensorBoard events, log
exports/                                              models, golden/, samples/, receipt.json
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from training.errors import HostError

PROJECT = Path(__file__).resolve().parent.parent
ELSEWHERE = "Choose another folder with --out DIR."
PARTS = ("data", "checkpoints", "exports", "cache", "runs")  # folders of a workspace


@dataclass(frozen=True)
class Workspace:
    """Every output path, derived from one root (default: the project's own folder)."""

    root: Path = PROJECT

    @property
    def manifests(self) -> Path:
        return self.root / "data" / "manifests"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def exports(self) -> Path:
        return self.root / "exports"

    def manifest(self, name: str, split: str) -> Path:
        """`name` is the name of a run's manifests (Recipe.data), `split` is train, val or test."""
        return self.manifests / f"{name}_{split}.jsonl"

    def checkpoints(self, family: str) -> Path:
        return self.root / "checkpoints" / family

    def runs(self, family: str) -> Path:
        return self.root / "runs" / family

    def relative(self, path: Path) -> str:
        """`path` as printed to the user: relative to where they stand when that is shorter."""
        try:
            return str(path.resolve().relative_to(Path.cwd()))
        except ValueError:
            return str(path)


def why_not_writable(folder: Path) -> tuple[str, str] | None:
    """Why nothing can be written in `folder`, which need not exist yet (naming the folder at fault), and what to do
    about it; None where something can. Makes nothing."""
    found = why_no_folder(folder)
    if found is not None:
        return found
    at = _nearest(folder)
    if os.access(at, os.W_OK | os.X_OK):
        return None
    try:
        tempfile.TemporaryFile(dir=at).close()  # the system's word, and its reason
    except OSError as error:
        remedy = (
            "Mount it writable." if error.errno == errno.EROFS else
            'Take the folder over (sudo chown -R "$(id -u):$(id -g)" DIR; `lsattr -d DIR` shows one that is immutable).'
        )  # fmt: skip
        return f"uid {os.geteuid()} cannot write in {at} ({error.strerror})", f"{remedy} Or: --out DIR."
    return None


def why_no_folder(folder: Path) -> tuple[str, str] | None:
    """Why `folder` is none and none can be made (as `why_not_writable`); None where it is one, or only missing."""
    at = _nearest(folder)
    if not at.exists():
        return (
            f"{at} is a link to {at.readlink()}, which is not there",
            "Make that folder, or attach its drive. Or: --out DIR.",
        )
    return None if at.is_dir() else (f"{at} is a file, not a folder", ELSEWHERE)


def _nearest(folder: Path) -> Path:
    """The folder, or what there is of those above it."""
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    return folder


_held: set[int] = set()  # locks of this process


def _let_go() -> None:
    """A forked child (a loader process) shares no lock: else it would hold it a moment longer than we live."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_let_go)


def _holder(handle: int) -> str:
    """Who holds a lock. One that has only just got it has yet to write its name, and the one before may still be there:
    it is given a moment."""
    until = time.monotonic() + 0.3
    while True:
        told = os.pread(handle, 200, 0).decode(errors="replace").strip()
        number = re.match(r"process (\d+) ", told)
        if (number and Path(f"/proc/{number[1]}").exists()) or time.monotonic() > until:
            return told or "another process"
        time.sleep(0.005)


@contextmanager
def exclusive(folder: Path, purpose: str) -> Iterator[None]:
    """Hold `folder` for this process alone (advisory lock on `folder/.lock`); freed by the kernel however we end.

    Raises HostError at once when another process holds it, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        why, remedy = why_not_writable(folder) or (error.strerror, ELSEWHERE)
        raise HostError(f"{folder} cannot be used for {purpose}: {why}. {remedy}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HostError(
                f"{folder} is in use by {_holder(handle)}. Wait for it, stop it, or give this run its own folder with "
                "--out DIR."
            ) from None
        os.ftruncate(handle, 0)
        with contextlib.suppress(OSError):  # a full disk: the name is for people, the lock is the kernel's
            os.pwrite(handle, f"process {os.getpid()} ({purpose})\n".encode(), 0)
        _held.add(handle)
        yield
    finally:
        _held.discard(handle)
        os.close(handle)
