"""A checked manifest as one memory-mapped file, so that training starts at once and all of its processes share it.

The file holds the columns of `rows.Table`. It is used only if it is intact, was made from the same manifest (by
content) with the same checks and encoders, and no file that the manifest names has changed since it was digested.
Otherwise the manifest and its files are checked again, so an index never lets unchecked data into a training. An index
that was published with its shards is used without those files, which are on the host that published it.

    64 bytes: magic, format, CRC of the rest    a record (records.py) of the columns
"""

from __future__ import annotations

import hashlib
import json
import struct
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from training.data.digests import SETTLED, signatures
from training.data.files import sha256, write_atomic
from training.data.records import dtype_of, parts, unpack
from training.data.remote_shards import signature_of
from training.data.rows import Files, Layout, Row, Rows, Table, Texts
from training.data.schema import schema_at
from training.data.unchanged import comparing_signatures
from training.errors import DataError

FORMAT = 2
PUBLISHED = "published"  # beside an index for whose rows note_published was called
_MAGIC = b"ATHANOR\x03"
_HEADER = struct.Struct("<8sII48x")
_COLUMNS = ("text", "spans", "numbers", "numbered")


@dataclass(frozen=True)
class Origin:
    """What rows were made from, and how. The same origin gives the same rows."""

    manifest: str  # SHA-256
    how: Mapping[str, Any]  # checks and encoders (JSON)
    #: The folders in which moved files are looked up (JSON); irrelevant where every path exists as written.
    under: Mapping[str, Any]


@dataclass(frozen=True)
class Published:
    """About rows that were prepared on another host."""

    synthetic: bool


def write(path: Path, table: Table, origin: Origin) -> Rows | None:
    """Write the index of a table whose files are all encoded; returns its rows, now shared. Returns None, and leaves no
    index, where a file changed so recently that another change could go unnoticed (digests.SETTLED)."""
    encoded = [files for files in table.files.values() if files.keys is not None]
    other = {key: signatures(files.paths.every()) for key, files in table.files.items() if files.keys is None}
    fresh = time.time_ns() - int(SETTLED * 1e9)
    if not all(files.settled.all() and files.layout is not None for files in encoded) or any(
        (column[:, 3:] >= fresh).any() for column in other.values()
    ):
        path.unlink(missing_ok=True)
        return None
    columns: dict[str, np.ndarray] = {name: getattr(table, name) for name in _COLUMNS}
    about: dict[str, Any] = {"made": _origin_key(origin), "under": None if table.plain else dict(origin.under),
                             "schema": table.schema.place, "files": {}}  # fmt: skip
    identity = hashlib.sha256(table.text)
    for key, files in table.files.items():
        columns[f"{key} paths"], columns[f"{key} ends"] = files.paths.data, files.paths.ends
        columns[f"{key} signatures"] = other[key] if files.keys is None else files.signatures
        about["files"][key] = {"kind": files.kind}
        if files.keys is None:
            continue
        identity.update(key.encode() + files.keys.tobytes())
        layout = files.layout
        columns |= {f"{key} keys": files.keys, f"{key} shard": layout.shard}
        columns |= {f"{key} start {name}": column for name, column in layout.starts.items()}
        columns |= {f"{key} count {name}": column for name, column in layout.counts.items()}
        about["files"][key] |= {
            "shards": _shards(table.cache / files.kind, layout.shards),
            "arrays": {name: [_described(dtype), shape] for name, (dtype, shape) in layout.kinds.items()},
        }
    about["identity"] = identity.hexdigest()
    columns["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)

    def fill(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            stream.write(bytes(_HEADER.size))
            crc = 0
            for part in parts(columns):
                stream.write(part)
                crc = zlib.crc32(part, crc)
            stream.seek(0)
            stream.write(_HEADER.pack(_MAGIC, FORMAT, crc))

    write_atomic(path, fill)
    _sweep(path.parent, about["identity"])
    return _open(path, table.cache, table.name)[0]


def read(path: Path, cache: Path, manifest: Path, origin: Callable[[str], Origin]) -> Rows | None:
    """The rows of an index, or None if it is not valid any more. `origin`: SHA-256 of a manifest -> the origin that
    rows made from it now would have."""
    opened = _open(path, cache, str(manifest))
    if opened is None:
        return None
    rows, about = opened
    made, now = about["made"], origin("")
    if made[1:] != _origin_key(now)[1:] or about["under"] not in (None, json.loads(json.dumps(dict(now.under)))):
        return None
    with ExitStack() as held:
        # The comparison of signatures runs in other processes, while this one hashes the manifest.
        checks = [
            held.enter_context(comparing_signatures(of_key.paths, of_key.signatures))
            for of_key in rows.table.files.values()
            if _published(path, about["identity"]) is None
        ]
        if made[0] != sha256(manifest):
            return None
        for key, files in rows.table.files.items():
            stored = about["files"][key]
            if stored["kind"] and _shards(cache / stored["kind"], files.layout.shards) != stored["shards"]:
                return None
        return rows if all(unchanged() for unchanged in checks) else None


def note_published(path: Path, cache: Path, manifest: Path, synthetic: bool) -> Rows:
    """From now on the index `path` is valid without the files that its manifest names. `synthetic`: whether they were
    made by a program. Raises DataError if the index is damaged."""
    opened = _open(path, cache, str(manifest))
    if opened is None:
        raise DataError(f"{path} is damaged, or of another version of this program. Publish the data again.")
    about = {"identity": opened[1]["identity"], "synthetic": synthetic}
    write_atomic(path.with_name(PUBLISHED), json.dumps(about).encode())
    return opened[0]


def published(rows: Sequence[Row]) -> Published | None:
    """What is known of rows whose files need not exist on this host; None for other rows."""
    return _published(rows.path, rows.table.identity) if isinstance(rows, Shared) else None


def _published(path: Path, identity: str) -> Published | None:
    try:
        about = json.loads(path.with_name(PUBLISHED).read_bytes())
    except OSError:
        return None
    return Published(about["synthetic"]) if about["identity"] == identity else None


def shard_of_each(rows: Sequence[Row]) -> np.ndarray | None:
    """The shard that the arrays of each row are in, int32 [n]; None where the data was not fetched as shards. Of
    several files, the one whose kind takes the most space counts."""
    if published(rows) is None or not isinstance(rows, Rows):
        return None
    layouts = [files.layout for _, files in sorted(rows.table.files.items()) if files.layout is not None]
    largest = max(layouts, key=Layout.size)
    return largest.shard if rows.order is None else largest.shard[rows.order]


def _open(path: Path, cache: Path, name: str) -> tuple[Shared, dict[str, Any]] | None:
    try:
        with path.open("rb") as stream:
            intact = _is_intact(stream)
        if not intact:
            return None
        held = np.asarray(np.memmap(path, np.uint8, mode="r"))
    except OSError:
        return None  # there is no index
    columns = unpack(held[_HEADER.size :])
    about = json.loads(columns["about"].tobytes())
    files = {}
    for key, stored in about["files"].items():
        paths, signed = Texts(columns[f"{key} paths"], columns[f"{key} ends"]), columns[f"{key} signatures"]
        files[key] = Files(paths, signed, np.ones(len(signed), bool))
        if stored["kind"]:
            kinds = {name: (dtype_of(dtype), tuple(shape)) for name, (dtype, shape) in stored["arrays"].items()}
            starts, counts = ({array: columns[f"{key} {of} {array}"] for array in kinds} for of in ("start", "count"))
            layout = Layout([shard[0] for shard in stored["shards"]], columns[f"{key} shard"], starts, counts, kinds)
            files[key] = replace(files[key], kind=stored["kind"], keys=columns[f"{key} keys"], layout=layout)
    table = Table(
        **{column: columns[column] for column in _COLUMNS},
        name=name, files=files, plain=about["under"] is None, cache=cache, identity=about["identity"],
        schema=schema_at(about["schema"]),
    )  # fmt: skip
    return Shared(table, None, path), about


def _is_intact(stream: BinaryIO) -> bool:
    """Whether a file is an index of this format whose CRC is right. It is read, not mapped: mapped pages would be
    counted as memory of this process."""
    head = stream.read(_HEADER.size)
    if len(head) < _HEADER.size:
        return False
    magic, form, crc = _HEADER.unpack(head)
    found = 0
    while (magic, form) == (_MAGIC, FORMAT) and (part := stream.read(1 << 20)):
        found = zlib.crc32(part, found)
    return (magic, form, crc) == (_MAGIC, FORMAT, found)


class Shared(Rows):
    """Rows of an index. When they are pickled to another process, that process opens the file itself."""

    def __init__(self, table: Table, order: np.ndarray | None, path: Path):
        super().__init__(table, order)
        self.path = path

    def __reduce__(self) -> tuple:
        return _reopen, (self.path, self.table.cache, self.table.name, self.table.identity, self.order)

    def select(self, indices: np.ndarray) -> Shared:
        return Shared(self.table, indices if self.order is None else self.order[indices], self.path)


def _reopen(path: Path, cache: Path, name: str, identity: str, order: np.ndarray | None) -> Shared:
    opened = _open(path, cache, name)
    if opened is None or opened[0].table.identity != identity:
        raise DataError(f"{name} was changed while it was in use. Run the same command again.")
    return Shared(opened[0].table, order, path)


def _origin_key(origin: Origin) -> Any:
    return json.loads(json.dumps([origin.manifest, dict(origin.how)]))


def cached(rows: Sequence[Row], name: str, find: Callable[[], np.ndarray]) -> np.ndarray:
    """The array that `find` computes from the rows, cached in a file next to their index. `name` identifies the array;
    it must change when the computation changes. Rows without an index are not cached."""
    if not isinstance(rows, Shared) or rows.order is not None:
        return find()
    folder = _beside(rows.path.parent, rows.table.identity)
    path = folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.npy"
    with suppress(OSError, ValueError, EOFError):  # missing or truncated: it is computed again below
        return np.load(path, mmap_mode="r", allow_pickle=False)
    found = np.ascontiguousarray(find())
    write_atomic(path, lambda temporary: _save(temporary, found))
    return found


def _save(path: Path, found: np.ndarray) -> None:
    with path.open("wb") as stream:
        np.save(stream, found, allow_pickle=False)


def _beside(folder: Path, identity: str) -> Path:
    return folder / f"of-{identity[:32]}"


def _sweep(folder: Path, identity: str) -> None:
    """Delete the cached arrays of rows that this folder no longer has an index of."""
    for other in folder.glob("of-*"):
        if other != _beside(folder, identity):
            for path in other.iterdir():
                path.unlink(missing_ok=True)
            other.rmdir()


def _shards(folder: Path, names: Sequence[str]) -> list[list[Any]] | None:
    """Name, size and mtime of shards (a shard never changes), here or in an object store; None if one is missing."""
    try:
        return [[name, *signature_of(folder / name)] for name in names]
    except OSError:
        return None


def _described(dtype: np.dtype) -> Any:
    return dtype.descr if dtype.names else dtype.str
