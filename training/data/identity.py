"""Which data a run was trained on: a digest of its content, and whether it was made up."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.data.files import sha256
from training.data.index import Shared, kept
from training.data.rows import Row, Rows
from training.domains.music.composing.demo import MARKER

CLOUD = "target_pointcloud_path"
NAMES = ("id", "label_source", CLOUD)  # of a row: what it is called, not what is learnt from
MOST_TEXTS = 4096  # emotions whose JSON is held
_AT_ONCE = 1 << 14  # digests in hex at a time
_AS_JSON = json.JSONEncoder(sort_keys=True).encode


def data_digest(rows: Mapping[str, Sequence[Row]]) -> str:
    """SHA-256 over both splits: each row's emotion, the content of its files, the version of what decoded them.

    Paths and manifest formatting do not count: the same songs are the same data on every host."""

    def find() -> np.ndarray:
        total = hashlib.sha256()
        for split in sorted(rows):
            told = _told_quickly(rows[split]) or _told(rows[split])
            for values, content in told:
                total.update(f'["{split}", {values}, {content}]\n'.encode())
        return np.frombuffer(total.digest(), np.uint8)

    parts = [f"{split} {part.table.identity}" for split, part in sorted(rows.items()) if isinstance(part, Shared)]
    if len(parts) < len(rows):
        return find().tobytes().hex()
    return kept(next(iter(rows.values())), f"data digest 1 {' '.join(parts)}", find).tobytes().hex()


def _told(rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    """What a row says but for names and paths, and what its files hold: JSON, keys in order."""
    for values, content in _contents(rows):
        if CLOUD in values:
            content[CLOUD] = sha256(Path(values[CLOUD]))
        told = {key: value for key, value in values.items() if key not in content and key not in NAMES}
        yield _AS_JSON(told), _AS_JSON(content)


def _told_quickly(rows: Sequence[Row]) -> Iterator[tuple[str, str]] | None:
    """`_told`, three times as fast; None where a row names a file of which nothing is stored (a cloud)."""
    if not isinstance(rows, Rows) or any(files.keys is None for files in rows.table.files.values()):
        return None
    keys = sorted(rows.table.files)
    form = "{" + ", ".join(f'"{key}": "%s"' for key in keys) + "}"
    digests = zip(*(_hex(rows.keys(key)) for key in keys), strict=True)
    return zip(map(_Teller(keys), rows.plain()), (form % several for several in digests), strict=True)


class _Teller:
    """JSON of a row's values but for names and paths."""

    def __init__(self, paths: Sequence[str]):
        self.others = (*paths, *NAMES)
        self.known: dict[bytes, str] = {}  # by the emotion's bits, where that is all: songs share them

    def __call__(self, values: dict[str, Any]) -> str:
        for key in self.others:
            values.pop(key, None)
        values["emotion"] = emotion = array("d", values["emotion"])
        if len(values) > 1:
            return _AS_JSON(values | {"emotion": emotion.tolist()})
        bits = emotion.tobytes()
        if bits not in self.known:
            if len(self.known) >= MOST_TEXTS:
                self.known.clear()
            self.known[bits] = _AS_JSON({"emotion": emotion.tolist()})
        return self.known[bits]


def _hex(column: np.ndarray) -> Iterator[str]:
    """Each row of uint8 [n, m]."""
    size = 2 * column.shape[1]
    for begin in range(0, len(column), _AT_ONCE):
        text = column[begin : begin + _AT_ONCE].tobytes().hex()
        yield from (text[at : at + size] for at in range(0, len(text), size))


def _contents(rows: Sequence[Row]) -> Iterator[tuple[Mapping[str, Any], dict[str, str]]]:
    """Values of every row, and which records hold its files. (One `Row` each, of a
    million, would take twice as long.)"""
    if isinstance(rows, Rows):
        keys = {key: rows.keys(key) for key in _stored_keys(rows)}
        for number, values in enumerate(rows.values()):
            yield values, {key: column[number].tobytes().hex() for key, column in keys.items()}
    else:
        for row in rows:
            yield row.values, {key: record.key.hex() for key, record in row.records.items()}


def is_synthetic(rows: Mapping[str, Sequence[Row]]) -> bool:
    """Whether any file lies in a folder that the demo corpus marked as its own."""
    folders: set[str] = set()
    for part in rows.values():
        if isinstance(part, Rows):
            folders |= {folder for key in _stored_keys(part) for folder in _folders(part, key)}
        else:
            folders |= {str(Path(row.values[key]).parent) for row in part for key in row.records}
    every = {Path(folder) for folder in folders}
    every |= {parent for folder in every for parent in folder.parents}
    return any((folder / MARKER).is_file() for folder in every)


def _folders(rows: Rows, key: str) -> list[str]:
    """Every folder that holds a file under `key`."""

    def find() -> np.ndarray:
        folders = {path.rpartition("/")[0] for path in rows.paths(key)}
        return np.frombuffer("\0".join(sorted(folders)).encode("utf-8", "surrogateescape"), np.uint8)

    return kept(rows, f"folders of {key} 1", find).tobytes().decode("utf-8", "surrogateescape").split("\0")


def on_both_sides(rows: Mapping[str, Sequence[Row]]) -> list[str]:
    """Ids of held-out rows that share a file's content with a training row: a model is not judged by those."""
    train, held_out = rows["train"], rows["val"]
    if isinstance(train, Rows) and isinstance(held_out, Rows):

        def find() -> np.ndarray:
            heads = np.concatenate([_heads(train, key) for key in _stored_keys(train)])
            alike = [np.isin(_heads(held_out, key), heads) for key in _stored_keys(held_out)]
            return np.flatnonzero(np.logical_or.reduce(alike))

        identity = train.table.identity if isinstance(train, Shared) and train.order is None else ""
        near = kept(held_out, f"held out, alike to {identity}", find) if identity else find()
        held_out = held_out.select(near)  # few or none: now look closely
    if not len(held_out):
        return []
    seen = {record.key for row in train for record in row.records.values()}
    return [str(row.values["id"]) for row in held_out if any(record.key in seen for record in row.records.values())]


def _stored_keys(rows: Rows) -> list[str]:
    return [key for key, files in rows.table.files.items() if files.keys is not None]


def _heads(rows: Rows, key: str) -> np.ndarray:
    """uint64 [n]: the first eight bytes of the records' keys."""
    return np.ascontiguousarray(rows.keys(key)).view(np.uint64)[:, 0]
