"""A folder as the second place: with the layout of the workspace, so that commands can be run on it with --out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from training.data.files import sha256
from training.engine.checkpoints.index import INDEX
from training.persist.copying import Pulse, copy, files_under, read_back
from training.persist.destination import copy_if_different, reason_of, require_place
from training.persist.lease import Lease
from training.persist.place import Place
from training.persist.remote import CheckpointReplica, require_not_ahead
from training.persist.restore import FolderSource
from training.persist.second_place import Replica, SecondPlace
from training.units import size


class FolderPlace(SecondPlace):
    """The folder `root`, on a drive that may be slow, full, or detached."""

    def __init__(self, root: Path):
        self.root = root
        self.identity = Place(root)

    def enter(self, root: Path, say: Callable[[str], None]) -> None:
        """See SecondPlace."""
        require_place(root, self.root)
        self.identity.enter()

    def require(self) -> None:
        """See SecondPlace."""
        self.identity.require()

    def lease(self, run: str, purpose: str, say: Callable[[str], None]) -> Lease:
        """See SecondPlace."""
        return Lease(self._of(run) if run else self.root, purpose, say, self.identity)

    def replica(self, source: Path, run: str, pulse: Pulse) -> CheckpointReplica:
        """See SecondPlace."""
        return CheckpointReplica(source, self._of(run), pulse)

    def replicate(self, replica: Replica, root: Path, also: Iterable[Path], pulse: Pulse) -> list[str]:
        """See SecondPlace."""
        problems = replica.update()
        for relative in also:
            copy_if_different(root, self.root, relative, pulse, self.identity)
        return problems

    def runs(self) -> list[str]:
        """See SecondPlace."""
        return runs_in(self.root)

    def checkpoints(self, run: str) -> FolderSource:
        """See SecondPlace."""
        return FolderSource(self._of(run))

    def require_not_ahead(self, source: Path, run: str) -> None:
        """See SecondPlace."""
        require_not_ahead(source, self._of(run))

    def restore_files(self, root: Path, parts: Iterable[str], pulse: Pulse) -> tuple[int, int]:
        """See SecondPlace."""
        restored = kept = 0
        for part in parts:
            for path in files_under(self.root / part):
                relative = path.relative_to(self.root)
                here = root / relative
                if here.is_file() and here.stat().st_mtime_ns >= path.stat().st_mtime_ns:
                    kept += 1
                elif copy_if_different(self.root, root, relative, pulse):
                    restored += 1
        return restored, kept

    def persist_files(self, root: Path, part: str, problems: list[str], pulse: Pulse) -> str | None:
        """See SecondPlace."""
        count = total = 0
        for path in files_under(root / part):
            relative = path.relative_to(root)
            try:
                there = self.root / relative
                copied = copy_if_different(root, self.root, relative, pulse, self.identity)
                if not copied and sha256(path) != read_back(there, pulse):
                    copy(path, there, pulse)
            except OSError as error:
                problems.append(f"{relative}: {reason_of(error)}")
            else:
                count, total = count + 1, total + path.stat().st_size
        return f"{part}: {count} files, {size(total)}" if count else None

    def shown(self, run: str, name: str) -> str:
        """See SecondPlace."""
        return str(self._of(run) / name)

    def notes(self, root: Path) -> list[str]:
        """See SecondPlace."""
        if root.exists() and root.stat().st_dev == self.root.stat().st_dev:
            return [f"  NOTE: {self.root} is on the same disk as {root}: it does not outlive that disk."]
        return []

    def _of(self, run: str) -> Path:
        return self.root / "checkpoints" / run


def runs_in(root: Path) -> list[str]:
    """The runs that have checkpoints under `root`: "family", or "family/item" if the family fans out."""
    top = root / "checkpoints"
    found = [path.parent.relative_to(top) for path in (*top.glob(f"*/{INDEX}"), *top.glob(f"*/*/{INDEX}"))]
    return sorted(str(path) for path in found if "previous" not in path.parts)
