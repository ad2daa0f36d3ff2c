"""The second place (`--persist`): what copies and restores need of it. A folder (folder.py), or a place in an object
store (objects/place.py)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from training.data.objects.address import Address
from training.engine.checkpoints.index import Index
from training.persist.copying import Pulse

Target = Path | Address  # what --persist names


class Lease(Protocol):
    """The right to write to a part of the place: see lease.py."""

    def take(self, pulse: Pulse) -> None: ...
    def renew(self) -> bool: ...
    def free(self) -> None: ...


class Replica(Protocol):
    """One run's checkpoints in the place, to be kept up to date: see remote.py."""

    source: Path

    def sweep(self) -> None: ...
    def forget(self) -> None: ...
    def require_verification(self) -> None: ...
    def update(self) -> list[str]: ...
    def damaged(self) -> list[str]: ...
    def shown(self) -> str: ...


class Source(Protocol):
    """One run's checkpoints in the place, to be restored."""

    def index(self) -> Index:
        """What is listed; empty if nothing is. Raises UsageError if the index is damaged, OSError."""

    def fetch(self, names: tuple[str, ...], digest: str, target: Path, pulse: Pulse) -> bool:
        """Copy the content `digest`, which may have any of these names, to the file `target`; returns whether it was
        there, intact. Raises OSError."""

    def leave_out(self, damaged: list[str], left: Index) -> None:
        """List only what is in `left`, as `damaged` is not intact. Raises OSError."""


class SecondPlace(ABC):
    """A place for copies. All methods may raise OSError, and HostError where it says so."""

    exclusive = False  # whether a lease excludes other hosts for certain: a training that has lost it must end
    patience = 1.0  # how much longer than a folder it may be silent: a request shows no progress while it is made
    verified = "each file read back"  # how copies were verified, for people
    read_back = "read back there"  # the same of a checkpoint

    @abstractmethod
    def enter(self, root: Path, say: Callable[[str], None]) -> None:
        """Prepare the place for copies of `root`. Raises HostError if it is not suitable."""

    def require(self) -> None:
        """Raise Detached if it is not the place any more."""

    @abstractmethod
    def lease(self, run: str, purpose: str, say: Callable[[str], None]) -> Lease:
        """A lease on the checkpoints of `run`; on what does not belong to a run, if that is empty."""

    @abstractmethod
    def replica(self, source: Path, run: str, pulse: Pulse) -> Replica:
        """The replica of the checkpoints of `run`, which are in `source`."""

    @abstractmethod
    def replicate(self, replica: Replica, root: Path, also: Iterable[Path], pulse: Pulse) -> list[str]:
        """Update `replica`, and copy the files `also`, relative to `root`. Returns messages for what is damaged."""

    @abstractmethod
    def runs(self) -> list[str]:
        """The runs of which checkpoints are there: "family" or "family/item", sorted."""

    @abstractmethod
    def checkpoints(self, run: str) -> Source:
        """The checkpoints of `run`."""

    @abstractmethod
    def require_not_ahead(self, source: Path, run: str) -> None:
        """Raise HostError if the place has a newer checkpoint of `run` than `source`: a training would start again from
        an older one, or from the beginning."""

    @abstractmethod
    def restore_files(self, root: Path, parts: Iterable[str], pulse: Pulse) -> tuple[int, int]:
        """Copy the files in the folders `parts` that are missing or older in `root`; returns how many were copied, and
        how many kept."""

    @abstractmethod
    def persist_files(self, root: Path, part: str, problems: list[str], pulse: Pulse) -> str | None:
        """Copy the files of the folder `part` of `root` that differ, and verify all of them; returns what is safe
        there, for people. A message for each one that could not be copied is appended to `problems`."""

    @abstractmethod
    def shown(self, run: str, name: str) -> str:
        """Where a file of the checkpoints of `run` is, for people."""

    def notes(self, root: Path) -> list[str]:
        """What people should know about the place."""
        return []


def place_at(target: Target) -> SecondPlace:
    """The place that --persist names. Raises HostError if it needs a package that is not installed."""
    if isinstance(target, Path):
        from training.persist.folder import FolderPlace

        return FolderPlace(target)
    from training.persist.objects.place import ObjectPlace

    return ObjectPlace(target)


def require_restored(root: Path, target: Target, run: str) -> None:
    """Raise HostError if the place has a newer checkpoint of `run` than `root`."""
    from training.persist.destination import run_on_place

    part = Path("checkpoints") / run
    run_on_place(lambda: place_at(target).require_not_ahead(root / part, run), Pulse(), target)
