"""A place in an object store as the second place.

    place.json                     the runs that have checkpoints here
    lock.json                      who copies files that belong to no run
    checkpoints/RUN/index.json     the checkpoints of a run, and its logs, manifests and report as of the same save
    checkpoints/RUN/blobs/SHA256   their contents
    checkpoints/RUN/lock.json      who trains this run
    data/ runs/ exports/           files under their own names, copied at the end of a job
    manifest.json                  which of these are complete: their sizes and SHA-256

Nothing is looked up by listing the store, as some stores list new objects late.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from training.data.files import sha256
from training.data.objects.address import Address
from training.data.objects.store import ABSENT, Conflict, ObjectStore, StoreError, Version
from training.engine.checkpoints.index import Index
from training.errors import HostError, UsageError
from training.persist.copying import Changed, Pulse, files_under
from training.persist.destination import reason_of
from training.persist.objects.blobs import download
from training.persist.objects.catalog import Catalog
from training.persist.objects.lock import ObjectLease
from training.persist.objects.manifest import Manifest
from training.persist.objects.replica import ObjectReplica
from training.persist.remote import refuse_if_ahead
from training.persist.second_place import SecondPlace
from training.units import size

REGISTRY = "place.json"
LISTED = 20.0  # seconds between two writes of the manifest while files are copied
ATTEMPTS = 20  # at an object that several hosts change at once


class ObjectPlace(SecondPlace):
    """The place `address`. Raises HostError if obstore is not installed, or the environment is not complete."""

    exclusive = True
    patience = 5.0
    read_back = "verified there"
    verified = "each file compared with the digest that the store computed, or read back"

    def __init__(self, address: Address):
        self.store = ObjectStore(address)
        self._entered = False
        self._registered: set[str] = set()

    def enter(self, root: Path, say: Callable[[str], None]) -> None:
        """See SecondPlace."""
        if not self._entered and not self.store.check_conditions():
            self.exclusive = False
            say(
                f"NOTE: {self.store.address}: this store ignores conditions of writes (If-None-Match, If-Match). As on "
                "a network drive, of two hosts that begin a run at the same moment both may succeed: start only one."
            )
        self._entered = True

    def lease(self, run: str, purpose: str, say: Callable[[str], None]) -> ObjectLease:
        """See SecondPlace."""
        return ObjectLease(self.store, f"checkpoints/{run}" if run else "", purpose, say)

    def replica(self, source: Path, run: str, pulse: Pulse) -> ObjectReplica:
        """See SecondPlace."""
        return ObjectReplica(self.store, run, source, pulse)

    def replicate(self, replica: Any, root: Path, also: Iterable[Path], pulse: Pulse) -> list[str]:
        """See SecondPlace."""
        self._register(replica.run)
        return replica.update(root, also)

    def runs(self) -> list[str]:
        """See SecondPlace."""
        return sorted(self._registry()[0])

    def checkpoints(self, run: str) -> ObjectSource:
        """See SecondPlace."""
        return ObjectSource(self.store, run)

    def require_not_ahead(self, source: Path, run: str) -> None:
        """See SecondPlace."""
        there = Catalog.read(self.store, run)[0].listing
        refuse_if_ahead(there, Index.read(source), f"{self.store.address}/checkpoints/{run}", source)

    def shown(self, run: str, name: str) -> str:
        """See SecondPlace."""
        return f"{self.store.address}/checkpoints/{run}/{name}"

    # -- files -----------------------------------------------------------------------------------------------------

    def restore_files(self, root: Path, parts: Iterable[str], pulse: Pulse) -> tuple[int, int]:
        """See SecondPlace."""
        below = tuple(f"{part}/" for part in parts)
        found: dict[str, tuple[int, str, list[str]]] = {}  # name -> modification time, SHA-256, keys of the contents
        for run in self.runs():
            catalog = Catalog.read(self.store, run)[0]
            for name, (digest, at) in catalog.beside.items():
                keys = [f"checkpoints/{run}/blobs/{part.sha256}" for part in catalog.blobs[digest]]
                found[name] = max(found.get(name, (0, "", [])), (at, digest, keys))
        for name, about in Manifest.load(self.store).files.items():
            if about.mtime_ns >= found.get(name, (0, "", []))[0]:  # of two equals, the one that is a single object
                found[name] = (about.mtime_ns, about.sha256, [name])
        restored = kept = 0
        for name, (at, digest, keys) in sorted(found.items()):
            here = root / name
            if not name.startswith(below):
                continue
            if here.is_file() and (here.stat().st_mtime_ns >= at or sha256(here) == digest):
                kept += 1
                continue
            here.parent.mkdir(parents=True, exist_ok=True)
            try:
                download(self.store, keys, here, pulse, digest)
            except Changed as error:
                print(f"{name}: not restored, as it {reason_of(error)}")
                continue
            os.utime(here, ns=(at, at))
            restored += 1
        return restored, kept

    def persist_files(self, root: Path, part: str, problems: list[str], pulse: Pulse) -> str | None:
        """See SecondPlace. What is to be replaced is taken from the manifest first, and listed again at the end: every
        file that it lists is complete at every moment."""
        paths = {path.relative_to(root).as_posix(): path for path in files_under(root / part)}
        manifest = Manifest.load(self.store)
        stale = [name for name, path in paths.items() if not manifest.is_current(name, path, pulse)]
        count = total = 0
        if stale:
            manifest.drop(stale)
            written = time.monotonic()
            for name in stale:
                if time.monotonic() - written > LISTED:  # so that a copy that is cut short continues from here
                    manifest.write()
                    written = time.monotonic()
                try:
                    manifest.upload(name, paths[name], pulse)
                except FileNotFoundError:  # deleted meanwhile
                    del paths[name]
                except OSError as error:
                    problems.append(f"{name}: {reason_of(error)}")
            manifest.write()
        for name in paths:
            if name in manifest.files:
                count, total = count + 1, total + manifest.files[name].bytes
        return f"{part}: {count} files, {size(total)}" if count else None

    # -- the runs that are there -----------------------------------------------------------------------------------

    def _registry(self) -> tuple[set[str], Version]:
        found = self.store.get(REGISTRY)
        if found is None:
            return set(), ABSENT
        try:
            runs = json.loads(found[0])["runs"]
            if not all(isinstance(run, str) and run.count("/") < 2 and ".." not in run for run in runs):
                raise ValueError("a name is not that of a run")
            return set(runs), found[1]
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{self.store.address}/{REGISTRY} cannot be read ({error}): delete it, and copy again."
            ) from None

    def _register(self, run: str) -> None:
        for _ in range(ATTEMPTS):
            if run in self._registered:
                return
            runs, version = self._registry()
            if run not in runs:
                about = "Athanor keeps copies here (--persist). These runs have checkpoints below checkpoints/."
                content: Any = {"about": about, "runs": sorted(runs | {run})}
                try:
                    self.store.put(REGISTRY, json.dumps(content, indent=1).encode(), version)
                except Conflict:  # another host has added its run
                    continue
            self._registered.add(run)
        if run not in self._registered:
            raise StoreError(f"{self.store.address}/{REGISTRY} changes all the time: too many hosts write there")


class ObjectSource:
    """The checkpoints of `run`, to be restored. See second_place.Source."""

    def __init__(self, store: ObjectStore, run: str):
        self.store, self.run = store, run
        self._catalog, self._version = Catalog(), ABSENT

    def __str__(self) -> str:
        return f"{self.store.address}/checkpoints/{self.run}"

    def index(self) -> Index:
        """See Source."""
        self._catalog, self._version = Catalog.read(self.store, self.run)
        return self._catalog.listing

    def fetch(self, names: tuple[str, ...], digest: str, target: Path, pulse: Pulse) -> bool:
        """See Source."""
        if digest not in self._catalog.blobs:
            return False
        keys = [f"checkpoints/{self.run}/blobs/{part.sha256}" for part in self._catalog.blobs[digest]]
        try:
            download(self.store, keys, target, pulse, digest)
        except Changed:
            return False
        return True

    def leave_out(self, damaged: list[str], left: Index) -> None:
        """See Source."""
        self._catalog.listing = left
        self._catalog.drop_unlisted()
        content = self._catalog.serialized(hashlib.sha256(os.urandom(8)).hexdigest()[:16])
        try:
            self._version = self.store.put(f"checkpoints/{self.run}/index.json", content, self._version)
        except Conflict as error:
            raise HostError(f"{self}: {reason_of(error)}; stop the other host.") from error
