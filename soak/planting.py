"""What row 21 plants: where a trial works, and what has to become of it."""

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
    """Where a trial works."""

    folder: Path  # its own, empty
    base: Path  # a trained toy, a trained family and its exports: to copy from
    mark: Path  # made by planted code
    secret: Path  # outside of every folder that is read


@dataclass(frozen=True)
class Case:
    """Something planted. `act` plants it and uses it, in a separate process; then the exit code must be `code`, and
    one of `output` in the output."""

    name: str
    act: Callable[[Place], int]
    code: int
    output: str


def exports_in(place: Place) -> Path:
    """Exports of the trial's own."""
    return Path(shutil.copytree(place.base / FAMILY / "exports", place.folder / "exports"))


def sign(folder: Path) -> None:
    """The receipt says what the files are now."""
    receipt = json.loads((folder / "receipt.json").read_text())
    for entry in receipt["families"].values():
        for name, about in entry["files"].items():
            path = folder / name
            if path.is_file() and not path.is_symlink():
                content = path.read_bytes()
                about |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (folder / "receipt.json").write_text(json.dumps(receipt))
