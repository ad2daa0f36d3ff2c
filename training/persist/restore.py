"""Copies a family's checkpoints back from a second place: those that are intact there, and newer than those here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from training.data.files import sync
from training.engine.checkpoints.checkpoint_file import has, link
from training.engine.checkpoints.checkpoint_folder import CheckpointFolder
from training.engine.checkpoints.index import BEFORE_LAST, LAST, TEMPORARY, Entry, Index, constants_name
from training.errors import HostError
from training.persist.copying import Changed, Pulse, copy

if TYPE_CHECKING:
    from training.persist.second_place import Source

_STAGED = f"{TEMPORARY}restored-"


class FolderSource:
    """A folder of checkpoints, to be restored. See second_place.Source."""

    def __init__(self, path: Path):
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def index(self) -> Index:
        """See Source."""
        return Index.read(self.path)

    def fetch(self, names: tuple[str, ...], digest: str, target: Path, pulse: Pulse) -> bool:
        """See Source."""
        for name in names:
            try:
                copy(self.path / name, target, pulse, digest)
            except Changed:
                continue
            return True
        return False

    def leave_out(self, damaged: list[str], left: Index) -> None:
        """See Source. The files are kept under another name."""
        for name in damaged:
            if (self.path / name).exists():
                (self.path / name).replace(self.path / f"{name}.damaged")
        left.write(self.path)


def restore_family(place: Path | Source, ours: Path, pulse: Pulse) -> str:
    """Copy the checkpoints in `place` (a folder, or what is in another second place) that are missing or older in
    `ours`; returns what was done, for people.

    The caller must hold the lock and the lease of both. A run in `ours` that is older than another one in `place` is
    set aside. Raises HostError if no listed checkpoint is intact, OSError.
    """
    theirs = FolderSource(place) if isinstance(place, Path) else place
    checkpoints = CheckpointFolder(ours)
    checkpoints.sweep()
    there, here = theirs.index(), Index.read(ours)
    listed = there.newest_first()
    if not listed:
        return "nothing there"
    standing = here.files[LAST].saved if LAST in here.files else 0.0
    if max(entry.saved for entry in listed.values()) <= standing:
        return _repair(theirs, listed, checkpoints, here, pulse)
    intact, staged, damaged = _stage_all(theirs, listed, ours, pulse)
    if not intact:
        raise HostError(
            f"{theirs} lists {', '.join(listed)}, and none of them is intact. If it cannot be repaired, move that "
            "folder away: the next training then starts a new run."
        )
    newest = next(iter(intact.values()))
    if damaged:  # the index there must not list what is damaged
        theirs.leave_out(damaged, Index({LAST: newest} | intact, [], there.constants).without(()))
    report = f"damaged there, and passed over: {', '.join(damaged)}; " if damaged else ""
    if newest.saved <= standing:
        return report + _repair(theirs, intact, checkpoints, here, pulse)
    if LAST in here.files and here.files[LAST].run_id != newest.run_id:
        aside = checkpoints.set_aside(here.files[LAST].run_id)
        report += f"the older run that was here is now in {aside}; "
        here = Index()
    names = {LAST: newest} | intact
    constants = {}
    for digest in {entry.constants for entry in names.values()} - {""}:
        constants[constants_name(digest)] = {"sha256": digest, "bytes": staged[digest].stat().st_size}
        staged[digest].replace(ours / constants_name(digest))
    for name in sorted(names, key=lambda n: n == LAST):  # the newest last
        link(staged[names[name].sha256], ours / name)
    sync(ours)
    Index(here.files | names, [], here.constants | constants).without(()).write(ours)
    checkpoints.sweep()
    return f"{report}restored step {newest.step} of run {newest.run_id} ({', '.join(names)})"


def _stage_all(
    theirs: Source, listed: dict[str, Entry], ours: Path, pulse: Pulse
) -> tuple[dict[str, Entry], dict[str, Path], list[str]]:
    """Copy each content in `theirs` once, to temporary names in `ours`; returns the entries that are intact, with the
    constants that they refer to, SHA-256 -> the copy, and the names of what is damaged."""
    staged: dict[str, Path] = {}
    intact: dict[str, Entry] = {}
    damaged: list[str] = []
    for name, entry in listed.items():
        complete = not entry.constants or _stage_constants(theirs, entry.constants, ours, staged, pulse)
        if complete and (entry.sha256 in staged or _stage(theirs, name, entry, ours, staged, pulse)):
            intact[name] = entry
        else:
            damaged.append(name)
    return intact, staged, damaged


def _repair(theirs: Source, listed: dict[str, Entry], checkpoints: CheckpointFolder, here: Index, pulse: Pulse) -> str:
    """Copy what is missing or damaged here, if nothing there is newer; returns what was done, for people."""
    repaired, lost = [], []
    ours = checkpoints.path
    for name, about in here.constants.items():
        staged: dict[str, Path] = {}
        if has(ours / name, about["sha256"]):
            continue
        if _stage_constants(theirs, about["sha256"], ours, staged, pulse):
            staged[about["sha256"]].replace(ours / name)
            sync(ours)
            repaired.append(name)
        else:
            lost.append(name)
    for name, entry in here.files.items():
        same = [n for n, other in listed.items() if other.sha256 == entry.sha256]
        staged = {}
        if checkpoints.holds(name, entry.sha256):
            continue
        if any(_stage(theirs, n, entry, ours, staged, pulse) for n in same):
            link(staged[entry.sha256], ours / name)
            repaired.append(name)
        else:
            lost.append(name)
    checkpoints.sweep()
    done = f"; restored what was damaged here: {', '.join(repaired)}" if repaired else ""
    done += f"; damaged here, and not intact there: {', '.join(lost)}" if lost else ""
    return f"step {here.files[LAST].step} is here, nothing newer is there{done}"


def _stage(theirs: Source, name: str, entry: Entry, ours: Path, staged: dict[str, Path], pulse: Pulse) -> bool:
    """Copy an entry's content to a temporary name in `ours`, verified; False if it is not intact there."""
    # Where a copy was cut short between its two renames, the content is under the second name.
    return _copied(theirs, (name, BEFORE_LAST), entry.sha256, ours, staged, pulse)


def _stage_constants(theirs: Source, digest: str, ours: Path, staged: dict[str, Path], pulse: Pulse) -> bool:
    """Stage constants under a temporary name in `ours`: those of `ours` if they are intact, else those of `theirs`;
    returns False if neither are."""
    name = constants_name(digest)
    if digest not in staged and has(ours / name, digest):  # linked, as the run here may be set aside with its constants
        staged[digest] = ours / f"{_STAGED}{digest[:16]}"
        link(ours / name, staged[digest])
    return digest in staged or _copied(theirs, (name,), digest, ours, staged, pulse)


def _copied(
    theirs: Source, names: tuple[str, ...], digest: str, ours: Path, staged: dict[str, Path], pulse: Pulse
) -> bool:
    path = ours / f"{_STAGED}{digest[:16]}"
    if theirs.fetch(names, digest, path, pulse):
        staged[digest] = path
        return True
    return False
