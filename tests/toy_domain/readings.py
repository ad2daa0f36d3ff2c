"""Readings: the encoder, the schema of a manifest row, the demo, and prepare."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from training.data.encode import Encoder, encode_files, refuse_if_too_many
from training.data.files import write_atomic
from training.data.identity import MARKER
from training.data.schema import PathKey, Schema, text
from training.data.writing import file_name, write_manifests
from training.domain import Inspected, Job
from training.errors import DataError, UsageError

SESSION = 16  # readings; a session is the unit, and stays in one split
DEVICES = ("ampere", "bar", "celsius")


def decode(path: Path) -> dict[str, np.ndarray]:
    """A CSV file -> xy, float32 [n, 2]. Raises ValueError, whose text becomes the reason of the quarantine."""
    rows = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    for number, row in enumerate(rows, 1):
        if len(row) != 2:
            raise ValueError(f"line {number} has {len(row)} columns; expected x,y")
    xy = np.array(rows, np.float64).astype(np.float32).reshape(-1, 2)
    if not np.isfinite(xy).all():
        raise ValueError("a reading is not finite")
    return {"xy": xy}


def inspect(path: Path) -> Inspected:
    """The sessions of a CSV file. Raises ValueError as `decode` does."""
    x, y = decode(path)["xy"].T
    begins = range(0, len(x) - SESSION + 1, SESSION)
    rows = [{"session": at // SESSION, "mean": float(y[at : at + SESSION].mean())} for at in begins]
    left = len(x) % SESSION
    return Inspected(
        "readings", {"readings": len(x), "device": path.stem, "largest": float(x.max()), "first bad line": None},
        {"sessions": rows}, (f"the last {left} readings are no complete session",) if left else (),
    )  # fmt: skip


def decode_limits(path: Path) -> dict[str, np.ndarray]:
    """A file with a number per line -> limits, float32 [2]: the range in which the devices are valid."""
    return {"limits": np.array(path.read_text(encoding="utf-8").split(), np.float32).reshape(2)}


READINGS = Encoder("readings", "readings 1", decode)
LIMITS = Encoder("limits", "limits 1", decode_limits)
SCHEMA = Schema(
    place="tests.toy_domain.readings:SCHEMA",
    # every row refers to the one file of limits, so the splits share it
    paths=(PathKey("readings_path", root="readings"), PathKey("limits_path", folder="data", shared=True)),
    keys={"device": text("device")},
    required=("device",),
    names=("id",),
    spans={"readings_path": ("begin", "end")},
    group="session",
    example='{"readings_path": ..., "device": ..., "begin": 0, "end": 16, "session": ...}',
)


def make_demo(job: Job) -> Path:
    """Three devices with known curves, marked as synthetic."""
    folder = job.workspace.root / "data" / "demo_readings"
    if (folder / MARKER).is_file():  # written last, so the demo is complete
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    noise = 0.05 if job.options.get("noise") is None else float(job.options["noise"])
    for number, device in enumerate(DEVICES):
        random = np.random.default_rng([job.seed, number])
        x = random.uniform(-1, 1, 10 * SESSION)
        y = np.sin((1 + number) * x) + noise * random.standard_normal(len(x))
        lines = [f"{a:.6f},{b:.6f}\n" for a, b in zip(x, y, strict=True)]
        (folder / f"{device}.csv").write_text("".join(lines), encoding="utf-8")
    (folder / MARKER).write_text('{"synthetic": true}\n', encoding="utf-8")
    return folder


def split_of(session: int, sessions: int) -> str:
    """The last session is the sealed test split, the one before it is for validation."""
    return {sessions - 1: "test", sessions - 2: "val"}.get(session, "train")


def prepare(job: Job) -> None:
    """Readings -> manifests of `curve`, one set per device, and of `boost`, for all devices together."""
    folder = job.path("readings")
    if folder is None:
        raise UsageError("--readings is needed: the folder of the CSV files.")
    paths = [folder] if folder.is_file() else sorted(folder.glob("*.csv"))
    records, refused = encode_files(paths, READINGS, job.workspace.cache, job.workers, job.say)
    refuse_if_too_many(list(refused.values()), len(paths), 0.5)
    limits = job.workspace.root / "data" / "limits.txt"
    seen = [pair for record in records.values() for pair in record["xy"][:, 0].tolist()]
    write_atomic(limits, f"{min(seen, default=0)}\n{max(seen, default=0)}\n".encode())
    rows: dict[str, list[dict]] = {}
    items, content = [], hashlib.sha256()
    for path in records:
        sessions = len(records[path]["xy"]) // SESSION
        if sessions < 3:
            raise DataError(f"{path} has {len(records[path]['xy'])} readings; {3 * SESSION} are needed.")
        items.append(path.stem)
        content.update(path.stem.encode() + records[path].key)
        for number in range(sessions):
            row = {"readings_path": str(path), "limits_path": str(limits),
                   "device": path.stem, "id": f"{path.stem} {number}",
                   "begin": number * SESSION, "end": (number + 1) * SESSION,
                   "session": f"{path.stem}/{number}"}  # fmt: skip
            split = split_of(number, sessions)
            for name in (f"curve/{path.stem}", "boost"):
                rows.setdefault(file_name(name, split), []).append(row)
    if not items:
        raise DataError(f"{folder} holds no usable .csv file.")
    summary = {"synthetic": (folder / MARKER).is_file(), "items": items, "digest": content.hexdigest(),
               "manifests": sorted(rows)}  # fmt: skip
    write_manifests(job.workspace.manifests, rows, summary, list(refused.values()))
    job.say(f"  {len(items)} devices, {sum(len(of) for of in rows.values()) // 2} sessions, {len(refused)} quarantined")


def devices(job: Job, words, load) -> None:
    """The command `devices`, which takes no words: print the name of each device."""
    from training.data.summary import summary_of

    for item in (summary_of(job.workspace) or {}).get("items", ()):
        job.say(item)


def pairs(rows) -> np.ndarray:
    """The readings of all rows: float32 [n, 2]."""
    parts = [row.records["readings_path"]["xy"][row.values["begin"] : row.values["end"]] for row in rows]
    return np.concatenate(parts).astype(np.float32)
