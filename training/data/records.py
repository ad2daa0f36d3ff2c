"""Arrays as bytes: what a store keeps of one file.

u32 length and u32 CRC of a JSON list [name, dtype, shape, offset] of the arrays, the list, the arrays, each from a
multiple of 64 bytes; offsets count from the first.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np

ALIGN = 64
_RECORD = struct.Struct("<II")


def pack(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays of any shapes and dtypes (structured too, objects not) -> the bytes of one record."""
    return b"".join(parts(arrays))


def parts(arrays: Mapping[str, np.ndarray]) -> Iterator[bytes | memoryview]:
    """The bytes of a record, one array after the other, for who cannot hold them twice."""
    if not arrays:
        raise TypeError("a record needs at least one array")
    contents, whole, at = [], [], 0
    for name, value in arrays.items():
        array = np.ascontiguousarray(value).reshape(np.shape(value))
        description = array.dtype.descr if array.dtype.names else array.dtype.str
        if array.dtype.hasobject or dtype_of(json.loads(json.dumps(description))) != array.dtype:
            raise TypeError(f"`{name}`: arrays of dtype {array.dtype} cannot be stored")
        contents.append([name, description, array.shape, at])
        whole.append(array)
        at += -(-array.nbytes // ALIGN) * ALIGN
    listing = json.dumps(contents, separators=(",", ":")).encode()
    yield _RECORD.pack(len(listing), zlib.crc32(listing)) + listing + bytes(-(_RECORD.size + len(listing)) % ALIGN)
    for array in whole:
        yield array.tobytes() if array.ndim == 0 else array.reshape(-1).view(np.uint8).data
        yield bytes(-array.nbytes % ALIGN)


class Entry(NamedTuple):
    """One array of a record."""

    name: str
    dtype: str | list  # as `dtype_of` takes it
    shape: tuple[int, ...]
    start: int  # of its bytes, counted from the record's beginning


def listing(record: np.ndarray | memoryview) -> tuple[Entry, ...]:
    """What a record (uint8 [n]) holds. Raises ValueError if its list is damaged."""
    length, crc = _RECORD.unpack(bytes(record[: _RECORD.size]))
    text = bytes(record[_RECORD.size : _RECORD.size + length])
    if zlib.crc32(text) != crc:
        raise ValueError("a stored record is damaged")
    return _entries(text)


@lru_cache(1 << 14)  # records of one kind differ in their lengths alone
def _entries(text: bytes) -> tuple[Entry, ...]:
    start = -(-(_RECORD.size + len(text)) // ALIGN) * ALIGN
    return tuple(Entry(name, dtype, tuple(shape), start + offset) for name, dtype, shape, offset in json.loads(text))


def unpack(record: np.ndarray) -> dict[str, np.ndarray]:
    """The bytes of a record (uint8 array) -> its arrays, as views. Raises ValueError if its list is damaged."""
    out = {}
    for entry in listing(record):
        dtype = dtype_of(entry.dtype)
        size = dtype.itemsize * int(np.prod(entry.shape, dtype=np.int64))
        out[entry.name] = record[entry.start : entry.start + size].view(dtype).reshape(entry.shape)
    return out


def dtype_of(description: str | list) -> np.dtype:
    """A dtype from its description in JSON."""
    if isinstance(description, str):
        return np.dtype(description)
    return np.dtype([(field[0], dtype_of(field[1]), *(tuple(shape) for shape in field[2:])) for field in description])
