"""Merges the parts of a store, written by several hosts, into the store. The result has the same bytes for any number
of parts."""

from __future__ import annotations

import hashlib
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training.data.store import PART, SHARD_BYTES, Store
from training.errors import DataError


def part_folder(folder: Path, part: str) -> Path:
    """The folder into which `Store.writing(part=...)` writes shards."""
    return folder / f"{PART}{part}"


def contents(folder: Path) -> tuple[int, str]:
    """The number of records in the shards of a folder, and the SHA-256 over their sorted keys and checksums."""
    tables = [shard.table for shard in Store(folder, parts=False).shards()]
    if not tables:
        return 0, hashlib.sha256().hexdigest()
    keys = np.concatenate([table["key"] for table in tables])
    crcs = np.concatenate([table["crc"] for table in tables])
    order = _by_key(keys)
    return len(order), hashlib.sha256(keys[order].tobytes() + crcs[order].tobytes()).hexdigest()


def merge(folder: Path, parts: Sequence[str], shard_bytes: int = SHARD_BYTES) -> int:
    """Write the records of `parts` into the store's own shards, in the order of their keys, and remove the parts.

    Returns the number of records written. Records that the store already has are left as they are; the next merge
    completes an interrupted one. Raises DataError for a record that does not match its checksum.
    """
    shards = [shard for part in parts for shard in Store(part_folder(folder, part), parts=False).shards()]
    written = 0
    if shards:
        counts = [len(shard.table) for shard in shards]
        order = _by_key(np.concatenate([shard.table["key"] for shard in shards]))
        owner = np.repeat(np.arange(len(shards)), counts)
        place = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
        store = Store(folder, parts=False)
        with store.writing(shard_bytes) as writer:
            for index in order.tolist():
                shard = shards[owner[index]]
                entry = shard.table[place[index]]
                record = shard.record(entry)
                if zlib.crc32(record) != entry["crc"]:
                    raise DataError(f"{shard.path} is damaged. Delete its folder and prepare this shard again.")
                written += writer.add(entry["key"].tobytes(), record.tobytes())
    for part in parts:
        shutil.rmtree(part_folder(folder, part), ignore_errors=True)
    return written


def _by_key(keys: np.ndarray) -> np.ndarray:
    """Indices that sort keys (uint8 [n, 32]) in byte order."""
    words = np.ascontiguousarray(keys).view(">u8")
    return np.lexsort(words.T[::-1])
