"""The manifest of files that are in an object store under their own names: `manifest.json`, written after them."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from training.data.files import sha256
from training.data.objects.store import ABSENT, SINGLE, ObjectStore, Version, digest_of_store
from training.errors import UsageError
from training.persist.copying import Pulse
from training.persist.objects.catalog import safe

KEY = "manifest.json"


@dataclass(frozen=True)
class Listed:
    """A file, as it was when it was copied and verified."""

    sha256: str
    bytes: int
    mtime_ns: int
    etag: str | None


@dataclass
class Manifest:
    """The files that are complete, by their path in the workspace. For the holder of the lease on the place."""

    store: ObjectStore
    files: dict[str, Listed] = field(default_factory=dict)
    version: Version = ABSENT

    @classmethod
    def load(cls, store: ObjectStore) -> Manifest:
        """As it is in `store`. Raises UsageError if it is damaged, OSError."""
        found = store.get(KEY)
        if found is None:
            return cls(store)
        try:
            files = {safe(name): Listed(**about) for name, about in json.loads(found[0])["files"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{store.address}/{KEY} cannot be read ({error}): delete it, and copy again.") from None
        return cls(store, files, found[1])

    def is_current(self, name: str, path: Path, pulse: Pulse) -> bool:
        """Whether the object `name` is the one that was verified, and has the content of the file `path`."""
        pulse.beat()
        listed = self.files.get(name)
        if listed is None:
            return False
        try:
            about = path.stat()
        except FileNotFoundError:
            return False
        if about.st_size != listed.bytes or (about.st_mtime_ns != listed.mtime_ns and sha256(path) != listed.sha256):
            return False
        there = self.store.head(name)
        return there is not None and (there.size, there.version.etag) == (listed.bytes, listed.etag)

    def drop(self, names: Iterable[str]) -> None:
        """Take files that are about to be replaced from the manifest, in the store too."""
        listed = [name for name in names if self.files.pop(name, None) is not None]
        if listed:
            self.write()

    def upload(self, name: str, path: Path, pulse: Pulse) -> None:
        """Copy the file `path`, verify it, and list it (`write` makes it known). Raises FileNotFoundError if it is
        missing, OSError."""
        about = path.stat()
        digest = sha256(path)
        version = self.store.put_file(name, path, pulse.beat)
        pulse.beat()
        if about.st_size > SINGLE or version.etag != digest_of_store(path.read_bytes()):
            self._read_back(name, digest, pulse)
        self.files[name] = Listed(digest, about.st_size, about.st_mtime_ns, version.etag)

    def write(self) -> None:
        """Replace the manifest in the store. Raises Conflict if another host has replaced it, OSError."""
        about = "Files below this prefix that were copied completely, with their SHA-256."
        value = {"about": about, "writer": os.urandom(8).hex(), "files": {n: asdict(v) for n, v in self.files.items()}}
        self.version = self.store.put(KEY, json.dumps(value, indent=1).encode(), self.version)

    def _read_back(self, name: str, digest: str, pulse: Pulse) -> None:
        hashed = hashlib.sha256()
        for piece in self.store.stream(name):
            hashed.update(piece)
            pulse.beat()
        if hashed.hexdigest() != digest:
            raise OSError(errno.EIO, "what was read back is not what was written", f"{self.store.address}/{name}")
