"""Rows of a manifest as columns: a million rows are a few arrays, and a `Row` object is made only on access.

Training code sees a sequence of `Row`. The columns are in memory, or in a file that all processes share (index.py).
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from training.data.records import dtype_of, listing
from training.data.schema import ID, Schema
from training.data.store import Store

RELEASED = 8192  # in a pass over all records: how many are read between two calls of Store.release
BLOCK = 1 << 22  # bytes of a shard that are read together
_DECODE = json.JSONDecoder().raw_decode
_RECENT = 256  # size of the cache of Row objects
TEXTS_AT_ONCE = 1 << 14  # copied out of their column


NO_SCHEMA = Schema("training.data.rows:NO_SCHEMA", (), {})


@dataclass(frozen=True)
class Row:
    """One checked manifest row."""

    values: Mapping[str, Any]  # the row; paths are absolute and exist
    place: str  # "path/of/manifest.jsonl:12"
    #: path key of the manifest -> the arrays that the encoder made of that file, memory-mapped
    records: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)


def plain_id(path: str) -> str:
    """The default id of a row: the path of its first file, without extension."""
    return Path(path).with_suffix("").as_posix()


class Texts(Sequence[str]):
    """Many texts in two arrays: their concatenated bytes, and the offset at which each ends."""

    def __init__(self, data: np.ndarray, ends: np.ndarray):
        self.data, self.ends = data, ends

    @classmethod
    def of(cls, texts: Iterable[str]) -> Texts:
        data, ends = bytearray(), array("q")
        for text in texts:
            data += text.encode("utf-8", "surrogateescape")
            ends.append(len(data))
        return cls(np.frombuffer(data, np.uint8), np.frombuffer(ends, np.int64))

    def __len__(self) -> int:
        return len(self.ends)

    def raw(self, index: int) -> bytes:
        return self.data[int(self.ends[index - 1]) if index else 0 : int(self.ends[index])].tobytes()

    def __getitem__(self, index: int) -> str:
        return self.raw(index).decode("utf-8", "surrogateescape")

    def take(self, indices: np.ndarray) -> Texts:
        """Some of the texts, in the order of `indices`."""
        begins = np.concatenate([[0], self.ends[:-1]])[indices]
        lengths = self.ends[indices] - begins
        ends = np.cumsum(lengths)
        data = np.empty(int(ends[-1]) if len(ends) else 0, np.uint8)
        for at in range(0, len(indices), TEXTS_AT_ONCE):  # in parts: `places` has an index for every byte
            of = slice(at, at + TEXTS_AT_ONCE)
            first = int(ends[at] - lengths[at])
            shift = begins[of] - (ends[of] - lengths[of])
            places = np.arange(first, int(ends[of][-1])) + np.repeat(shift, lengths[of])
            data[first : first + len(places)] = self.data[places]
        return Texts(data, ends)

    def every(self, first: int = 0, last: int | None = None) -> Iterator[bytes]:
        """The texts from `first` to before `last` (default: all); much faster than one by one."""
        last = len(self.ends) if last is None else last
        begin = int(self.ends[first - 1]) if first else 0
        for at in range(first, last, TEXTS_AT_ONCE):
            ends = self.ends[at : min(at + TEXTS_AT_ONCE, last)].tolist()
            base, data = begin, self.data[begin : ends[-1]].tobytes()
            for end in ends:
                yield data[begin - base : end - base]
                begin = end


@dataclass(frozen=True)
class Layout:
    """The offsets of the arrays of n records. All records hold the same arrays, which differ only in length."""

    shards: list[str]  # names under the store's folder
    shard: np.ndarray  # int32 [n]: index into `shards`
    starts: dict[str, np.ndarray]  # array -> int64 [n], of its first byte in the record's shard
    counts: dict[str, np.ndarray]  # array -> int64 [n], its length
    kinds: dict[str, tuple[np.dtype, tuple[int, ...]]]  # array -> dtype and shape of one element

    @classmethod
    def of(cls, store: Store, keys: np.ndarray) -> Layout | None:
        """None where the records do not all hold the same arrays. All `keys` (uint8 [n, 32]) must be in the store."""
        located = store.locate(keys)
        starts: dict[str, np.ndarray] = {}
        counts: dict[str, np.ndarray] = {}
        kinds: dict[str, tuple[Any, tuple[int, ...]]] | None = None
        for place, index in enumerate(np.lexsort([located.offset, located.shard]).tolist()):  # in the disk's order
            if place % RELEASED == 0:
                store.release()
            found = listing(store.record_at(located, index))
            if not all(entry.shape for entry in found):
                return None
            seen = {entry.name: (entry.dtype, entry.shape[1:]) for entry in found}
            if kinds is None:
                kinds = seen
                starts, counts = ({name: np.zeros(len(keys), np.int64) for name in kinds} for _ in range(2))
            elif seen != kinds:
                return None
            for entry in found:
                starts[entry.name][index] = located.offset[index] + entry.start
                counts[entry.name][index] = entry.shape[0]
        store.release()
        typed = {name: (dtype_of(dtype), shape) for name, (dtype, shape) in (kinds or {}).items()}
        used, shard = np.unique(located.shard, return_inverse=True)  # the store may hold other data, too
        names = [located.shards[number] for number in used.tolist()]
        return cls(names, shard.astype(np.int32), starts, counts, typed)

    def blocks(
        self, store: Store, name: str, indices: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        """The array `name` of the records `indices`, many at a time, in the order of the store. Each item is (positions
        in `indices`; a block of bytes, uint8; the offset in it of each record's array; the length of each array)."""
        starts, counts, shards = self.starts[name][indices], self.counts[name][indices], self.shard[indices]
        dtype, shape = self.kinds[name]
        size = dtype.itemsize * math.prod(shape)
        order = np.lexsort([starts, shards])
        block = starts[order] // BLOCK
        cuts = np.flatnonzero((np.diff(block) != 0) | (np.diff(shards[order]) != 0)) + 1
        for part in np.split(order, cuts) if len(order) else ():
            begin, end = int(starts[part[0]]), int((starts[part] + counts[part] * size).max())
            shard = store.shard(self.shards[shards[part[0]]])
            yield part, shard.read(begin, end), starts[part] - begin, counts[part]
            shard.release()

    def size(self) -> int:
        """Bytes of all arrays together."""
        each = {name: dtype.itemsize * math.prod(shape) for name, (dtype, shape) in self.kinds.items()}
        return sum(each[name] * int(column.sum()) for name, column in self.counts.items())

    def take(self, indices: np.ndarray) -> Layout:
        """The layout of some of the records."""
        starts, counts = (
            {name: column[indices] for name, column in columns.items()} for columns in (self.starts, self.counts)
        )
        return replace(self, shard=self.shard[indices], starts=starts, counts=counts)


@dataclass(frozen=True)
class Files:
    """The files under one key of a manifest, one per row, and their records."""

    paths: Texts
    signatures: np.ndarray | None = None  # int64 [n, 5], from when they were digested; None: they were not
    settled: np.ndarray | None = None  # bool [n]: an unchanged signature proves an unchanged file (digests.SETTLED)
    kind: str = ""  # the store's folder under the cache; empty: the files are not in a store
    keys: np.ndarray | None = None  # uint8 [n, 32]: of the records
    layout: Layout | None = None

    def take(self, indices: np.ndarray) -> Files:
        """The files of some of the rows."""
        return replace(
            self,
            paths=self.paths.take(indices),
            signatures=None if self.signatures is None else self.signatures[indices],
            settled=None if self.settled is None else self.settled[indices],
            keys=None if self.keys is None else self.keys[indices],
            layout=None if self.layout is None else self.layout.take(indices),
        )


@dataclass(frozen=True)
class Table:
    """The columns of a manifest."""

    name: str  # of the manifest, for people
    text: np.ndarray  # uint8: the content of the manifest
    spans: np.ndarray  # int64 [n, 2]: offsets in it at which each row's line begins and ends
    numbers: np.ndarray  # int64 [n]: line numbers, from 1
    numbered: np.ndarray  # bool [n]: the default id is not unique, so the line number is added to it
    files: Mapping[str, Files]
    plain: bool = False  # every path in the manifest is absolute and exists as written
    cache: Path | None = None
    identity: str = ""  # SHA-256 of the manifest and the keys of its records; empty: not computed
    schema: Schema = NO_SCHEMA  # of its rows

    def __len__(self) -> int:
        return len(self.spans)

    def take(self, indices: np.ndarray) -> Table:
        """The table of some of the rows."""
        part = {name: getattr(self, name)[indices] for name in ("spans", "numbers", "numbered")}
        return replace(self, files={key: of_key.take(indices) for key, of_key in self.files.items()}, **part)

    @classmethod
    def written(cls, path: Path, files: Mapping[str, Files], cache: Path, schema: Schema) -> Table:
        """The table of a manifest that `prepare` wrote: one row per line, no empty line, every path absolute."""
        text = np.asarray(np.memmap(path, np.uint8, mode="r"))
        starts = range(0, len(text), 1 << 24)  # in parts of 16 MB: the manifest may be large
        ends = np.concatenate([np.flatnonzero(text[at : at + starts.step] == ord("\n")) + at for at in starts])
        spans = np.stack([np.concatenate([[0], ends[:-1] + 1]), ends], axis=1)
        numbers = np.arange(1, len(ends) + 1)
        numbered = np.zeros(len(ends), bool)
        return cls(str(path), text, spans, numbers, numbered, files, plain=True, cache=cache, schema=schema)


class Rows(Sequence[Row]):
    """All rows of a table, or some of them in any order."""

    def __init__(self, table: Table, order: np.ndarray | None = None):
        """`order`: indices into the table; None: all rows, in the order of the table."""
        self.table = table
        self.order = order
        self._recent: dict[int, Row] = {}
        self._stores: dict[str, Store] = {}

    def __len__(self) -> int:
        return len(self.table) if self.order is None else len(self.order)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return self.select(np.arange(len(self))[index])
        index = range(len(self))[index]
        row = self._recent.get(index)
        if row is None:
            if len(self._recent) >= _RECENT:
                self._recent.clear()
            row = self._recent[index] = self._row(index if self.order is None else int(self.order[index]))
        return row

    def __iter__(self) -> Iterator[Row]:
        """One pass over all rows; it does not fill the cache."""
        for index in range(len(self.table)) if self.order is None else self.order.tolist():
            yield self._row(index)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_recent": {}, "_stores": {}}

    def select(self, indices: np.ndarray) -> Rows:
        """Some of these rows, in the order of `indices`."""
        return Rows(self.table, indices if self.order is None else self.order[indices])

    def take(self, indices: np.ndarray) -> Table:
        """A table of some of these rows."""
        return self.table.take(indices if self.order is None else self.order[indices])

    def _of(self, column: np.ndarray) -> np.ndarray:
        return column if self.order is None else column[self.order]

    def _row(self, index: int) -> Row:
        table = self.table
        values = self._values(index)
        records = {
            key: Stored(files, self._store(files), index)
            for key, files in table.files.items()
            if key in values and files.keys is not None
        }
        return Row(values, f"{table.name}:{table.numbers[index]}", records)

    def _values(self, index: int) -> dict[str, Any]:
        table = self.table
        values = json.loads(str(self.line(index), "utf-8"))
        table.schema.complete(values)
        for key, files in table.files.items():
            if key in values:
                values[key] = files.paths[index]
        if ID not in values:
            plain = plain_id(values[next(iter(table.files))])
            values[ID] = f"{plain}:{table.numbers[index]}" if table.numbered[index] else plain
        return values

    def line(self, index: int) -> bytes:
        """A row of the table, as the manifest's line."""
        begin, end = self.table.spans[index].tolist()
        return self.table.text[begin:end].tobytes()

    # columns, for a pass over all rows

    def values(self) -> Iterator[Mapping[str, Any]]:
        """The values of every row."""
        return map(self._values, range(len(self.table)) if self.order is None else self.order.tolist())

    def plain(self) -> Iterator[dict[str, Any]]:
        """Every row as parsed from the manifest, without resolved paths and defaults."""
        lines = map(self.line, range(len(self.table)) if self.order is None else self.order.tolist())
        return (_DECODE(str(line, "utf-8").strip())[0] for line in lines)

    def paths(self, key: str) -> Iterator[str]:
        """The path under `key` of every row."""
        texts = self.table.files[key].paths
        if self.order is None:
            return (text.decode("utf-8", "surrogateescape") for text in texts.every())
        return (texts[index] for index in self.order.tolist())

    def keys(self, key: str) -> np.ndarray:
        """The record keys of the files under `key`, uint8 [n, 32]."""
        return self._of(self.table.files[key].keys)

    def counts(self, key: str, name: str) -> np.ndarray | None:
        """The lengths of the stored array `name` of the files under `key`, int64 [n]; None where there is no layout."""
        layout = self.table.files[key].layout
        return None if layout is None else self._of(layout.counts[name])

    def array(self, index: int, key: str, name: str) -> np.ndarray:
        """One stored array of a row, memory-mapped."""
        files = self.table.files[key]
        return Stored(files, self._store(files), index if self.order is None else int(self.order[index]))[name]

    def _store(self, files: Files) -> Store:
        store = self._stores.get(files.kind)
        if store is None:
            store = self._stores[files.kind] = Store.at(self.table.cache / files.kind)
        return store


class Stored(Mapping[str, np.ndarray]):
    """The stored arrays of one file of one row. Unlike `store.Record`, it uses the known offsets of the layout."""

    __slots__ = ("_files", "_index", "_store")

    def __init__(self, files: Files, store: Store, index: int):
        self._files, self._store, self._index = files, store, index

    @property
    def key(self) -> bytes:
        """The key of the record in its store."""
        return self._files.keys[self._index].tobytes()

    def __getitem__(self, name: str) -> np.ndarray:
        layout, index = self._files.layout, self._index
        if layout is None:
            return self._store.get(self.key)[name]
        dtype, shape = layout.kinds[name]
        start, count = int(layout.starts[name][index]), int(layout.counts[name][index])
        size = count * math.prod(shape) * dtype.itemsize
        bytes_ = self._store.shard(layout.shards[layout.shard[index]]).read(start, start + size)
        return bytes_.view(dtype).reshape(count, *shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._store.get(self.key) if self._files.layout is None else self._files.layout.kinds)

    def __len__(self) -> int:
        return sum(1 for _ in self)


# -- for `Rows` and lists of `Row` alike ---------------------------------------------------------------------------


def counts(rows: Sequence[Row], key: str, name: str) -> np.ndarray:
    """The length of each row's stored array `name` of the file under `key`, int64 [n]."""
    found = rows.counts(key, name) if isinstance(rows, Rows) else None
    if found is None:
        found = np.fromiter((len(row.records[key][name]) for row in rows), np.int64, len(rows))
    return found


def stored(rows: Sequence[Row], index: int, key: str, name: str) -> np.ndarray:
    """The stored array `name` of the file under `key` of one row."""
    return rows.array(index, key, name) if isinstance(rows, Rows) else rows[index].records[key][name]


def select(rows: Sequence[Row], indices: np.ndarray) -> Sequence[Row]:
    """Some of the rows; `rows` itself if `indices` has as many."""
    if len(indices) == len(rows):
        return rows
    return rows.select(indices) if isinstance(rows, Rows) else [rows[index] for index in indices.tolist()]
