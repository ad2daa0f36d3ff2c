"""Levels: the encoder, the schema of a manifest row, the demo, and prepare."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np

from training.data.encode import Encoder, encode_files, refuse_if_too_many
from training.data.identity import MARKER
from training.data.schema import PathKey, Schema, text
from training.data.writing import file_name, write_manifests
from training.domain import Job
from training.errors import DataError, UsageError

DAY = 24  # levels; a day is the unit, and stays in one split
DAYS = 5  # fewest days of a gauge
DEMO = ("harbour", "lock", "weir")


def decode(path: Path) -> dict[str, np.ndarray]:
    """A text file -> levels, float32 [n]. Raises ValueError, whose text becomes the reason of the quarantine."""
    levels = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            levels.append(float(line))
        except ValueError:
            raise ValueError(f"line {number} is not a number: {line[:20]!r}") from None
        if not math.isfinite(levels[-1]):
            raise ValueError(f"line {number} is not finite")
    if len(levels) < DAYS * DAY:
        raise ValueError(f"{len(levels)} levels; {DAYS * DAY} are needed")
    return {"levels": np.array(levels, np.float32)}


LEVELS = Encoder("levels", "levels 1", decode)
SCHEMA = Schema(
    place="tests.gauges_domain.levels:SCHEMA",
    paths=(PathKey("levels_path", root="series"),),
    keys={"gauge": text("gauge")},
    required=("gauge",),
    spans={"levels_path": ("begin", "end")},
    group="day",
    example='{"levels_path": ..., "gauge": ..., "begin": 0, "end": 24, "day": ...}',
)


def make_demo(job: Job) -> Path:
    """Three gauges: tides of different periods, with a little noise, marked as synthetic."""
    folder = job.workspace.root / "data" / "demo_series"
    if (folder / MARKER).is_file():
        return folder  # made before; writing the files again would change them
    folder.mkdir(parents=True, exist_ok=True)
    for number, gauge in enumerate(DEMO):
        random = np.random.default_rng([job.seed, number])
        time = np.arange(20 * DAY)
        levels = 3 + number + np.sin(2 * np.pi * time / (7 + 3 * number)) + 0.05 * random.standard_normal(len(time))
        (folder / f"{gauge}.txt").write_text("".join(f"{level:.4f}\n" for level in levels), encoding="utf-8")
    (folder / MARKER).write_text('{"synthetic": true}\n', encoding="utf-8")
    return folder


def prepare(job: Job) -> None:
    """Series -> one set of manifests per gauge. Every fifth day is for validation."""
    folder = job.path("series")
    if folder is None:
        raise UsageError("--series is needed: the folder of the text files.")
    paths = sorted(folder.glob("*.txt"))
    records, refused = encode_files(paths, LEVELS, job.workspace.cache, job.workers, job.say)
    refuse_if_too_many(list(refused.values()), len(paths), 0.5)
    if not records:
        raise DataError(f"{folder} holds no usable .txt file.")
    rows: dict[str, list[dict]] = {}
    content = hashlib.sha256()
    for path, record in records.items():
        content.update(path.stem.encode() + record.key)
        for day in range(len(record["levels"]) // DAY):
            name = f"{path.stem}/{day}"
            row = {"levels_path": str(path), "gauge": path.stem, "id": name, "day": name,
                   "begin": day * DAY, "end": (day + 1) * DAY}  # fmt: skip
            split = "val" if day % DAYS == DAYS - 1 else "train"
            rows.setdefault(file_name(f"level/{path.stem}", split), []).append(row)
    summary = {"synthetic": (folder / MARKER).is_file(), "items": [path.stem for path in records],
               "digest": content.hexdigest(), "manifests": sorted(rows)}  # fmt: skip
    write_manifests(job.workspace.manifests, rows, summary, list(refused.values()))
    job.say(f"  {len(records)} gauges, {sum(map(len, rows.values()))} days, {len(refused)} quarantined")


def levels_of(row) -> np.ndarray:
    """The levels of a row's day: float32 [DAY]."""
    return row.records["levels_path"]["levels"][row.values["begin"] : row.values["end"]]
