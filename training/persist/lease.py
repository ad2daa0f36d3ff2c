"""A lease on a folder that several hosts can reach. File locks of the kernel often have no effect there.

The holder writes its name to a small file, and renews it regularly. This does not exclude others as a lock does: if
hosts see each other's files late (a drive that synchronises from time to time), two may begin. The one that then finds
another name in the file stops, and reports that.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from training.data.files import sync
from training.errors import HostError
from training.host import process_exists
from training.persist.copying import Pulse
from training.persist.place import Place

NAME = ".in_use.json"
BEAT = 15.0  # seconds between two renewals
SILENT = 90.0  # seconds without one after which the lease has expired
LONG_DEAD = 3600.0  # age in seconds beyond which a lease has expired for certain, as clocks of hosts may differ
_held: set[str] = set()  # tokens in use by this process


class Taken(OSError):
    """Another process has taken the lease."""


class StoredLease(ABC):
    """A lease of this process on `leased`, wherever it is stored. `say` prints a line for people."""

    def __init__(self, leased: Path | str, purpose: str, say: Callable[[str], None]):
        self.leased, self.purpose, self.say = leased, purpose, say
        self._token = os.urandom(8).hex()
        self._renewed = 0.0

    @property
    @abstractmethod
    def where(self) -> str:
        """Where the lease is stored, for people."""

    @abstractmethod
    def _prepare(self) -> None: ...

    @abstractmethod
    def _attached_again(self) -> bool: ...

    @abstractmethod
    def _read(self) -> bytes:
        """The notice of the holder; empty if there is none."""

    @abstractmethod
    def _write(self) -> None:
        """Write the notice of this process, and note the time in `_renewed`."""

    @abstractmethod
    def _remove(self) -> None: ...

    def take(self, pulse: Pulse) -> None:
        """Take the lease. If it is not known whether another host still renews it, wait SILENT seconds for a renewal.
        Raises HostError if another process holds it, OSError."""
        self._prepare()
        text = self._read()
        if text and not self._expired(text, pulse):
            raise self._in_use(text)
        self._write()
        _held.add(self._token)

    def renew(self) -> bool:
        """To be called every BEAT seconds, and before the folder is used. Returns whether the place was attached again
        since the last call. Raises Taken if another process has the lease, Detached if the place is not there."""
        again = self._attached_again()
        text = self._read()
        if text and parsed(text).get("token") != self._token:
            raise Taken(errno.EBUSY, f"it is used by {who(text)} now")
        if not text or time.monotonic() - self._renewed > BEAT:
            self._write()
        return again

    def free(self) -> None:
        """Release the lease. Where that fails, it expires after SILENT seconds."""
        _held.discard(self._token)
        with suppress(OSError):
            if parsed(self._read()).get("token") == self._token:
                self._remove()

    def _expired(self, text: bytes, pulse: Pulse) -> bool:
        """Whether the holder that `text` names has ended, or does not renew the lease."""
        notice = parsed(text)
        if notice.get("place") == pid_namespace():
            return not _alive(notice)
        at = notice.get("at")
        if isinstance(at, int | float) and abs(time.time() - at) > LONG_DEAD:
            return True
        self.say(f"{self.leased} was last used by {who(text)}; waiting {SILENT:.0f} s for a sign of life.")
        until = time.monotonic() + SILENT
        while time.monotonic() < until:
            time.sleep(SILENT / 90)
            pulse.beat()
            now = self._read()
            if now != text:
                return not now
        return True

    def _in_use(self, text: bytes) -> HostError:
        return HostError(
            f"{self.leased} is in use by {who(text)}. Two cannot keep their copies in one place: stop the other, or "
            f"name another --persist folder. (If it is gone for good, delete {self.where}.)"
        )

    def _notice(self) -> dict[str, Any]:
        return {
            "host": socket.gethostname(), "process": os.getpid(), "began": _began(os.getpid()),
            "place": pid_namespace(), "purpose": self.purpose, "at": time.time(), "token": self._token,
        }  # fmt: skip


class Lease(StoredLease):
    """A lease on `folder`, in the --persist folder `place`."""

    def __init__(self, folder: Path, purpose: str, say: Callable[[str], None], place: Place):
        super().__init__(folder, purpose, say)
        self.folder, self.place = folder, place

    @property
    def where(self) -> str:
        """The file of the lease."""
        return str(self.folder / NAME)

    def _prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    def _attached_again(self) -> bool:
        return self.place.require()

    def _remove(self) -> None:
        (self.folder / NAME).unlink()

    def _read(self) -> bytes:
        try:
            return (self.folder / NAME).read_bytes()
        except FileNotFoundError:
            return b""

    def _write(self) -> None:
        temporary = self.folder / f"{NAME}-{self._token}"
        try:
            temporary.write_text(json.dumps(self._notice()), encoding="utf-8")
            temporary.replace(self.folder / NAME)
            sync(self.folder)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        self._renewed = time.monotonic()


def pid_namespace() -> str:
    """An id of the range in which process numbers are unique: this boot of this host, and this container."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        parts.append(os.readlink("/proc/self/ns/pid"))  # noqa: PTH115  not a path
    return " ".join(parts)


def _began(process: int) -> str:
    """When a process was started, in clock ticks after the host's boot. It distinguishes the process from a later one
    with the same number."""
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
        return text.rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _alive(notice: dict[str, Any]) -> bool:
    process = notice.get("process")
    if not isinstance(process, int):
        return False
    if process == os.getpid():
        return notice.get("token") in _held
    if not process_exists(process):
        return False
    return _began(process) == notice.get("began")


def parsed(text: bytes) -> dict[str, Any]:
    """The notice of a lease; empty if it is damaged."""
    try:
        notice = json.loads(text)
    except ValueError:
        return {}
    return notice if isinstance(notice, dict) else {}


def who(text: bytes) -> str:
    """The holder that a lease names, for people."""
    notice = parsed(text)
    if not notice:
        return "another process"
    return f"process {notice.get('process')} on {notice.get('host')} ({notice.get('purpose')})"
