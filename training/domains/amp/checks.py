"""Checks of captures and guitar for `doctor`: what can be known from names alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from training.data.files import scan
from training.domain import Finding, Job
from training.domains.amp import guitar
from training.domains.amp.files import capture_files
from training.domains.amp.formats.checking import SUFFIXES
from training.errors import DataError

_NAME = "Name a folder with .nam or GuitarML .json files."


def checks(job: Job) -> Iterator[Finding]:
    """The folder of the captures, and the guitar."""
    folder, di = job.path("captures"), job.path("di")
    if folder is not None:
        try:
            found, refused = capture_files(folder)
        except OSError as error:
            yield Finding("fails", "captures", f"{folder} cannot be read: {error.strerror}", _NAME)
            return
        if not found:
            yield Finding("fails", "captures", f"{folder} holds no {' or '.join(SUFFIXES)} file", _NAME,
                          DataError.exit_code)  # fmt: skip
        else:
            more = f", {len(refused)} that cannot be read" if refused else ""
            yield Finding("ok", "captures", f"{len(found)} files in {folder}{more}")
    if di is not None and di.is_dir():
        recordings = [Path(one.place) for one in scan(di, guitar.SUFFIXES)[0]]
        if recordings:
            yield Finding("ok", "guitar", f"{len(recordings)} recordings in {di}")
        else:
            yield Finding("fails", "guitar", f"{di} holds no {' or '.join(guitar.SUFFIXES)} file",
                          "Name a recording of a guitar without its amplifier.", DataError.exit_code)  # fmt: skip
    elif di is None and folder is not None:
        yield Finding("note", "guitar", "no --di: synthetic plucks are used",
                      "A recording of your guitar without its amplifier gives results for real playing.")  # fmt: skip


def store_bytes(job: Job) -> int:
    """Expected size of the stores: captures as they are, guitar as float32."""
    total = 0
    for attribute, suffixes, share in (("captures", SUFFIXES, 1.0), ("di", guitar.SUFFIXES, 2.0)):
        place = job.path(attribute)
        if place is None or not place.exists():
            continue
        paths = [place] if place.is_file() else [Path(one.place) for one in scan(place, suffixes)[0]]
        total += sum(int(path.stat().st_size * share) for path in paths)
    return total
