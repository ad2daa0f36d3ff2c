"""Operations on a second place for results: a --persist folder, on a drive that may be slow, full, or detached."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from training.data.objects.address import Address
from training.errors import HostError
from training.persist.copying import Pulse, copy, run_watched, same
from training.persist.place import Place

PATIENCE = 180.0  # seconds without progress after which work on a place is abandoned
OBJECTS_PATIENCE = 900.0  # the same of an object store, whose requests have time limits of their own, and are repeated
T = TypeVar("T")


def run_on_place(work: Callable[[], T], pulse: Pulse, persist: Path | Address) -> T:
    """Run `work`, which reports its progress to `pulse`, on what --persist names. Raises HostError if it fails or does
    not answer."""
    if isinstance(persist, Address):
        try:
            return run_watched(work, pulse, OBJECTS_PATIENCE, persist)
        except OSError as error:
            raise HostError(f"--persist {persist} cannot be used: {reason_of(error)}") from error
    try:
        return run_watched(work, pulse, PATIENCE, persist)
    except OSError as error:
        raise HostError(
            f"--persist {persist} cannot be used: {reason_of(error)}. Attach the drive, make room, or name another "
            "folder."
        ) from error


def require_place(root: Path, persist: Path) -> None:
    """Create `persist` if it is missing. Raises HostError if it is not suitable for copies of `root`, OSError."""
    if persist.exists() and not persist.is_dir():
        raise HostError(f"--persist {persist} is a file, not a folder.")
    if not persist.parent.is_dir():
        raise HostError(f"--persist {persist}: there is no {persist.parent}. Is the drive attached?")
    persist.mkdir(exist_ok=True)
    if root.exists() and persist.samefile(root):
        raise HostError(f"--persist {persist} is the --out folder itself; name one on another drive.")


def copy_if_different(source: Path, target: Path, relative: Path, pulse: Pulse, place: Place | None = None) -> bool:
    """Copy the file `relative` from the folder `source` to the folder `target`, unless the same file is there already;
    returns whether it was copied. It is no error if the source was deleted meanwhile. Raises OSError.

    `place`: is checked before folders are made in `target`: if its drive was detached meanwhile, they would be made on
    another disk.
    """
    pulse.beat()
    try:
        if (target / relative).is_file() and same(source / relative, target / relative):
            return False
        if place is not None:
            place.require()
        (target / relative).parent.mkdir(parents=True, exist_ok=True)
        copy(source / relative, target / relative, pulse)
    except OSError:
        if (source / relative).exists():
            raise
        return False
    return True


def reason_of(error: BaseException) -> str:
    """An error in a few words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f": {error.filename}" if error.filename else "")
    return str(error) or type(error).__name__
