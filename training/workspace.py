"""All paths that a run writes to, under one root; `--out DIR` changes the root. Also the lock of a folder.

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
    """Every output path, derived from one root (default: the project's folder)."""

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
        """`path` as shown to the user: relative to the working directory if it is inside it."""
        try:
            return str(path.resolve().relative_to(Path.cwd()))
        except ValueError:
            return str(path)


def why_not_writable(folder: Path) -> tuple[str, str] | None:
    """(why nothing can be written in `folder`, naming the folder at fault; what to do about it), or None if it can be
    written. The folder need not exist yet, and is not made."""
    found = why_no_folder(folder)
    if found is not None:
        return found
    at = _nearest(folder)
    if os.access(at, os.W_OK | os.X_OK):
        return None
    try:
        tempfile.TemporaryFile(dir=at).close()  # the system decides, and names the reason
    except OSError as error:
        remedy = (
            "Mount it writable." if error.errno == errno.EROFS else
            'Take the folder over (sudo chown -R "$(id -u):$(id -g)" DIR; `lsattr -d DIR` shows one that is immutable).'
        )  # fmt: skip
        return f"uid {os.geteuid()} cannot write in {at} ({error.strerror})", f"{remedy} Or: --out DIR."
    return None


def why_no_folder(folder: Path) -> tuple[str, str] | None:
    """Why `folder` is not a folder and cannot be made (as `why_not_writable`); None if it is one, or only missing."""
    at = _nearest(folder)
    if not at.exists():
        return (
            f"{at} is a link to {at.readlink()}, which is not there",
            "Make that folder, or attach its drive. Or: --out DIR.",
        )
    return None if at.is_dir() else (f"{at} is a file, not a folder", ELSEWHERE)


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest existing one above it."""
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    return folder


_held: set[int] = set()  # file descriptors of the locks that this process holds


def _close_inherited_locks() -> None:
    """Runs in a forked child, such as a data loader worker. The lock of flock() belongs to the open file, which parent
    and child share after a fork: it is released only when both have closed it. A child that kept it open and outlived
    its parent would block the next run."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_close_inherited_locks)


def _holder(handle: int) -> str:
    """A description of the process that holds a lock, for messages. A process takes the lock first and writes its
    description then; between the two, the file has the description of the previous holder or none. So this waits up to
    0.3 s for the description of a process that exists."""
    until = time.monotonic() + 0.3
    while True:
        text = os.pread(handle, 200, 0).decode(errors="replace").strip()
        number = re.match(r"process (\d+) ", text)
        if (number and Path(f"/proc/{number[1]}").exists()) or time.monotonic() > until:
            return text or "another process"
        time.sleep(0.005)


@contextmanager
def exclusive(folder: Path, purpose: str) -> Iterator[None]:
    """Lock `folder` for this process (an advisory lock on `folder/.lock`). The kernel releases the lock when the
    process ends in any way.

    Raises HostError at once if another process holds it, or the folder cannot be written.
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
