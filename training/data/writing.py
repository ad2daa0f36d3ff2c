"""Writes the results of `prepare`: manifests, their summary and quarantine, and an index of each manifest."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from training.data import index, manifest
from training.data.encode import Encoder, Quarantined, write_quarantine
from training.data.files import sha256, write_atomic
from training.data.identity import data_digest, is_synthetic, leaking_ids
from training.data.rows import Files, Rows, Table
from training.data.schema import Schema
from training.data.summary import SUMMARY

QUARANTINE = "quarantine.jsonl"


def file_name(name: str, split: str) -> str:
    """The file name of a manifest, under the folder of the manifests. `name`: FamilyFacts.manifest, or
    "manifest/item"."""
    return f"{name}_{split}.jsonl"


def write_manifests(
    folder: Path,
    manifests: Mapping[str, Iterable[Mapping[str, Any]]],
    summary: Mapping[str, Any],
    quarantine: Sequence[Quarantined],
) -> bool:
    """Write manifests (file name -> rows), the quarantine, and last the summary. A summary that would change is deleted
    first, so an interrupted run leaves none, and the next one starts again. Returns whether any file changed.

    `summary`: JSON, the same for the same data, with the key `synthetic`.
    """
    path = folder / SUMMARY
    text = json.dumps(summary, indent=2, ensure_ascii=False).encode() + b"\n"
    if path.is_file() and path.read_bytes() != text:
        path.unlink()
    changed = False
    for name, rows in manifests.items():
        changed |= manifest.write(folder / name, rows)
    write_quarantine(folder / QUARANTINE, quarantine)
    return write_atomic(path, text) or changed


# -- indices -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Built:
    """The manifests of one family that were written, as columns over the rows of all splits. Every row's line is in the
    manifest of its split, in the same order; every path is absolute."""

    name: str  # of the manifests
    family: str
    checks: int  # FamilyFacts.row_checks: the version of the family's checks, which all rows pass
    encoders: Mapping[str, Encoder]  # path key -> encoder
    splits: Mapping[str, np.ndarray]  # split -> bool [n]: which rows are in it
    files: Mapping[str, Files]  # path key -> column


def index_manifests(built: Built, folder: Path, cache: Path, schema: Schema) -> dict[str, Rows] | None:
    """Write an index of every manifest, which records that its rows are checked and where their arrays are. Returns the
    rows of every split; None where a file changed too recently for an index (digests.SETTLED)."""
    shared = {}
    for split, chosen in built.splits.items():
        rows = _indexed(built, folder / file_name(built.name, split), chosen, cache, schema)
        if rows is None:
            return None
        shared[split] = rows
    return shared


def precompute(shared: Mapping[str, Rows]) -> None:
    """Compute what every training needs to know about its data before step 1, so that it is cached next to the
    indices."""
    seen = {split: rows for split, rows in shared.items() if split != "test"}
    data_digest(seen)
    is_synthetic(seen)
    leaking_ids(shared)


def _indexed(built: Built, path: Path, chosen: np.ndarray, cache: Path, schema: Schema) -> Rows | None:
    origin = partial(index.Origin, how=how(built.family, built.checks, built.encoders, schema), under={})
    place = index_path(cache, built.family, path)
    found = index.read(place, cache, path, origin)
    if found is None:
        rows = np.flatnonzero(chosen)
        files = {key: of_key.take(rows) for key, of_key in built.files.items()}
        found = index.write(place, Table.written(path, files, cache, schema), origin(sha256(path)))
    return found


def index_path(cache: Path, family: str, path: Path) -> Path:
    """The path of the index of a manifest, for one family."""
    which = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:16]
    return cache / "index" / f"{family}-{path.stem[:64]}-{which}" / "rows"


def how(family: str, row_checks: int, encoders: Mapping[str, Encoder], schema: Schema) -> dict[str, object]:
    """What decides the content of rows, other than their manifest: the checks that they passed, and the encoders of
    their files."""
    checks = [manifest.CHECKS, schema.place, schema.version, row_checks]
    kinds = {key: [encoder.kind, encoder.version] for key, encoder in encoders.items()}
    return {"family": family, "checks": checks, "encoders": kinds}
