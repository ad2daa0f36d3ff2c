"""The types and helpers that the planted files of row 21 share."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

FAMILY = "midi_generator"
SECRET = b"what no model may hold"


@dataclass(frozen=True)
class Place:
    """The paths of a trial."""

    folder: Path  # for this trial alone; empty
    base: Path  # a trained toy, a trained family and its exports: to copy from
    mark: Path  # created by planted code if it runs
    secret: Path  # a file outside every folder that may be read


@dataclass(frozen=True)
class Case:
    """One attack. `act` plants a file and runs the command that reads it, in a separate process; the exit code must be
    `code`, and the output must contain `output`."""

    name: str
    act: Callable[[Place], int]
    code: int
    output: str


def exports_in(place: Place) -> Path:
    """A copy of the exports for the trial."""
    return Path(shutil.copytree(place.base / FAMILY / "exports", place.folder / "exports"))


def sign(folder: Path) -> None:
    """Update the digests and sizes in the receipt to those of the files."""
    receipt = json.loads((folder / "receipt.json").read_text())
    for entry in receipt["families"].values():
        for name, about in entry["files"].items():
            path = folder / name
            if path.is_file() and not path.is_symlink():
                content = path.read_bytes()
                about |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (folder / "receipt.json").write_text(json.dumps(receipt))
