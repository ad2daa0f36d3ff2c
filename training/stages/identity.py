"""Which data a run was trained on: a digest of its content, and whether it was made up."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from training.data.files import sha256
from training.data.manifest import Row
from training.music.composing.demo import MARKER

CLOUD = "target_pointcloud_path"
NAMES = ("id", "label_source", CLOUD)  # of a row: what it is called, not what is learnt from


def data_digest(rows: Mapping[str, Sequence[Row]]) -> str:
    """SHA-256 over both splits: each row's emotion, the content of its files, the version of what decoded them.

    Paths and manifest formatting do not count: the same songs are the same data on every host."""
    total = hashlib.sha256()
    for split in sorted(rows):
        for row in rows[split]:
            content = {key: record.key.hex() for key, record in row.records.items()}
            if CLOUD in row.values:
                content[CLOUD] = sha256(Path(row.values[CLOUD]))
            told = {key: value for key, value in row.values.items() if key not in row.records and key not in NAMES}
            total.update(json.dumps([split, told, content], sort_keys=True).encode() + b"\n")
    return total.hexdigest()


def is_synthetic(rows: Mapping[str, Sequence[Row]]) -> bool:
    """Whether any file lies in a folder that the demo corpus marked as its own."""
    folders = {Path(row.values[key]).parent for part in rows.values() for row in part for key in row.records}
    every = folders | {parent for folder in folders for parent in folder.parents}
    return any((folder / MARKER).is_file() for folder in every)


def on_both_sides(rows: Mapping[str, Sequence[Row]]) -> list[str]:
    """Ids of held-out rows that share a file's content with a training row: a model is not judged by those."""
    seen = {record.key for row in rows["train"] for record in row.records.values()}
    return [
        str(row.values["id"]) for row in rows["val"] if any(record.key in seen for record in row.records.values())
    ]
