"""Append-only files for logs, which survive a full disk and the deletion of the file during a run."""

from __future__ import annotations

import os
import threading
from pathlib import Path


class AppendOnlyFile:
    """A file to which any thread may append. No method raises; `failed` holds the last error.

    Data that cannot be written (the disk is full, or the file cannot be opened) is kept in memory and written at the
    next opportunity. A file that was deleted, alone or with its folder, is created again with its earlier content.
    """

    def __init__(self, path: Path):
        self.path = path
        self.failed: OSError | None = None  # why data waits to be written; None: all is written
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
                while self._waiting:  # on a disk that fills up, os.write writes only a part
                    del self._waiting[: os.write(handle, self._waiting)]
                self.failed = None
            except OSError as error:
                self.failed = error

    def close(self) -> bytes:
        """Close the file. Returns the data that could not be written."""
        self.write(b"")
        if self._handle is not None:
            os.close(self._handle)
        return bytes(self._waiting)

    def _find(self) -> int:
        """The descriptor of the file at `path`, which is opened again if it was deleted or replaced."""
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
            # Create its folder again, but no folder above it: if those are gone too, a drive was detached.
            self.path.parent.mkdir(exist_ok=True)
        handle = self._open()
        # A deleted file can be read while it is open. Its content is queued before the new data.
        held = os.pread(self._handle, ours.st_size, 0)
        os.close(self._handle)
        self._handle = handle
        self._waiting[:0] = held
        return handle

    def _open(self) -> int:
        return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
