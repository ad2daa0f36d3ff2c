"""A family's checkpoints, brought from a second place: only what is whole, and only where it is newer."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from training.data.files import sync
from training.engine.checkpoints import checkpoint_folder as checkpoint
from training.engine.checkpoints.checkpoint_folder import BEFORE_LAST, LAST, Entry
from training.errors import HostError
from training.persist.copying import Changed, Pulse, copy

_STAGED = f"{checkpoint.TEMPORARY}restored-"


def restore_family(theirs: Path, ours: Path, pulse: Pulse) -> str:
    """Bring what `theirs` lists and `ours` lacks or has older; returns what was done, for people.

    The caller holds both. A run in `ours` that gives way to a newer one is set aside. Raises HostError if nothing that
    is listed is whole, OSError.
    """
    checkpoint.sweep(ours)
    listed, here = checkpoint.listed(theirs), checkpoint.listed(ours)
    if not listed:
        return "nothing there"
    standing = here[LAST].saved if LAST in here else 0.0
    if max(entry.saved for entry in listed.values()) <= standing:
        return _mend(theirs, listed, ours, here, pulse)
    staged: dict[str, Path] = {}
    whole: dict[str, Entry] = {}
    damaged: list[str] = []
    for name, entry in listed.items():
        if entry.sha256 in staged or _stage(theirs, name, entry, ours, staged, pulse):
            whole[name] = entry
        else:
            damaged.append(name)
    if not whole:
        raise HostError(
            f"{theirs} lists {', '.join(listed)}, and none of them is whole. If it cannot be mended, move that folder "
            "away: the training then begins anew."
        )
    newest = next(iter(whole.values()))
    if damaged:  # the place must not go on claiming to have what it has not
        for name in damaged:
            if (theirs / name).exists():
                (theirs / name).replace(theirs / f"{name}.damaged")
        checkpoint.write_index(theirs, {n: asdict(e) for n, e in ({LAST: newest} | whole).items()})
    told = f"damaged there, and passed over: {', '.join(damaged)}; " if damaged else ""
    if newest.saved <= standing:
        return told + _mend(theirs, whole, ours, here, pulse)
    if LAST in here and here[LAST].run_id != newest.run_id:
        aside = checkpoint.set_aside(ours, here[LAST].run_id)
        told += f"the older run that was here is now in {aside}; "
        here = {}
    names = {LAST: newest} | whole
    for name in sorted(names, key=lambda n: n == LAST):  # the newest last
        checkpoint.link(staged[names[name].sha256], ours / name)
    sync(ours)
    checkpoint.write_index(ours, {n: asdict(e) for n, e in (here | names).items()})
    checkpoint.sweep(ours)
    return f"{told}brought step {newest.step} of run {newest.run_id} ({', '.join(names)})"


def _mend(theirs: Path, listed: dict[str, Entry], ours: Path, here: dict[str, Entry], pulse: Pulse) -> str:
    """Nothing there is newer; what is lost or damaged here is brought all the same."""
    mended = []
    for name, entry in here.items():
        same = [n for n, other in listed.items() if other.sha256 == entry.sha256]
        staged: dict[str, Path] = {}
        if checkpoint.holds(ours / name, entry.sha256):
            continue
        if any(_stage(theirs, n, entry, ours, staged, pulse) for n in same):
            checkpoint.link(staged[entry.sha256], ours / name)
            mended.append(name)
    checkpoint.sweep(ours)
    done = f"; brought what was damaged here: {', '.join(mended)}" if mended else ""
    return f"step {here[LAST].step} is here, nothing newer is there{done}"


def _stage(theirs: Path, name: str, entry: Entry, ours: Path, staged: dict[str, Path], pulse: Pulse) -> bool:
    """Copy an entry's content to a temporary name in `ours`, verified; False if it is not there whole."""
    path = ours / f"{_STAGED}{entry.sha256[:16]}"
    for source in (theirs / name, theirs / BEFORE_LAST):  # where a copy was cut short, it is under the second
        try:
            copy(source, path, pulse, entry.sha256)
        except Changed:
            continue
        staged[entry.sha256] = path
        return True
    return False
