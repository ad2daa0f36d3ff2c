"""One file of a store: its layout, and the search for records in it and in many."""

from __future__ import annotations

import mmap
import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FORMAT = 1
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
HEADER = struct.Struct("<8sI52x")
FOOTER = struct.Struct("<8sIIQQ32x")
BEGIN, END = b"ATHANOR\x01", b"ATHANOR\x02"


class Searched(ABC):
    """The search in the table of one shard."""

    table: np.ndarray  # ENTRY [n]
    heads: np.ndarray  # uint64 [n]

    def find(self, key: bytes) -> np.void | None:
        """The entry of a record; None if it is not in this shard."""
        head = np.frombuffer(key, "<u8", 1)[0]
        at = int(np.searchsorted(self.heads, head))
        while at < len(self.heads) and self.heads[at] == head:
            if self.table[at]["key"].tobytes() == key:
                return self.table[at]
            at += 1
        return None

    @abstractmethod
    def read(self, begin: int, end: int) -> np.ndarray:
        """The bytes of the shard from `begin` to before `end`, uint8, read-only."""

    def record(self, entry: np.void) -> np.ndarray:
        """The bytes of a record, uint8."""
        return self.read(int(entry["offset"]), int(entry["offset"] + entry["length"]))

    def release(self) -> None:
        """Drop the pages that were read from this process's memory, because they will not be read again soon. They stay
        in the system's page cache as long as it has room."""


def table_of(tail: np.ndarray, size: int) -> np.ndarray:
    """The table, ENTRY [n], of a shard of `size` bytes from its last bytes, uint8: all of them, or at least table and
    footer. Raises ValueError if it is damaged, or of another format."""
    end, form, crc, offset, count = FOOTER.unpack(tail[-FOOTER.size :].tobytes())
    if end != END or form != FORMAT:
        raise ValueError("not a finished shard of this format")
    length = count * ENTRY.itemsize + FOOTER.size
    if offset + length != size or length > len(tail):
        raise ValueError("its length is wrong")
    table = tail[len(tail) - length : len(tail) - FOOTER.size]
    if zlib.crc32(table) != crc:
        raise ValueError("its table is damaged")
    return table.view(ENTRY)


class Shard(Searched):
    """One opened shard. Raises ValueError if it is incomplete, damaged, or of another format."""

    def __init__(self, path: Path):
        size = path.stat().st_size
        if size < HEADER.size + FOOTER.size:
            raise ValueError("too short")
        self.path = path
        with path.open("rb") as stream:
            self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        self.bytes = np.frombuffer(self._map, np.uint8)
        begin, form = HEADER.unpack(self.bytes[: HEADER.size].tobytes())
        if begin != BEGIN or form != FORMAT:
            raise ValueError("not a finished shard of this format")
        self.table = table_of(self.bytes, size)
        self.heads = self.table["head"]

    def read(self, begin: int, end: int) -> np.ndarray:
        """See Searched; memory-mapped."""
        return self.bytes[begin:end]

    def release(self) -> None:
        """See Searched."""
        self._map.madvise(mmap.MADV_DONTNEED)


@dataclass(frozen=True)
class Located:
    """The positions of n records."""

    shards: list[str]  # names under the store's folder
    shard: np.ndarray  # int32 [n]: index into `shards`, -1 where the store has no such record
    offset: np.ndarray  # int64 [n], of the record in its shard
    length: np.ndarray  # int64 [n], bytes


class Merged:
    """The tables of many shards merged into one, so that a key needs one search: 16 bytes per record."""

    def __init__(self, shards: Mapping[str, Searched]):
        self.shards, self._list = shards, list(shards.values())
        counts = [len(shard.table) for shard in self._list]
        heads = np.concatenate([np.zeros(0, np.uint64), *(shard.heads for shard in self._list)])
        order = np.argsort(heads, kind="stable")  # if several shards hold a record, the first one is used
        self.heads = heads[order]
        self.shard = np.repeat(np.arange(len(counts), dtype=np.int32), counts)[order]
        self.row = (order - np.repeat(np.cumsum(counts) - counts, counts)[order]).astype(np.uint32)

    def find(self, key: bytes) -> tuple[Searched, np.void] | None:
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
