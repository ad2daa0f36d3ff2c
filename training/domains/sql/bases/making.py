"""Makes a base model's folder once, whichever of several processes (the ranks of a training) comes first."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable
from pathlib import Path

from training.data.files import disk_errors, sync


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, which `make` fills under a temporary name if it is not there yet. Others wait meanwhile. Raises
    HostError where it cannot be written."""
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (folder.parent / f".{folder.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.is_dir():
                return folder
            making = folder.with_name(f".making-{folder.name}")
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir()
            make(making)
            for file in sorted(making.iterdir()):
                sync(file)
            making.rename(folder)
            sync(folder.parent)
    return folder
