"""Exported files and folders: their SHA-256, and moving them to their final names."""

from __future__ import annotations

import errno
import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.data.files import disk_errors, sync
from training.data.files import sha256 as file_sha256
from training.errors import AthanorError, ExportError, HostError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


def sha256(path: Path) -> str:
    """The SHA-256 of a file in hex; of a folder (an .mlpackage), that of its files' relative names and digests."""
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
    """Relative names (with /) of all files below `folder`, sorted. Raises ExportError for a symbolic link, since the
    digest of a folder must cover its content."""
    names = []
    for path in folder.rglob("*"):
        if path.is_symlink():
            raise ExportError(f"{path} is a symbolic link; an export must contain the files themselves.")
        if path.is_file():
            names.append(path.relative_to(folder).as_posix())
    return sorted(names)


@contextmanager
def writer_errors(name: str) -> Iterator[None]:
    """A context for the writer of a family. A full disk becomes a HostError; any other error an ExportError with its
    type and text."""
    try:
        yield
    except AthanorError:
        raise
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise HostError(f"Cannot write {name}: {error.strerror or error}.") from None
        raise ExportError(f"{name} cannot be written: {type(error).__name__}: {error}") from error
    except Exception as error:
        raise ExportError(f"{name} cannot be written: {type(error).__name__}: {error}") from error


def publish(source: Path, target: Path) -> None:
    """Move a finished file or folder to its final name, replacing what has that name. Raises HostError.

    Files are fsynced before the rename and the target's folder after it, so that after a power cut the final name never
    has missing content. A rename cannot replace a non-empty folder, nor a file by a folder: the old one is then renamed
    first and deleted last.
    """
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            for name in files_below(source):
                sync(source / name)
        else:
            sync(source)
        old = target.with_name(f".old-{target.name}")
        _remove(old)
        if (target.is_dir() and not target.is_symlink()) or (source.is_dir() and target.exists()):
            target.rename(old)
        source.replace(target)
        _remove(old)
        sync(target.parent)


def folders_of(names: set[str]) -> set[str]:
    """All parent folders of files with these names (with "/")."""
    return {name[:at] for name in names for at, letter in enumerate(name) if letter == "/"}


def remove_all_but(folder: Path, gone: set[str], kept: set[str]) -> None:
    """Delete the files and folders `gone` (names relative to `folder`), but none of `kept`: a kept one may be inside a
    folder that is gone, or be a folder with the name of a file that is gone."""
    for name in gone:
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()) or any(name.startswith(f"{k}/") for k in kept):
            continue
        inside = {k.removeprefix(f"{name}/") for k in kept if k.startswith(f"{name}/")}
        if inside and path.is_dir():
            below = {n for n in files_below(path) if not any(n == k or n.startswith(f"{k}/") for k in inside)}
            remove_all_but(path, below, inside)
        else:
            _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
