"""Which data a run was trained on: a digest of its content, whether it is synthetic, and whether its splits overlap."""

from __future__ import annotations

import hashlib
import json
import math
from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, combinations
from pathlib import Path
from typing import Any

import numpy as np

from training.data.files import sha256
from training.data.index import Shared, cached, published
from training.data.rows import NO_SCHEMA, Row, Rows
from training.data.schema import ID, SPLITS, Schema, floats
from training.errors import DataError

MARKER = "synthetic.json"  # a file that marks its folder: everything under it is synthetic
MOST_TEXTS = 4096  # values whose JSON is cached
_AT_ONCE = 1 << 14  # digests that are converted to hex at a time
_AS_JSON = json.JSONEncoder(sort_keys=True).encode


# -- the digest --------------------------------------------------------------------------------------------------------


def data_digest(rows: Mapping[str, Sequence[Row]], schema: Schema | None = None) -> str:
    """SHA-256 over the splits: the values of each row, the content of its files, the versions of their encoders.

    Paths, names (`Schema.names`) and the formatting of the manifest do not change it: the same rows have the same
    digest on every host. `schema`: of rows that do not come from a manifest.
    """

    def find() -> np.ndarray:
        total = hashlib.sha256()
        for split in sorted(rows):
            contents = _row_contents_fast(rows[split]) or _row_contents(rows[split], schema_of(rows[split], schema))
            for values, content in contents:
                total.update(f'["{split}", {values}, {content}]\n'.encode())
        return np.frombuffer(total.digest(), np.uint8)

    parts = [f"{split} {part.table.identity}" for split, part in sorted(rows.items()) if isinstance(part, Shared)]
    if len(parts) < len(rows):
        return find().tobytes().hex()
    return cached(next(iter(rows.values())), f"data digest 1 {' '.join(parts)}", find).tobytes().hex()


def schema_of(rows: Sequence[Row], schema: Schema | None = None) -> Schema:
    """The schema of rows: their manifest's, else `schema`, else one whose only key is `id`."""
    return rows.table.schema if isinstance(rows, Rows) else schema or NO_SCHEMA


def _row_contents(rows: Sequence[Row], schema: Schema) -> Iterator[tuple[str, str]]:
    """A row's values without names and paths, and the digests of its files, both as JSON with sorted keys."""
    named = [key.name for key in schema.paths if key.name in schema.names]
    for values, content in _contents(rows):
        for key in named:
            if key in values and key not in content:
                content[key] = sha256(Path(values[key]))
        rest = {key: value for key, value in values.items() if key not in content and key not in schema.names}
        yield _AS_JSON(rest), _AS_JSON(content)


def _row_contents_fast(rows: Sequence[Row]) -> Iterator[tuple[str, str]] | None:
    """The same as `_row_contents`, three times as fast; None where a row names a file that is not in a store."""
    if not isinstance(rows, Rows) or any(files.keys is None for files in rows.table.files.values()):
        return None
    keys = sorted(rows.table.files)
    form = "{" + ", ".join(f'"{key}": "%s"' for key in keys) + "}"
    digests = zip(*(_hex(rows.keys(key)) for key in keys), strict=True) if keys else iter([()] * len(rows))
    return zip(map(_ValuesAsJson(keys, rows.table.schema), rows.plain()), (form % one for one in digests), strict=True)


class _ValuesAsJson:
    """A row's values without names and paths, as JSON with sorted keys."""

    def __init__(self, paths: Sequence[str], schema: Schema):
        self.schema = schema
        self.others = (*paths, *schema.names)
        self.vectors = {name for name, key in schema.keys.items() if key.normalise is floats}
        self.defaults = {name for name in schema.defaults if name not in schema.names}
        #: A cache for rows whose only value is a list of numbers, by its name and bits: many rows have the same list.
        self.known: dict[tuple[str, bytes], str] = {}

    def __call__(self, values: dict[str, Any]) -> str:
        for key in self.others:
            values.pop(key, None)
        name = next(iter(values), "")
        if len(values) != 1 or name not in self.vectors or self.defaults:
            self.schema.complete(values)
            return _AS_JSON({key: value for key, value in values.items() if key not in self.others})
        numbers = array("d", values[name])
        bits = name, numbers.tobytes()
        if bits not in self.known:
            if len(self.known) >= MOST_TEXTS:
                self.known.clear()
            self.known[bits] = _AS_JSON({name: numbers.tolist()})
        return self.known[bits]


def _hex(column: np.ndarray) -> Iterator[str]:
    """Every row of uint8 [n, m] in hex."""
    size = 2 * column.shape[1]
    for begin in range(0, len(column), _AT_ONCE):
        text = column[begin : begin + _AT_ONCE].tobytes().hex()
        yield from (text[at : at + size] for at in range(0, len(text), size))


def _contents(rows: Sequence[Row]) -> Iterator[tuple[Mapping[str, Any], dict[str, str]]]:
    """The values of every row, and the keys of its files' records. (A million `Row` objects would take twice as
    long.)"""
    if isinstance(rows, Rows):
        keys = {key: rows.keys(key) for key in stored_keys(rows)}
        for number, values in enumerate(rows.values()):
            yield values, {key: column[number].tobytes().hex() for key, column in keys.items()}
    else:
        for row in rows:
            yield row.values, {key: record.key.hex() for key, record in row.records.items()}


def is_synthetic(rows: Mapping[str, Sequence[Row]]) -> bool:
    """Whether any file is under a folder that is marked as synthetic, or was on the host that published it."""
    folders: set[str] = set()
    for part in rows.values():
        if (elsewhere := published(part)) is not None:
            if elsewhere.synthetic:
                return True
        elif isinstance(part, Rows):
            folders |= {folder for key in stored_keys(part) for folder in _folders(part, key)}
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

    return cached(rows, f"folders of {key} 1", find).tobytes().decode("utf-8", "surrogateescape").split("\0")


def is_marked_synthetic(*folders: Path | None) -> bool:
    """Whether one of the folders, or its parent folder, is marked as synthetic."""
    resolved = [folder.resolve() for folder in folders if folder is not None]
    return any((place / MARKER).is_file() for folder in resolved for place in (folder, folder.parent))


def stored_keys(rows: Rows) -> list[str]:
    """The path keys of the manifest whose files are in a store."""
    return [key for key, files in rows.table.files.items() if files.keys is not None]


# -- splits that overlap -----------------------------------------------------------------------------------------------

_SHOWN = 5
_IS_IN = {"train": "trained on", "val": "held out for validation"}


def refuse_leak(rows: Mapping[str, Sequence[Row]], schema: Schema | None = None) -> None:
    """Raise DataError if a held-out or test row is in an earlier split too. `prepare` never makes such splits, but
    hand-written manifests can contain them."""
    for (first, second), ids in _leaks(rows, schema).items():
        if ids:
            shown = ", ".join(ids[:_SHOWN]) + (f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else "")
            rule = "the same file content in both manifests"
            of = schema_of(rows[second], schema)
            rule += ", where parts of files overlap" if of.spans else ""
            rule += f", or the same `{of.group}`" if of.group else ""
            raise DataError(
                f"{len(ids)} of {len(rows[second])} {'test' if second == 'test' else 'held-out'} rows are "
                f"{_IS_IN[first]} too ({rule}): {shown}. Remove them from one of the manifests, or let `prepare` split "
                "the data."
            )


def leaking_ids(rows: Mapping[str, Sequence[Row]], schema: Schema | None = None) -> list[str]:
    """Ids of the rows that `refuse_leak` would refuse: no model is judged on them."""
    return list(dict.fromkeys(name for ids in _leaks(rows, schema).values() for name in ids))


def _leaks(rows: Mapping[str, Sequence[Row]], schema: Schema | None) -> dict[tuple[str, str], list[str]]:
    """(earlier split, later split) -> ids of the rows of the later split that leak. A row leaks if one of its files has
    the same content as a file of a row in the earlier split, and the parts that the two rows use overlap; or if both
    rows have the same group. Files under a shared key (PathKey.shared) do not count."""
    found = {}
    for first, second in combinations([split for split in SPLITS if split in rows], 2):
        later = rows[second]
        leaking = _leaking(rows[first], later, schema_of(later, schema))
        found[first, second] = [str(later[index].values[ID]) for index in leaking.tolist()]
    return found


def _leaking(first: Sequence[Row], second: Sequence[Row], schema: Schema) -> np.ndarray:
    """Indices of the leaking rows of `second`, ascending. Cached next to the index of `second`, if it has one."""

    def find() -> np.ndarray:
        return np.array(sorted({*_same_content(first, second, schema), *_same_group(first, second, schema)}), np.int64)

    if isinstance(first, Shared) and first.order is None:
        name = f"alike to {first.table.identity} by {schema.place} {schema.version}, 2"
        return cached(second, name, find)
    return find()


def _same_content(first: Sequence[Row], second: Sequence[Row], schema: Schema) -> Iterator[int]:
    far, near = _alike(first, second)
    parts: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for _, content, part in _parts(first, far, schema):
        parts[content].append(part)
    # For each content: the begins of its parts, sorted, and the latest end among the parts up to each. Bisection then
    # finds whether a part overlaps any of them.
    begins, ends = {}, {}
    for content, of_content in parts.items():
        of_content.sort()
        begins[content] = [begin for begin, _ in of_content]
        ends[content] = list(accumulate((end for _, end in of_content), max))
    for index, content, (begin, end) in _parts(second, near, schema):
        before = bisect_left(begins.get(content, []), end)  # number of parts that begin before this one ends
        if before and ends[content][before - 1] > begin:
            yield index


def _parts(rows: Sequence[Row], indices: np.ndarray, schema: Schema) -> Iterator[tuple[int, str, tuple[float, float]]]:
    """(index, key of the record, begin and end) of every file of some rows that splits may not share."""
    shared = {key.name for key in schema.paths if key.shared}
    chosen = rows.select(indices) if isinstance(rows, Rows) else [rows[index] for index in indices.tolist()]
    for index, (values, content) in zip(indices.tolist(), _contents(chosen), strict=True):
        for key, record in content.items():
            if key in shared:
                continue
            begin, end = schema.spans.get(key, (None, None))
            yield index, record, (values.get(begin, 0), values.get(end, math.inf))


def _alike(first: Sequence[Row], second: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the rows of both splits that may share content, by the first eight bytes of their records' keys: this
    is fast even for a million rows. All rows, if they are not columns."""
    if not (isinstance(first, Rows) and isinstance(second, Rows)):
        return np.arange(len(first)), np.arange(len(second))
    before, after = ([_heads(rows, key) for key in stored_keys(rows)] for rows in (first, second))
    if not before or not after:
        return np.arange(0), np.arange(0)
    every = np.concatenate(before)
    near = np.flatnonzero(np.logical_or.reduce([np.isin(heads, every) for heads in after]))
    if not len(near):
        return np.arange(0), near
    close = np.concatenate([heads[near] for heads in after])
    return np.flatnonzero(np.logical_or.reduce([np.isin(heads, close) for heads in before])), near


def _heads(rows: Rows, key: str) -> np.ndarray:
    """The first eight bytes of the records' keys, uint64 [n]."""
    return np.ascontiguousarray(rows.keys(key)).view(np.uint64)[:, 0]


def _same_group(first: Sequence[Row], second: Sequence[Row], schema: Schema) -> Iterator[int]:
    if not schema.group:
        return
    known = set(_groups(first, schema.group))
    for index, group in enumerate(_groups(second, schema.group)):
        if group is not None and group in known:
            yield index


def _groups(rows: Sequence[Row], key: str) -> Iterator[Any]:
    """The group of every row; None for a row that has none."""
    values = rows.values() if isinstance(rows, Rows) else (row.values for row in rows)
    return (of_row.get(key) for of_row in values)
