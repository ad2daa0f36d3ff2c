"""What is read from one file of the user, for `inspect`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from training.domain import Inspected
from training.domains.brain.bold import reading
from training.domains.brain.bold.files import entities
from training.domains.brain.stimulus import annotations, film

SHOWN = 10


def inspect(path: Path) -> Inspected:
    """Facts and remarks about BOLD, a film, a sound file, or annotations. Raises ValueError, with the reason, where
    `prepare` would refuse the file."""
    if path.name.endswith(reading.SUFFIXES):
        return _bold(path)
    if path.suffix.lower() in annotations.SUFFIXES:
        return _annotations(path)
    return _film(path)


def _bold(path: Path) -> Inspected:
    record = reading.decode(path)
    seconds = float(record["tr"][0])
    size = np.abs(np.diag(record["affine"])[:3]) if not record["affine"][:3, :3][~np.eye(3, dtype=bool)].any() else (
        np.linalg.norm(record["affine"][:3, :3], axis=0)
    )  # fmt: skip
    facts = {
        "volumes": len(record["data"]),
        "grid": "x".join(str(length) for length in record["shape"].tolist()),
        "voxel (mm)": " x ".join(f"{length:.3g}" for length in size),
        "TR in the header (s)": None if np.isnan(seconds) else seconds,
        "minutes": None if np.isnan(seconds) else round(len(record["data"]) * seconds / 60, 2),
        "voxels with signal": len(record["index"]),
        "constant voxels": int(record["constant"][0]),
        "voxels with NaN": int(record["nonfinite"][0]),
        **{f"BIDS {key}": value for key, value in entities(path).items()},
    }
    remarks = []
    if np.isnan(seconds):
        remarks.append(f"the header gives {float(record['unit_value'][0]):g} between volumes without a unit: give --tr")
    if float(record["mean_size"][0]) < 1e-3 and abs(float(record["mean_spread"][0]) - 1) < 0.01:
        remarks.append("it is already z-scored over all volumes: held-out volumes have entered its mean and spread")
    return Inspected("BOLD", facts, {}, tuple(remarks))


def _annotations(path: Path) -> Inspected:
    record = annotations.decode(path)
    vocabulary = annotations.vocabulary_of(record)
    counts = np.bincount(record["word"], minlength=len(vocabulary))
    order = np.argsort(-counts, kind="stable")[:SHOWN]
    facts = {
        "words": len(record["onset"]), "different words": len(vocabulary),
        "first (s)": float(record["onset"].min()), "last (s)": float(record["onset"].max()),
        "rows left out": int(record["skipped"][0]),
    }  # fmt: skip
    return Inspected("annotations", facts, {"frequent words": [
        {"word": vocabulary[number], "count": int(counts[number])} for number in order
    ]}, ("the words of an annotation are spread evenly over its time",))  # fmt: skip


def _film(path: Path) -> Inspected:
    record = film.decode(path)
    pictures, sound = map(float, record["seconds"])
    facts = {"seconds of pictures": pictures, "seconds of sound": sound}
    remarks = []
    if not pictures:
        remarks.append("it has no pictures: there are no features of pictures and motion")
    if not sound:
        remarks.append("it has no sound: there are no features of sound")
    return Inspected("film", facts, {}, tuple(remarks))
