"""The lease on a place in an object store. Unlike one on a folder it excludes others for certain: it is created,
renewed, and taken over by writes under a condition, of which the store lets one succeed."""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Callable

from training.data.objects.store import ABSENT, Conflict, ObjectStore, Version
from training.persist import lease
from training.persist.copying import Pulse
from training.persist.lease import Taken, who

NAME = "lock.json"
_FREE = {"free": True, "about": "Released. Athanor writes here who uses this place."}


class ObjectLease(lease.StoredLease):
    """A lease of this process on what is stored below `part` (empty: all) in `store`."""

    def __init__(self, store: ObjectStore, part: str, purpose: str, say: Callable[[str], None]):
        below = f"{part}/" if part else ""
        super().__init__(f"{store.address}/{part}".rstrip("/"), purpose, say)
        self.store, self.key = store, f"{below}{NAME}"
        self._seen: Version = ABSENT  # of what was read last
        self._own: Version | None = None  # of what this lease has written last; None: nothing yet

    @property
    def where(self) -> str:
        """The object of the lease, for people."""
        return f"{self.store.address}/{self.key}"

    def take(self, pulse: Pulse) -> None:
        """As in Lease. Where two hosts take it at once, HostError for one of them."""
        try:
            super().take(pulse)
        except Conflict:
            raise self._in_use(self._read()) from None

    def renew(self) -> bool:
        """As in Lease; the write itself shows whether the lease is still held."""
        if time.monotonic() - self._renewed <= lease.BEAT:
            return False
        try:
            self._write()
        except Conflict:
            text = self._read()
            if text:
                raise Taken(errno.EBUSY, f"it is used by {who(text)} now") from None
            self._own = None  # it was deleted by hand, or another host has taken and released it
            self._write()
        return False

    def _prepare(self) -> None:
        """There are no folders to make."""

    def _attached_again(self) -> bool:
        return False

    def _remove(self) -> None:
        # Not deleted: a delete has no condition, and another host may have taken the lease meanwhile.
        self.store.put(self.key, json.dumps(_FREE).encode(), self._own)

    def _read(self) -> bytes:
        found = self.store.get(self.key)
        content, self._seen = found or (b"", ABSENT)
        return b"" if lease.parsed(content).get("free") else content

    def _write(self) -> None:
        # A lease that is held is replaced only if no one else has written it, whatever was read since.
        self._own = self.store.put(self.key, json.dumps(self._notice()).encode(), self._own or self._seen)
        self._renewed = time.monotonic()
