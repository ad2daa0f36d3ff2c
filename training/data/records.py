"""A record: the arrays decoded from one file, as bytes in a store.

It begins with the length (u32) and CRC (u32) of a JSON list, then the list itself with [name, dtype, shape, offset] of
every array, then the arrays. Each array starts at a multiple of 64 bytes; offsets are relative to the first array.
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
    """The bytes of one record. Arrays may have any shape and any dtype, structured ones included, except objects."""
    return b"".join(parts(arrays))


def parts(arrays: Mapping[str, np.ndarray]) -> Iterator[bytes | memoryview]:
    """The bytes of a record in pieces, one array after the other: large arrays are not copied into one buffer."""
    if not arrays:
        raise TypeError("a record needs at least one array")
    contents, contiguous, at = [], [], 0
    for name, value in arrays.items():
        array = np.ascontiguousarray(value).reshape(np.shape(value))
        description = array.dtype.descr if array.dtype.names else array.dtype.str
        if array.dtype.hasobject or dtype_of(json.loads(json.dumps(description))) != array.dtype:
            raise TypeError(f"`{name}`: arrays of dtype {array.dtype} cannot be stored")
        contents.append([name, description, array.shape, at])
        contiguous.append(array)
        at += -(-array.nbytes // ALIGN) * ALIGN
    listing = json.dumps(contents, separators=(",", ":")).encode()
    yield _RECORD.pack(len(listing), zlib.crc32(listing)) + listing + bytes(-(_RECORD.size + len(listing)) % ALIGN)
    for array in contiguous:
        yield array.tobytes() if array.ndim == 0 else array.reshape(-1).view(np.uint8).data
        yield bytes(-array.nbytes % ALIGN)


class Entry(NamedTuple):
    """One array of a record."""

    name: str
    dtype: str | list  # a description for `dtype_of`
    shape: tuple[int, ...]
    start: int  # offset of its bytes from the beginning of the record


def listing(record: np.ndarray | memoryview) -> tuple[Entry, ...]:
    """The arrays that a record (uint8 [n]) holds. Raises ValueError if its list is damaged."""
    length, crc = _RECORD.unpack(bytes(record[: _RECORD.size]))
    text = bytes(record[_RECORD.size : _RECORD.size + length])
    if zlib.crc32(text) != crc:
        raise ValueError("a stored record is damaged")
    return _entries(text)


@lru_cache(1 << 14)  # records of one kind differ only in the lengths of their arrays, so few lists are distinct
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
