"""Exported files and folders: known by their SHA-256, moved to their final names whole."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from training.data.files import disk_errors, sync
from training.data.files import sha256 as file_sha256
from training.errors import ExportError


def sha256(path: Path) -> str:
    """Hex digest of a file; of a folder (an .mlpackage), the digest over its files' relative names and digests."""
    if not path.is_dir():
        return file_sha256(path)
    total = hashlib.sha256()
    for name in files_below(path):
        total.update(f"{file_sha256(path / name)}  {name}\n".encode())
    return total.hexdigest()


def size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum((path / n).stat().st_size for n in files_below(path)) if path.is_dir() else path.stat().st_size


def files_below(folder: Path) -> list[str]:
    """Relative names (with /) of all files below `folder`, sorted. A link is refused: a folder is what it holds."""
    names = []
    for path in folder.rglob("*"):
        if path.is_symlink():
            raise ExportError(f"{path} is a symbolic link; an export holds its own files.")
        if path.is_file():
            names.append(path.relative_to(folder).as_posix())
    return sorted(names)


def publish(source: Path, target: Path) -> None:
    """Move a finished file or folder to its final name, in place of what was there. Raises HostError."""
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            for name in files_below(source):
                sync(source / name)
        else:
            sync(source)
        old = target.with_name(f".old-{target.name}")
        shutil.rmtree(old, ignore_errors=True)
        if target.is_dir() and not target.is_symlink():
            target.rename(old)  # a folder cannot be replaced in one step
        source.replace(target)
        shutil.rmtree(old, ignore_errors=True)
        sync(target.parent)
