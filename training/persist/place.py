"""The identity of a --persist folder: an id in a file. The path does not identify it, since a detached drive leaves an
empty folder there; neither does the device number, which is often another one after the drive is attached again.

The folder with the id is the place, wherever it is mounted. Nothing is written to a folder without the id.
"""

from __future__ import annotations

import errno
import json
import os
from contextlib import suppress
from pathlib import Path

from training.data.files import sync

NAME = ".athanor-place.json"
_KEY = "place"


class Detached(OSError):
    """The folder is not the place, or not there at all."""


class Place:
    """The --persist folder `root`, as this process found it when it entered."""

    def __init__(self, root: Path):
        self.root = root
        self._id = ""
        self._seen = (-1, -1)  # device and inode of `root` when it was last the place

    def enter(self) -> None:
        """Use the folder that is there now as the place. It gets an id if it has none. Raises OSError."""
        self._id = self._read()
        if not self._id:
            self._write(os.urandom(16).hex())
            self._id = self._read()  # if two hosts enter a new folder at once, both use the id that was written last
        self._seen = self._stat()

    def require(self) -> bool:
        """Check that the folder still is the place. Returns whether it was attached again since the last check: files
        may then have been lost with the connection. Raises Detached if it is not the place, OSError."""
        found, seen = self._read(), self._stat()
        if not found and seen == self._seen:  # the same folder of the same drive: only the file was deleted
            self._write(self._id)
        elif not found:
            raise Detached(
                errno.ENOTCONN, f"{self.root} has disappeared (there is no {NAME} in it): is the drive attached?"
            )
        elif found != self._id:
            raise Detached(
                errno.ENOTCONN, f"{self.root} is another folder now ({NAME} has another id): another drive is attached"
            )
        again = seen != self._seen
        self._seen = seen
        return again

    def _stat(self) -> tuple[int, int]:
        try:
            about = self.root.stat()
        except FileNotFoundError:
            return -1, 0
        return about.st_dev, about.st_ino

    def _read(self) -> str:
        """The id; empty if there is none, or it is damaged."""
        try:
            held = json.loads((self.root / NAME).read_bytes())
        except (FileNotFoundError, ValueError):
            return ""
        return str(held.get(_KEY, "")) if isinstance(held, dict) else ""

    def _write(self, identity: str) -> None:
        temporary = self.root / f"{NAME}-{os.urandom(4).hex()}"
        about = "By this file Athanor recognises the folder, wherever it is mounted. Keep it."
        try:
            temporary.write_text(json.dumps({_KEY: identity, "about": about}) + "\n", encoding="utf-8")
            temporary.replace(self.root / NAME)
            sync(self.root)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
