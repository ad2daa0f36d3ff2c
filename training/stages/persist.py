"""`persist` copies the results of a workspace to a second place that outlives this host; `restore` copies them back on
the next host.

The second place has the layout of the workspace. What can be made again (the cache) and what was set aside
(checkpoints/*/previous) is not copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.data.files import sha256
from training.engine.checkpoints.index import INDEX
from training.errors import AthanorError, HostError
from training.persist.copying import Pulse, copy, files_under, read_back
from training.persist.destination import copy_if_different, reason_of, require_place, run_on_place
from training.persist.lease import Lease
from training.persist.place import Place
from training.persist.remote import CheckpointReplica, shown
from training.persist.restore import restore_family
from training.units import size
from training.workspace import Workspace, exclusive

PARTS = ("data/manifests", "runs", "exports")
SHOWN = 8  # problems that are listed one by one


def restore(workspace: Workspace, place: Path) -> None:
    """Copy to the workspace what is missing there or older than in `place`. An empty place is no error (a first start).

    Checkpoints are verified by their SHA-256. Nothing newer is overwritten, and an older run is set aside. Raises
    HostError if the place cannot be used, is in use, or lists checkpoints of which none is intact.
    """
    pulse = Pulse()
    run_on_place(lambda: _restore(workspace, place, pulse), pulse, place)


def persist(workspace: Workspace, place: Path) -> None:
    """Copy to `place` what is not there yet, read everything back, and print what is safe there. Raises HostError that
    lists what could not be copied."""
    pulse = Pulse()
    run_on_place(lambda: _persist(workspace, place, pulse), pulse, place)


# -- restore -------------------------------------------------------------------------------------------------------


def _restore(workspace: Workspace, place: Path, pulse: Pulse) -> None:
    entered = _enter(workspace, place)
    with _leased(place, "restoring", pulse, entered):  # this also shows that the place can be written
        families = _families(place)
        for family in families:
            folder = workspace.checkpoints(family)
            theirs = place / "checkpoints" / family
            with exclusive(folder, f"restoring {family}"), _leased(theirs, "restoring", pulse, entered):
                print(f"{family}: {restore_family(theirs, folder, pulse)}")
        restored = kept = 0
        for part in PARTS:
            for path in files_under(place / part):
                relative = path.relative_to(place)
                here = workspace.root / relative
                if here.is_file() and here.stat().st_mtime_ns >= path.stat().st_mtime_ns:
                    kept += 1
                elif copy_if_different(place, workspace.root, relative, pulse):
                    restored += 1
        if not families and not restored + kept:
            print(f"{place} is empty: a first start.")
        else:
            print(f"{', '.join(PARTS)}: {restored} files restored, {kept} kept, which are as new or newer here")
    _note_same_disk(workspace, place)


# -- persist -------------------------------------------------------------------------------------------------------


def _persist(workspace: Workspace, place: Path, pulse: Pulse) -> None:
    entered = _enter(workspace, place)
    safe: list[str] = []
    problems: list[str] = []
    with _leased(place, "copying", pulse, entered):
        for family in _families(workspace.root):
            try:
                safe.append(_persist_family(workspace, entered, family, problems, pulse))
            except (OSError, AthanorError) as error:
                problems.append(f"checkpoints of {family}: {reason_of(error)}")
        for part in PARTS:
            report = _persist_files(workspace.root, entered, part, problems, pulse)
            if report:
                safe.append(report)
    if safe:
        print(f"Safe in {place}, each file read back:")
        for report in safe:
            print(f"  {report}")
        print("  A drive that uploads in the background may need longer (Colab: call drive.flush_and_unmount()).")
    _note_same_disk(workspace, place)
    if problems:
        shown = problems[:SHOWN] + ([f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else [])
        raise HostError(
            f"NOT in {place} ({workspace.root} has it):\n"
            + "\n".join(f"  {problem}" for problem in shown)
            + "\nMake room or attach the drive, and run the same command again."
        )
    if not safe:
        print(f"There is nothing in {workspace.root} to copy to {place} yet.")


def _persist_family(workspace: Workspace, place: Place, family: str, problems: list[str], pulse: Pulse) -> str:
    source, target = workspace.checkpoints(family), place.root / "checkpoints" / family
    place.require()
    with _leased(target, "copying", pulse, place):
        replica = CheckpointReplica(source, target, pulse)
        replica.sweep()
        problems += replica.update()
        if replica.damaged():
            replica.update()
            problems += [f"{target / name} is damaged there after a second copy" for name in replica.damaged()]
        return f"checkpoints of {family}: {shown(target)}"


def _persist_files(root: Path, place: Place, part: str, problems: list[str], pulse: Pulse) -> str | None:
    count = total = 0
    for path in files_under(root / part):
        relative = path.relative_to(root)
        try:
            there = place.root / relative
            copied = copy_if_different(root, place.root, relative, pulse, place)
            if not copied and sha256(path) != read_back(there, pulse):
                copy(path, there, pulse)
        except OSError as error:
            problems.append(f"{relative}: {reason_of(error)}")
        else:
            count, total = count + 1, total + path.stat().st_size
    return f"{part}: {count} files, {size(total)}" if count else None


# -- for both ------------------------------------------------------------------------------------------------------


def _families(root: Path) -> list[str]:
    """The runs that have checkpoints under `root`: "family", or "family/item" if the family fans out."""
    top = root / "checkpoints"
    found = [path.parent.relative_to(top) for path in (*top.glob(f"*/{INDEX}"), *top.glob(f"*/*/{INDEX}"))]
    return sorted(str(path) for path in found if "previous" not in path.parts)


def _enter(workspace: Workspace, place: Path) -> Place:
    require_place(workspace.root, place)
    entered = Place(place)
    entered.enter()
    return entered


@contextmanager
def _leased(folder: Path, purpose: str, pulse: Pulse, place: Place) -> Iterator[None]:
    lease = Lease(folder, purpose, print, place)
    lease.take(pulse)
    try:
        yield
    finally:
        lease.free()


def _note_same_disk(workspace: Workspace, place: Path) -> None:
    if workspace.root.exists() and workspace.root.stat().st_dev == place.stat().st_dev:
        print(f"  NOTE: {place} is on the same disk as {workspace.root}: it does not outlive that disk.")
