"""Append-only files, on a disk that may fill up or lose them during a run."""

from __future__ import annotations

import os
import threading
from pathlib import Path


class AppendOnlyFile:
    """A file to append to. What cannot be written now (a full disk) is kept, and written as soon as it can be; a file
    that was deleted, alone or with its folder, is made again with all that it held, and one that could not even be
    opened is opened later. Nothing here raises: see `failed`. Any thread may write: the one that saves has things to
    say, too.
    """

    def __init__(self, path: Path):
        self.path = path
        self.failed: OSError | None = None  # why something waits to be written; None: all is written
        self._waiting = bytearray()
        self._lock = threading.Lock()
        self._handle: int | None = None
        self.write(b"")

    def write(self, data: bytes) -> None:
        """Append `data`."""
        with self._lock:
            self._waiting += data
            try:
                handle = self._find()
                while self._waiting:  # a disk that fills up takes the beginning of what it is given
                    del self._waiting[: os.write(handle, self._waiting)]
                self.failed = None
            except OSError as error:
                self.failed = error

    def close(self) -> bytes:
        """Returns what could not be written."""
        self.write(b"")
        if self._handle is not None:
            os.close(self._handle)
        return bytes(self._waiting)

    def _find(self) -> int:
        """The descriptor of what `path` names now."""
        if self._handle is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = self._open()
            return self._handle
        ours = os.fstat(self._handle)
        try:
            there = self.path.stat()
            if (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino):
                return self._handle
        except FileNotFoundError:
            # Its folder is made again, but nothing above: where more than a run's logs are gone, a drive was detached.
            self.path.parent.mkdir(exist_ok=True)
        handle = self._open()
        # A deleted file can be read as long as it is open. It goes first into what waits, in case the disk is full too.
        held = os.pread(self._handle, ours.st_size, 0)
        os.close(self._handle)
        self._handle = handle
        self._waiting[:0] = held
        return handle

    def _open(self) -> int:
        return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
