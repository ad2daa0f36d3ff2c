"""Stores: decoded arrays in a few flat, memory-mapped files, found by the content of the files they were decoded from.

A store is a folder of shards and of parts, which are folders of shards. A shard may also be in an object store; its
table is here then (remote_shards.py). A shard is written under a temporary name,
flushed, fsynced and renamed. Its table and footer are written last, so an incomplete shard is recognised and ignored.
A finished shard never changes.

    header    64 bytes: magic, format
    records   each from a multiple of 64 bytes (records.py)
    table     64 bytes an entry (ENTRY), sorted by `head`
    footer    64 bytes: magic, format, CRC of the table, its offset, its number of entries
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np

from training.data.files import disk_errors, sync
from training.data.records import ALIGN, pack, unpack
from training.data.remote_shards import REMOTE, RemoteShard
from training.data.shard_file import BEGIN, END, ENTRY, FOOTER, FORMAT, HEADER, Located, Merged, Shard

SHARD_BYTES = 1 << 27  # small enough for eight of them to be kept on a small disk: see remote_shards.py
PART = "part-"  # a store's folders of this name hold shards that other hosts wrote
_AT_ONCE = 1 << 16  # keys that are located at a time
_MOST_SINGLE = 8  # shards that are searched one by one before their tables are merged


def key_of(content: str, version: str) -> bytes:
    """The 32-byte key of a record: the result of an encoder of `version` on a file whose SHA-256 is `content`."""
    return hashlib.sha256(f"{content}\0{version}".encode()).digest()


# -- reading ---------------------------------------------------------------------------------------------------------


class Store:
    """The records of one kind of file. Cheap to make and picklable; every process opens the files on first use.

    Use `Store.at(folder)` where many objects refer to one store: a process then opens it once.
    """

    def __init__(self, folder: Path, parts: bool = True):
        """`parts`: include the parts that other hosts wrote."""
        self.folder, self._parts = Path(folder), f"{PART}*/*.shard" if parts else None
        self._shards: dict[str, Shard | RemoteShard] | None = None  # by name under the folder
        self._merged: Merged | None = None  # the merged table of most shards
        self._single: dict[str, Shard | RemoteShard] = {}  # newer shards, which are not in the merged table

    @staticmethod
    def at(folder: Path) -> Store:
        """This process's store of `folder`."""
        return _store_at(str(folder))

    def __reduce__(self) -> tuple:
        return _store_at, (str(self.folder),)

    def refresh(self) -> None:
        """Open shards that were finished since the last call; drop those that were deleted."""
        known, self._shards = self._shards or {}, {}
        here = {*self.folder.glob("*.shard"), *(self.folder.glob(self._parts) if self._parts else ())}
        elsewhere = {path.with_suffix("") for path in self.folder.glob(f"*.shard{REMOTE}")} if self._parts else set()
        for path in sorted(here | elsewhere):
            name = path.relative_to(self.folder).as_posix()
            try:
                self._shards[name] = known.get(name) or (Shard(path) if path in here else RemoteShard(path))
            except (ValueError, OSError):
                continue  # incomplete, or of another format: the shard is ignored
        if self._merged is not None and not self._merged.shards.keys() <= self._shards.keys():
            self._merged = None
        self._single = {n: s for n, s in self._shards.items() if self._merged is None or n not in self._merged.shards}
        if len(self._single) > _MOST_SINGLE:
            self._merge()

    def _merge(self) -> None:
        self._merged, self._single = Merged(dict(sorted(self._shards.items()))), {}

    def _find(self, key: bytes) -> tuple[Shard | RemoteShard, np.void] | None:
        if self._shards is None:
            self.refresh()
        if self._merged is not None and (hit := self._merged.find(key)) is not None:
            return hit
        for shard in self._single.values():
            entry = shard.find(key)
            if entry is not None:
                return shard, entry
        return None

    def __contains__(self, key: bytes) -> bool:
        return self._find(key) is not None

    def __len__(self) -> int:
        if self._shards is None:
            self.refresh()
        return sum(len(shard.table) for shard in self._shards.values())

    def get(self, key: bytes) -> dict[str, np.ndarray]:
        """Name -> read-only array, memory-mapped. Raises KeyError if there is no such record."""
        hit = self._find(key)
        if hit is None:
            self.refresh()
            hit = self._find(key)
        if hit is None:
            raise KeyError(f"{self.folder} has no record {key.hex()[:12]}; it was deleted during the run")
        return unpack(hit[0].record(hit[1]))

    def locate(self, keys: np.ndarray) -> Located:
        """The positions of the records of many keys (uint8 [n, 32]), without reading a record; refreshes first."""
        self.refresh()
        if self._single or self._merged is None:
            self._merge()
        keys = np.ascontiguousarray(keys)
        parts = [self._merged.locate(keys[at : at + _AT_ONCE]) for at in range(0, len(keys), _AT_ONCE)]
        names = list(self._merged.shards)
        if not parts:
            return Located(names, np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.int64))
        return Located(names, *(np.concatenate(columns) for columns in zip(*parts, strict=True)))

    def shard(self, name: str) -> Shard | RemoteShard:
        """A shard by its name under the folder. Raises KeyError if it does not exist."""
        if self._shards is None or name not in self._shards:
            self.refresh()
        return self._shards[name]

    def shards(self) -> list[Shard | RemoteShard]:
        """All shards, sorted by name."""
        self.refresh()
        return [shard for _, shard in sorted(self._shards.items())]

    def release(self) -> None:
        """Drop all pages that were read from this process's memory: see `Shard.release`."""
        for shard in (self._shards or {}).values():
            shard.release()

    def record_at(self, located: Located, index: int) -> np.ndarray:
        """The bytes of a located record, uint8 [n]."""
        start, length = int(located.offset[index]), int(located.length[index])
        return self.shard(located.shards[located.shard[index]]).read(start, start + length)

    def damaged(self) -> list[str]:
        """Keys (hex) of records that do not match their checksum; reads all records."""
        self.refresh()
        return [
            entry["key"].tobytes().hex()
            for shard in self._shards.values()
            for entry in shard.table
            if zlib.crc32(shard.record(entry)) != entry["crc"]
        ]

    @contextmanager
    def writing(self, shard_bytes: int = SHARD_BYTES, part: str = "") -> Iterator[Writer]:
        """Lock the store for writing; other writers wait here. Everything that was added is published when the block
        ends, also by an error or an interruption: every added record is complete.

        `part`: lock and write only the part of the store that has this name, so that several hosts may write parts of
        one store at the same time.
        """
        folder = self.folder / f"{PART}{part}" if part else self.folder
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for leftover in folder.glob(".writing-*"):
                leftover.unlink(missing_ok=True)  # of a writer that was killed: no other can be active under this lock
            self.refresh()
            writer = Writer(self, folder, shard_bytes)
            try:
                yield writer
            finally:
                try:
                    writer.publish()
                finally:
                    writer.discard()
        finally:
            os.close(lock)


@cache
def _store_at(folder: str) -> Store:
    return Store(Path(folder))


class Record(Mapping[str, np.ndarray]):
    """The stored arrays of one file; read from the store on first access. Picklable, and small."""

    __slots__ = ("_arrays", "key", "store")

    def __init__(self, store: Store, key: bytes):
        self.store, self.key = store, key
        self._arrays: dict[str, np.ndarray] | None = None

    def __reduce__(self) -> tuple:
        return Record, (self.store, self.key)

    def _load(self) -> dict[str, np.ndarray]:
        if self._arrays is None:
            self._arrays = self.store.get(self.key)
        return self._arrays

    def __getitem__(self, name: str) -> np.ndarray:
        return self._load()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._load())

    def __len__(self) -> int:
        return len(self._load())


# -- writing -------------------------------------------------------------------------------------------------------


class Writer:
    """Adds records to a store; made by `Store.writing`."""

    def __init__(self, store: Store, folder: Path, shard_bytes: int):
        self._store, self._folder, self._limit = store, folder, shard_bytes
        self._entries: list[tuple] = []
        self._keys: set[bytes] = set()
        self._stream = None
        self._path: Path | None = None

    def add(self, key: bytes, record: bytes | Mapping[str, np.ndarray]) -> bool:
        """Add arrays, or the bytes that `pack` made of them. Returns False, and adds nothing, if the store already has
        the key."""
        if key in self._keys or key in self._store:
            return False
        data = record if isinstance(record, bytes) else pack(record)
        with disk_errors(self._folder):
            if self._stream is None:
                self._path = self._folder / f".writing-{os.getpid()}-{os.urandom(4).hex()}"
                self._stream = self._path.open("wb")
                self._stream.write(HEADER.pack(BEGIN, FORMAT))
            offset = self._stream.tell()
            self._stream.write(data)
            self._stream.write(bytes(-len(data) % ALIGN))
        head = int.from_bytes(key[:8], "little")
        self._entries.append((head, np.frombuffer(key, np.uint8), offset, len(data), zlib.crc32(data), 0))
        self._keys.add(key)
        if offset + len(data) >= self._limit:
            self.publish()
        return True

    def publish(self) -> None:
        """Finish the shard: from now on its records are durable, and readers find them."""
        if self._stream is None:
            return
        table = np.sort(np.array(self._entries, ENTRY), order="head")
        # The file is fsynced before the rename: a name that ends in .shard then always has its complete content, even
        # after a power cut. The folder is fsynced after it, which makes the rename itself durable.
        with disk_errors(self._folder):
            offset = self._stream.tell()
            data = table.tobytes()
            self._stream.write(data)
            self._stream.write(FOOTER.pack(END, FORMAT, zlib.crc32(data), offset, len(table)))
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._stream.close()
            self._path.replace(self._folder / _next_name(self._folder.glob("*.shard")))
            sync(self._folder)
        self._stream, self._path, self._entries, self._keys = None, None, [], set()
        self._store.refresh()

    def discard(self) -> None:
        """Delete the unpublished shard, if there is one."""
        if self._stream is not None:
            self._stream.close()
            self._path.unlink(missing_ok=True)
            self._stream = None


def _next_name(existing: Iterable[Path]) -> str:
    numbers = [int(path.stem) for path in existing if path.stem.isdigit()]
    return f"{max(numbers, default=0) + 1:08d}.shard"
