"""`persist` copies the results of a workspace to a second place that outlives this host; `restore` copies them back on
the next host.

The second place has the layout of the workspace. What can be made again (the cache) and what was set aside
(checkpoints/*/previous) is not copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.errors import AthanorError, HostError
from training.persist.copying import Pulse
from training.persist.destination import reason_of, run_on_place
from training.persist.folder import runs_in
from training.persist.restore import restore_family
from training.persist.second_place import SecondPlace, Target, place_at
from training.workspace import Workspace, exclusive

PARTS = ("data/manifests", "runs", "exports")
SHOWN = 8  # problems that are listed one by one


def restore(workspace: Workspace, place: Target) -> None:
    """Copy to the workspace what is missing there or older than in `place`. An empty place is no error (a first start).

    Checkpoints are verified by their SHA-256. Nothing newer is overwritten, and an older run is set aside. Raises
    HostError if the place cannot be used, is in use, or lists checkpoints of which none is intact.
    """
    pulse = Pulse()
    run_on_place(lambda: _restore(workspace, place, pulse), pulse, place)


def persist(workspace: Workspace, place: Target) -> None:
    """Copy to `place` what is not there yet, verify everything, and print what is safe there. Raises HostError that
    lists what could not be copied."""
    pulse = Pulse()
    run_on_place(lambda: _persist(workspace, place, pulse), pulse, place)


# -- restore -------------------------------------------------------------------------------------------------------


def _restore(workspace: Workspace, target: Target, pulse: Pulse) -> None:
    place = place_at(target)
    place.enter(workspace.root, print)
    with _leased(place, "", "restoring", pulse):  # this also shows that the place can be written
        runs = place.runs()
        for run in runs:
            folder = workspace.checkpoints(run)
            with exclusive(folder, f"restoring {run}"), _leased(place, run, "restoring", pulse):
                print(f"{run}: {restore_family(place.checkpoints(run), folder, pulse)}")
        restored, kept = place.restore_files(workspace.root, PARTS, pulse)
        if not runs and not restored + kept:
            print(f"{target} is empty: a first start.")
        else:
            print(f"{', '.join(PARTS)}: {restored} files restored, {kept} kept, which are as new or newer here")
    _print_notes(place, workspace)


# -- persist -------------------------------------------------------------------------------------------------------


def _persist(workspace: Workspace, target: Target, pulse: Pulse) -> None:
    place = place_at(target)
    place.enter(workspace.root, print)
    safe: list[str] = []
    problems: list[str] = []
    with _leased(place, "", "copying", pulse):
        for run in runs_in(workspace.root):
            try:
                safe.append(_persist_run(workspace, place, run, problems, pulse))
            except (OSError, AthanorError) as error:
                problems.append(f"checkpoints of {run}: {reason_of(error)}")
        for part in PARTS:
            report = place.persist_files(workspace.root, part, problems, pulse)
            if report:
                safe.append(report)
    if safe:
        print(f"Safe in {target}, {place.verified}:")
        for report in safe:
            print(f"  {report}")
        if isinstance(target, Path):
            print("  A drive that uploads in the background may need longer (Colab: call drive.flush_and_unmount()).")
    _print_notes(place, workspace)
    if problems:
        shown = problems[:SHOWN] + ([f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else [])
        remedy = "Make room or attach the drive" if isinstance(target, Path) else "Remove the cause"
        raise HostError(
            f"NOT in {target} ({workspace.root} has it):\n"
            + "\n".join(f"  {problem}" for problem in shown)
            + f"\n{remedy}, and run the same command again."
        )
    if not safe:
        print(f"There is nothing in {workspace.root} to copy to {target} yet.")


def _persist_run(workspace: Workspace, place: SecondPlace, run: str, problems: list[str], pulse: Pulse) -> str:
    place.require()
    with _leased(place, run, "copying", pulse):
        replica = place.replica(workspace.checkpoints(run), run, pulse)
        replica.sweep()
        problems += place.replicate(replica, workspace.root, (), pulse)
        if replica.damaged():
            replica.update()
            problems += [f"{place.shown(run, name)} is damaged there after a second copy" for name in replica.damaged()]
        return f"checkpoints of {run}: {replica.shown()}"


# -- for both ------------------------------------------------------------------------------------------------------


@contextmanager
def _leased(place: SecondPlace, run: str, purpose: str, pulse: Pulse) -> Iterator[None]:
    lease = place.lease(run, purpose, print)
    lease.take(pulse)
    try:
        yield
    finally:
        lease.free()


def _print_notes(place: SecondPlace, workspace: Workspace) -> None:
    for note in place.notes(workspace.root):
        print(note)
