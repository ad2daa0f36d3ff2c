"""A replica of one run's checkpoints in an object store, with further files of the run as of the same save.

The contents are objects whose names are their SHA-256 (`checkpoints/RUN/blobs/`). The index that lists them is replaced
last, by a write that succeeds only if no other host has replaced it. So after a kill at any moment the index lists
contents that are there. What it lists no more is deleted an hour later.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from training.data.objects.store import ABSENT, Conflict, ObjectStore, Version
from training.engine.checkpoints.index import BEFORE_LAST, BEST, LAST, Entry, Index, constants_name
from training.errors import HostError, UsageError
from training.persist import remote
from training.persist.copying import Changed, Pulse
from training.persist.lease import Taken
from training.persist.objects.blobs import intact, upload
from training.persist.objects.catalog import LINGER, Catalog, Part, key_of
from training.persist.remote import ATTEMPTS, refuse_if_ahead, shown_index


class ObjectReplica:
    """Copies what the index of `source` lists to `checkpoints/RUN/` in `store`. The caller holds a lease."""

    def __init__(self, store: ObjectStore, run: str, source: Path, pulse: Pulse):
        self.store, self.run, self.source, self.pulse = store, run, source, pulse
        self._writer = os.urandom(8).hex()
        self._catalog: Catalog | None = None  # as in the store; None: not read yet
        self._version: Version = ABSENT
        self._known: dict[str, Part] = {}  # parts that this process wrote and verified

    def sweep(self) -> None:
        """Delete parts that a killed copy wrote and did not list, if they are older than an hour. Raises OSError."""
        catalog, _ = Catalog.read(self.store, self.run)
        listed = {part.sha256 for part in catalog.parts()} | catalog.retired.keys()
        stray = [
            one for one in self.store.list(f"checkpoints/{self.run}/blobs") if one.key.rpartition("/")[2] not in listed
        ]
        if not stray:
            return
        lease = self.store.head(f"checkpoints/{self.run}/lock.json")  # renewed just now: the time by the store's clock
        now = lease.modified.timestamp() if lease else time.time()
        self.store.delete([one.key for one in stray if now - one.modified.timestamp() > LINGER])

    def forget(self) -> None:
        """Discard what is known about the index in the store, after a failure."""
        self._catalog = None

    def require_verification(self) -> None:
        """As `forget`: a store does not lose what it has confirmed when the connection is lost."""
        self.forget()

    def update(self, root: Path | None = None, beside: Iterable[Path] = ()) -> list[str]:
        """Copy all checkpoints that are missing or older in the store, and the files `beside`, relative to `root`.
        Returns a message for each checkpoint that is damaged in `source` and was left out. Another run's checkpoints
        are set aside in the store. Raises HostError if the store is ahead in the same run, Taken if another host has
        written there, OSError."""
        for _ in range(ATTEMPTS):
            try:
                return self._update(root, list(beside))
            except Changed:  # a save replaced a file while it was copied
                self.pulse.beat()
        raise HostError(f"the checkpoints in {self.source} change faster than they can be copied")

    def damaged(self) -> list[str]:
        """Compare all listed objects with what was verified when they were written; returns the names of the files of
        which one is missing or another, which the next `update` copies again. Raises OSError."""
        catalog, self._version = Catalog.read(self.store, self.run)
        lost = {
            content for content, parts in catalog.blobs.items()
            if not all(intact(self.store, self._key(part.sha256), part) for part in parts)
        }  # fmt: skip
        self._known.clear()
        for content in lost:
            del catalog.blobs[content]
        bad = [name for name, entry in catalog.listing.files.items() if {entry.sha256, entry.constants} & lost]
        catalog.listing = _without(catalog.listing, bad, lost)
        catalog.previous = {run: _without(index, (), lost) for run, index in catalog.previous.items()}
        bad += [name for name, (digest, _) in catalog.beside.items() if digest in lost]
        catalog.beside = {name: about for name, about in catalog.beside.items() if about[0] not in lost}
        self._catalog = catalog
        return bad

    def shown(self) -> str:
        """A description of the checkpoints in the store, for people."""
        try:
            catalog = self._catalog or Catalog.read(self.store, self.run)[0]
        except (OSError, UsageError) as error:
            return f"nothing that can be read ({error})"
        return shown_index(catalog.listing)

    # -- update ----------------------------------------------------------------------------------------------------

    def _update(self, root: Path | None, beside: list[Path]) -> list[str]:
        mine = Index.read(self.source)
        if LAST not in mine.files:
            return []
        catalog = self._load(mine)
        before = catalog.serialized("")
        problems: list[str] = []
        files: dict[str, Entry] = {}
        others = [BEFORE_LAST] if BEFORE_LAST in mine.files else []
        for name in (*remote.best_first(mine), *others, *mine.epochs()[::-1]):
            entry = mine.files[name]
            new = entry.sha256 not in catalog.blobs or (name == LAST and catalog.listing.files.get(LAST) != entry)
            new &= name != BEST  # it is listed together with the last one, whose progress refers to it
            try:
                if entry.constants:
                    self._add(constants_name(entry.constants), entry.constants, catalog)
                self._add(name, entry.sha256, catalog)
            except Changed as error:
                if not remote.still_listed(self.source, name, entry, self.pulse):
                    raise
                problems.append(f"{error.filename} is missing or damaged")
                continue
            files[name] = entry
            if new:  # what is copied is listed at once: the next one may take long
                self._list(catalog, replace_in(catalog.listing, {BEST: files.get(BEST), name: entry}))
        for relative in beside if root is not None else ():
            self._add_beside(root / relative, relative.as_posix(), catalog)
        listing = _with_constants(Index(files), catalog)
        if Index(listing.files, [], listing.constants) != catalog.listing or catalog.serialized("") != before:
            self._list(catalog, listing)
        return problems

    def _load(self, mine: Index) -> Catalog:
        if self._catalog is None:
            catalog, version = Catalog.read(self.store, self.run)
            last = catalog.listing.files.get(LAST)
            if last is not None and last.run_id != mine.files[LAST].run_id:
                name, number = last.run_id, 1
                while name in catalog.previous:
                    number += 1
                    name = f"{last.run_id}-{number}"
                catalog.previous[name], catalog.listing = catalog.listing, Index()
            refuse_if_ahead(catalog.listing, mine, f"{self.store.address}/checkpoints/{self.run}", self.source)
            self._catalog, self._version = catalog, version
            self._known |= {part.sha256: part for part in catalog.parts()}
        return self._catalog

    def _add(self, name: str, digest: str, catalog: Catalog) -> None:
        """Write the content of a file in `source`, unless it is in the store."""
        if digest not in catalog.blobs:
            _, parts = upload(self.source / name, self.store, self._key, self._known, self.pulse, digest)
            self._keep(digest, parts, catalog)

    def _add_beside(self, path: Path, name: str, catalog: Catalog) -> None:
        try:
            about = path.stat()
            listed = catalog.beside.get(name)
            if listed and listed[1] == about.st_mtime_ns and _size(catalog.blobs[listed[0]]) == about.st_size:
                return
            digest, parts = upload(path, self.store, self._key, self._known, self.pulse)
        except FileNotFoundError:  # deleted meanwhile
            return
        except Changed:
            return
        self._keep(digest, parts, catalog)
        catalog.beside[name] = digest, about.st_mtime_ns

    def _keep(self, digest: str, parts: list[Part], catalog: Catalog) -> None:
        catalog.blobs[digest] = parts
        self._known |= {part.sha256: part for part in parts}

    def _list(self, catalog: Catalog, listing: Index) -> None:
        """Replace the index in the store, verify it, then delete what has not been listed for an hour. Raises Taken if
        another host has replaced it."""
        catalog.listing = _with_constants(listing, catalog)
        old = catalog.drop_unlisted()
        content = catalog.serialized(self._writer)
        try:
            self._version = self.store.put(key_of(self.run), content, self._version)
            there = self.store.get(key_of(self.run))
        except Conflict:
            raise Taken(errno.EBUSY, f"another host has written {self.store.address}/{key_of(self.run)}") from None
        if there is None or there[0] != content:
            raise OSError(errno.EIO, "the index read back is not the one written", f"{self.store.address}")
        self.pulse.beat()
        for part in old:
            self._known.pop(part, None)
        self.store.delete([self._key(part) for part in old])

    def _key(self, part: str) -> str:
        return f"checkpoints/{self.run}/blobs/{part}"


def replace_in(listing: Index, entries: Mapping[str, Entry | None]) -> Index:
    """`listing` with other entries; None: the one that is there."""
    return replace(listing, files=listing.files | {name: entry for name, entry in entries.items() if entry is not None})


def _with_constants(listing: Index, catalog: Catalog) -> Index:
    """`listing` with the constants that its files refer to, as far as they are in `catalog`."""
    used = {entry.constants for entry in listing.files.values()} - {""}
    constants = {constants_name(d): {"sha256": d, "bytes": _size(catalog.blobs[d])} for d in sorted(used)}
    return Index(listing.files, [], constants)


def _without(listing: Index, names: Iterable[str], lost: set[str]) -> Index:
    """`listing` without `names`, and without everything whose content is in `lost`."""
    gone = {name for name, entry in listing.files.items() if {entry.sha256, entry.constants} & lost}
    return listing.without({*names, *gone})


def _size(parts: Iterable[Part]) -> int:
    return sum(part.bytes for part in parts)
