"""Copies files to and from folders that may fail, fill up, or hang: network drives, mounted buckets.

A copy is written under a temporary name, synced, read back and compared, and only then renamed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from training.data.files import regular_file, sha256, sync
from training.data.objects.address import Address
from training.errors import HostError

CHUNK = 4 << 20  # bytes that are read and written between two calls of Pulse.beat
SYNCED = 16 << 20  # bytes between two syncs: a single sync of a large file could take minutes on a slow drive
TEMPORARY = ".copying-"
T = TypeVar("T")


class Changed(OSError):
    """The source of a copy does not have the expected content: it was replaced during the copy, or is damaged."""


class Pulse:
    """The time at which work on a folder last made progress. A system call on a mount that hangs never returns, so
    another thread checks this time."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def beat(self) -> None:
        """Record progress."""
        self._last = time.monotonic()

    @property
    def silent(self) -> float:
        """Seconds since the last beat."""
        return time.monotonic() - self._last


def run_watched(work: Callable[[], T], pulse: Pulse, patience: float, folder: Path | Address) -> T:
    """Run `work` in another thread; returns its result, or raises its error. Raises HostError if it makes no progress
    (Pulse.beat) for `patience` seconds; the thread is then abandoned, since a thread in a system call cannot be
    ended."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001  raised below
            errors.append(error)

    pulse.beat()
    thread = threading.Thread(target=run, daemon=True, name="copies")
    thread.start()
    while thread.is_alive():
        thread.join(0.2)
        if thread.is_alive() and pulse.silent > patience:
            lost = "Is the drive still connected?" if isinstance(folder, Path) else "Is the network up?"
            raise HostError(f"{folder} has not answered for {patience:.0f} s. {lost}")
    if errors:
        raise errors[0]
    return results[0]


def copy(source: Path, target: Path, pulse: Pulse, expected: str | None = None) -> str:
    """Copy `source` to `target`, completely or not at all, and read the copy back; returns its SHA-256.

    Raises Changed if it is not `expected`, OSError.
    """
    temporary = target.with_name(f"{TEMPORARY}{os.urandom(6).hex()}")
    try:
        reading = source.open("rb")
    except FileNotFoundError as error:
        raise Changed(errno.ENOENT, "is missing", str(source)) from error
    try:
        with reading, temporary.open("wb") as writing:
            about = os.fstat(reading.fileno())
            hashed = hashlib.sha256()
            waiting = 0
            while chunk := reading.read(CHUNK):
                hashed.update(chunk)
                writing.write(chunk)
                pulse.beat()
                waiting += len(chunk)
                if waiting >= SYNCED:
                    writing.flush()
                    os.fsync(writing.fileno())
                    pulse.beat()
                    waiting = 0
            writing.flush()
            os.fsync(writing.fileno())
            pulse.beat()
        digest = hashed.hexdigest()
        if expected is not None and digest != expected:
            raise Changed(errno.EIO, "does not match its SHA-256", str(source))
        if read_back(temporary, pulse) != digest:
            raise OSError(errno.EIO, "what was read back is not what was written", str(target))
        with suppress(OSError):  # some drives do not store times: see `same`
            os.utime(temporary, ns=(about.st_mtime_ns, about.st_mtime_ns))
        temporary.replace(target)
        sync(target.parent)
        pulse.beat()
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return digest


def read_back(path: Path, pulse: Pulse) -> str:
    """SHA-256 of a file as it is on the disk: where the system allows it, the file's pages are first dropped from the
    page cache, in which writing has left them."""
    with path.open("rb") as file:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        hashed = hashlib.sha256()
        while chunk := file.read(CHUNK):
            hashed.update(chunk)
            pulse.beat()
    return hashed.hexdigest()


def files_under(folder: Path) -> Iterator[Path]:
    """The regular files under `folder` (or `folder` itself, if it is one), sorted, without hidden ones (locks,
    temporary files) and links. No files if it does not exist."""
    if folder.is_symlink():
        return
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            if not path.name.startswith("."):
                yield from files_under(path)
    elif regular_file(folder) is None:
        yield folder


def same(one: Path, other: Path) -> bool:
    """Whether two files have the same content. Files of equal size and modification time count as equal; if only the
    times differ (some drives do not store them), the contents are compared."""
    a, b = one.stat(), other.stat()
    if a.st_size != b.st_size:
        return False
    return a.st_mtime_ns == b.st_mtime_ns or sha256(one) == sha256(other)
