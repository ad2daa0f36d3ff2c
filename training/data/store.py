"""Stores: decoded arrays in a few flat, memory-mapped files, found by the content of the files they were decoded from.

A store is a folder of shards and of parts, which are folders of shards. A shard is written under a temporary name,
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
import mmap
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from training.data.files import disk_errors, sync
from training.data.records import ALIGN, pack, unpack

FORMAT = 1
SHARD_BYTES = 1 << 28
PART = "part-"  # a store's folders of this name hold shards that other hosts wrote
_AT_ONCE = 1 << 16  # keys that are located at a time
_MOST_SINGLE = 8  # shards that are searched one by one before their tables are merged

ENTRY = np.dtype(
    [
        ("head", "<u8"),  # the key's first 8 bytes
        ("key", "u1", 32),
        ("offset", "<u8"),
        ("length", "<u8"),
        ("crc", "<u4"),  # of the complete record
        ("unused", "<u4"),
    ]
)
_HEADER = struct.Struct("<8sI52x")
_FOOTER = struct.Struct("<8sIIQQ32x")
_BEGIN, _END = b"ATHANOR\x01", b"ATHANOR\x02"


def key_of(content: str, version: str) -> bytes:
    """The 32-byte key of a record: the result of an encoder of `version` on a file whose SHA-256 is `content`."""
    return hashlib.sha256(f"{content}\0{version}".encode()).digest()


# -- reading -------------------------------------------------------------------------------------------------------


class _Shard:
    """One opened shard. Raises ValueError if it is incomplete, damaged, or of another format."""

    def __init__(self, path: Path):
        size = path.stat().st_size
        if size < _HEADER.size + _FOOTER.size:
            raise ValueError("too short")
        self.path = path
        with path.open("rb") as stream:
            self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        self.bytes = np.frombuffer(self._map, np.uint8)
        begin, begin_format = _HEADER.unpack(self.bytes[: _HEADER.size].tobytes())
        end, end_format, crc, offset, count = _FOOTER.unpack(self.bytes[-_FOOTER.size :].tobytes())
        if (begin, end) != (_BEGIN, _END) or begin_format != FORMAT or end_format != FORMAT:
            raise ValueError("not a finished shard of this format")
        if offset + count * ENTRY.itemsize + _FOOTER.size != size:
            raise ValueError("its length is wrong")
        table = self.bytes[offset : size - _FOOTER.size]
        if zlib.crc32(table) != crc:
            raise ValueError("its table is damaged")
        self.table = table.view(ENTRY)
        self.heads = self.table["head"]

    def find(self, key: bytes) -> np.void | None:
        head = np.frombuffer(key, "<u8", 1)[0]
        at = int(np.searchsorted(self.heads, head))
        while at < len(self.heads) and self.heads[at] == head:
            if self.table[at]["key"].tobytes() == key:
                return self.table[at]
            at += 1
        return None

    def release(self) -> None:
        """Drop the pages that were read from this process's memory, because they will not be read again soon. They stay
        in the system's page cache as long as it has room."""
        self._map.madvise(mmap.MADV_DONTNEED)

    def record(self, entry: np.void) -> np.ndarray:
        return self.bytes[int(entry["offset"]) : int(entry["offset"] + entry["length"])]


@dataclass(frozen=True)
class Located:
    """The positions of n records."""

    shards: list[str]  # names under the store's folder
    shard: np.ndarray  # int32 [n]: index into `shards`, -1 where the store has no such record
    offset: np.ndarray  # int64 [n], of the record in its shard
    length: np.ndarray  # int64 [n], bytes


class _Merged:
    """The tables of many shards merged into one, so that a key needs one search: 16 bytes per record."""

    def __init__(self, shards: Mapping[str, _Shard]):
        self.shards, self._list = shards, list(shards.values())
        counts = [len(shard.table) for shard in self._list]
        heads = np.concatenate([np.zeros(0, np.uint64), *(shard.heads for shard in self._list)])
        order = np.argsort(heads, kind="stable")  # if several shards hold a record, the first one is used
        self.heads = heads[order]
        self.shard = np.repeat(np.arange(len(counts), dtype=np.int32), counts)[order]
        self.row = (order - np.repeat(np.cumsum(counts) - counts, counts)[order]).astype(np.uint32)

    def find(self, key: bytes) -> tuple[_Shard, np.void] | None:
        head = np.frombuffer(key, "<u8", 1)[0]
        at = int(np.searchsorted(self.heads, head))
        while at < len(self.heads) and self.heads[at] == head:
            shard = self._list[self.shard[at]]
            if shard.table[self.row[at]]["key"].tobytes() == key:
                return shard, shard.table[self.row[at]]
            at += 1
        return None

    def locate(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The arrays shard, offset and length of `Located`."""
        count = len(keys)
        shard, offset, length = np.full(count, -1, np.int32), np.zeros(count, np.int64), np.zeros(count, np.int64)
        heads = keys.view("<u8")[:, 0] if count else np.zeros(0, np.uint64)
        at = np.searchsorted(self.heads, heads)
        pending = np.flatnonzero(at < len(self.heads))
        while len(pending):  # a second round only where two keys share their first eight bytes
            pending = pending[self.heads[at[pending]] == heads[pending]]
            pending = pending[np.argsort(self.shard[at[pending]], kind="stable")]
            of_shard = self.shard[at[pending]]
            again = []
            for part in np.split(pending, np.flatnonzero(np.diff(of_shard)) + 1) if len(pending) else ():
                number = int(self.shard[at[part[0]]])
                entries = self._list[number].table[self.row[at[part]]]
                same = (entries["key"] == keys[part]).all(axis=1)
                hit = part[same]
                shard[hit], offset[hit], length[hit] = number, entries["offset"][same], entries["length"][same]
                again.append(part[~same])
            pending = np.concatenate([np.zeros(0, np.int64), *again])
            at[pending] += 1
            pending = pending[at[pending] < len(self.heads)]
        return shard, offset, length


class Store:
    """The records of one kind of file. Cheap to make and picklable; every process opens the files on first use.

    Use `Store.at(folder)` where many objects refer to one store: a process then opens it once.
    """

    def __init__(self, folder: Path, parts: bool = True):
        """`parts`: include the parts that other hosts wrote."""
        self.folder, self._parts = Path(folder), f"{PART}*/*.shard" if parts else None
        self._shards: dict[str, _Shard] | None = None  # by name under the folder
        self._merged: _Merged | None = None  # the merged table of most shards
        self._single: dict[str, _Shard] = {}  # newer shards, which are not in the merged table

    @staticmethod
    def at(folder: Path) -> Store:
        """This process's store of `folder`."""
        return _store_at(str(folder))

    def __reduce__(self) -> tuple:
        return _store_at, (str(self.folder),)

    def refresh(self) -> None:
        """Open shards that were finished since the last call; drop those that were deleted."""
        known, self._shards = self._shards or {}, {}
        for path in [*self.folder.glob("*.shard"), *(self.folder.glob(self._parts) if self._parts else ())]:
            name = path.relative_to(self.folder).as_posix()
            try:
                self._shards[name] = known.get(name) or _Shard(path)
            except (ValueError, OSError):
                continue  # incomplete, or of another format: the shard is ignored
        if self._merged is not None and not self._merged.shards.keys() <= self._shards.keys():
            self._merged = None
        self._single = {n: s for n, s in self._shards.items() if self._merged is None or n not in self._merged.shards}
        if len(self._single) > _MOST_SINGLE:
            self._merge()

    def _merge(self) -> None:
        self._merged, self._single = _Merged(dict(sorted(self._shards.items()))), {}

    def _find(self, key: bytes) -> tuple[_Shard, np.void] | None:
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

    def shard(self, name: str) -> _Shard:
        """A shard by its name under the folder. Raises KeyError if it does not exist."""
        if self._shards is None or name not in self._shards:
            self.refresh()
        return self._shards[name]

    def shards(self) -> list[_Shard]:
        """All shards, sorted by name."""
        self.refresh()
        return [shard for _, shard in sorted(self._shards.items())]

    def release(self) -> None:
        """Drop all pages that were read from this process's memory: see `_Shard.release`."""
        for shard in (self._shards or {}).values():
            shard.release()

    def record_at(self, located: Located, index: int) -> np.ndarray:
        """The bytes of a located record, uint8 [n]."""
        start, length = int(located.offset[index]), int(located.length[index])
        return self.shard(located.shards[located.shard[index]]).bytes[start : start + length]

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
                self._stream.write(_HEADER.pack(_BEGIN, FORMAT))
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
            self._stream.write(_FOOTER.pack(_END, FORMAT, zlib.crc32(data), offset, len(table)))
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
