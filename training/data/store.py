"""Stores: what was decoded from files, as arrays in a few flat, memory-mapped files, found by content.

A store is a folder of shards. A shard is written under a temporary name, flushed, fsynced and renamed; its table of
contents and its closing mark come last, so a torn one is recognised and ignored. Shards never change.

    header    64 bytes: magic, format
    records   each from a multiple of 64 bytes: u32 length and u32 CRC of a JSON list [name, dtype, shape, offset] of
              its arrays, the list, the arrays (each from a multiple of 64 bytes; offsets count from the record)
    table     64 bytes an entry (ENTRY), sorted by `head`
    footer    64 bytes: magic, format, CRC of the table, its offset, its number of entries
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np

from training.data.files import disk_errors, sync

FORMAT = 1
ALIGN = 64
SHARD_BYTES = 1 << 28

ENTRY = np.dtype(
    [
        ("head", "<u8"),  # the key's first 8 bytes
        ("key", "u1", 32),
        ("offset", "<u8"),
        ("length", "<u8"),
        ("crc", "<u4"),  # of the whole record
        ("unused", "<u4"),
    ]
)
_HEADER = struct.Struct("<8sI52x")
_FOOTER = struct.Struct("<8sIIQQ32x")
_RECORD = struct.Struct("<II")
_BEGIN, _END = b"ATHANOR\x01", b"ATHANOR\x02"


def key_of(content: str, version: str) -> bytes:
    """The 32-byte key of what an encoder of `version` makes of a file whose content has the SHA-256 `content`."""
    return hashlib.sha256(f"{content}\0{version}".encode()).digest()


# -- records -------------------------------------------------------------------------------------------------------


def pack(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays of any shapes and dtypes (structured too, objects not) -> the bytes of one record."""
    if not arrays:
        raise TypeError("a record needs at least one array")
    contents, parts, at = [], [], 0
    for name, value in arrays.items():
        array = np.ascontiguousarray(value).reshape(np.shape(value))
        description = array.dtype.descr if array.dtype.names else array.dtype.str
        if array.dtype.hasobject or _dtype(json.loads(json.dumps(description))) != array.dtype:
            raise TypeError(f"`{name}`: arrays of dtype {array.dtype} cannot be stored")
        contents.append([name, description, array.shape, at])
        parts.append(array)
        at += -(-array.nbytes // ALIGN) * ALIGN
    listing = json.dumps(contents, separators=(",", ":")).encode()
    start = -(-(_RECORD.size + len(listing)) // ALIGN) * ALIGN
    record = bytearray(start + at)
    _RECORD.pack_into(record, 0, len(listing), zlib.crc32(listing))
    record[_RECORD.size : _RECORD.size + len(listing)] = listing
    for (_, _, _, offset), array in zip(contents, parts, strict=True):
        record[start + offset : start + offset + array.nbytes] = array.tobytes()
    return bytes(record)


def unpack(record: np.ndarray) -> dict[str, np.ndarray]:
    """The bytes of a record (uint8 array) -> its arrays, as views. Raises ValueError for a damaged listing."""
    length, crc = _RECORD.unpack(record[: _RECORD.size].tobytes())
    listing = record[_RECORD.size : _RECORD.size + length].tobytes()
    if zlib.crc32(listing) != crc:
        raise ValueError("a stored record is damaged")
    start = -(-(_RECORD.size + length) // ALIGN) * ALIGN
    out = {}
    for name, description, shape, offset in json.loads(listing):
        dtype = _dtype(description)
        size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        out[name] = record[start + offset : start + offset + size].view(dtype).reshape(shape)
    return out


def _dtype(description: str | list) -> np.dtype:
    if isinstance(description, str):
        return np.dtype(description)
    return np.dtype([(field[0], _dtype(field[1]), *(tuple(shape) for shape in field[2:])) for field in description])


# -- reading -------------------------------------------------------------------------------------------------------


class _Shard:
    """One opened shard. Raises ValueError if it is torn, foreign or of another format."""

    def __init__(self, path: Path):
        size = path.stat().st_size
        if size < _HEADER.size + _FOOTER.size:
            raise ValueError("too short")
        self.path = path
        self.bytes = np.asarray(np.memmap(path, np.uint8, mode="r"))
        begin, begin_format = _HEADER.unpack(self.bytes[: _HEADER.size].tobytes())
        end, end_format, crc, offset, count = _FOOTER.unpack(self.bytes[-_FOOTER.size :].tobytes())
        if (begin, end) != (_BEGIN, _END) or begin_format != FORMAT or end_format != FORMAT:
            raise ValueError("no finished shard of this format")
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

    def record(self, entry: np.void) -> np.ndarray:
        return self.bytes[int(entry["offset"]) : int(entry["offset"] + entry["length"])]


class Store:
    """The arrays of one kind. Cheap to make; files are opened on first use, in every process anew (picklable).

    Use `Store.at(folder)` where many objects refer to one store: a process then opens it once.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self._shards: dict[str, _Shard] | None = None

    @staticmethod
    def at(folder: Path) -> Store:
        """This process's store of `folder`."""
        return _store_at(str(folder))

    def __reduce__(self) -> tuple:
        return _store_at, (str(self.folder),)

    def refresh(self) -> None:
        """Take in shards that were finished since; forget those that are gone."""
        known, self._shards = self._shards or {}, {}
        for path in sorted(self.folder.glob("*.shard"), reverse=True):
            try:
                self._shards[path.name] = known.get(path.name) or _Shard(path)
            except (ValueError, OSError):
                continue  # torn, or of another format: as if it were not there

    def _find(self, key: bytes) -> tuple[_Shard, np.void] | None:
        if self._shards is None:
            self.refresh()
        for shard in self._shards.values():
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
            raise KeyError(f"{self.folder} holds no record {key.hex()[:12]}; it was there when the run began")
        return unpack(hit[0].record(hit[1]))

    def damaged(self) -> list[str]:
        """Keys (hex) of records whose bytes changed on the disk; reads everything."""
        self.refresh()
        return [
            entry["key"].tobytes().hex()
            for shard in self._shards.values()
            for entry in shard.table
            if zlib.crc32(shard.record(entry)) != entry["crc"]
        ]

    @contextmanager
    def writing(self, shard_bytes: int = SHARD_BYTES) -> Iterator[Writer]:
        """Hold the store for writing; other writers wait here. At the latest when this ends, by an error or an
        interruption too, what was added is published: every record is whole."""
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for litter in self.folder.glob(".writing-*"):
                litter.unlink(missing_ok=True)  # of a writer that was killed: the lock is ours
            self.refresh()
            writer = Writer(self, shard_bytes)
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
    """The stored arrays of one file; read from the store when first touched. Picklable, and small."""

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

    def __init__(self, store: Store, shard_bytes: int):
        self._store, self._limit = store, shard_bytes
        self._entries: list[tuple] = []
        self._keys: set[bytes] = set()
        self._stream = None
        self._path: Path | None = None

    def add(self, key: bytes, record: bytes | Mapping[str, np.ndarray]) -> None:
        """Add arrays, or what `pack` made of them. A key that the store has is left as it is."""
        if key in self._keys or key in self._store:
            return
        data = record if isinstance(record, bytes) else pack(record)
        with disk_errors(self._store.folder):
            if self._stream is None:
                self._path = self._store.folder / f".writing-{os.getpid()}-{os.urandom(4).hex()}"
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

    def publish(self) -> None:
        """Finish the shard: from here on every reader may find its records, whatever happens to this process."""
        if self._stream is None:
            return
        table = np.sort(np.array(self._entries, ENTRY), order="head")
        with disk_errors(self._store.folder):
            offset = self._stream.tell()
            data = table.tobytes()
            self._stream.write(data)
            self._stream.write(_FOOTER.pack(_END, FORMAT, zlib.crc32(data), offset, len(table)))
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._stream.close()
            self._path.replace(self._store.folder / _next_name(self._store.folder.glob("*.shard")))
            sync(self._store.folder)
        self._stream, self._path, self._entries, self._keys = None, None, [], set()
        self._store.refresh()

    def discard(self) -> None:
        """Drop what was not published."""
        if self._stream is not None:
            self._stream.close()
            self._path.unlink(missing_ok=True)
            self._stream = None


def _next_name(existing: Iterable[Path]) -> str:
    numbers = [int(path.stem) for path in existing if path.stem.isdigit()]
    return f"{max(numbers, default=0) + 1:08d}.shard"
