"""A drive that can be detached, without the right to mount one: a path to another file system, or below it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class Drive:
    """`path` is on the drive until `detach`; after it, the same path leads to `below`, on another file system."""

    def __init__(self, path: Path, below: Path, on: Path):
        self.path, self.below = path, below
        below.mkdir(exist_ok=True)
        if on.stat().st_dev == below.stat().st_dev:
            pytest.skip(f"{on} and {below} are on one file system: a drive cannot be detached here")
        path.symlink_to(on)

    def detach(self) -> None:
        self.path.unlink()
        self.path.symlink_to(self.below)


@contextmanager
def attached(folder: Path) -> Iterator[Drive]:
    """A drive at `folder`/at, and what lies below its mount point in `folder`/below."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as on:
        yield Drive(folder / "at", folder / "below", Path(on))
