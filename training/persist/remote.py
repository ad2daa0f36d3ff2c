"""A replica of one family's checkpoints in a second place. As in the first, each file is intact or absent, and the
index is written last."""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress
from pathlib import Path

from training.data.files import sync
from training.engine.checkpoints.checkpoint_folder import CheckpointFolder
from training.engine.checkpoints.index import BEFORE_LAST, BEST, CONSTANTS, LAST, Entry, Index, constants_name
from training.engine.checkpoints.index import TEMPORARY as SAVING
from training.errors import HostError, UsageError
from training.persist.copying import TEMPORARY, Changed, Pulse, copy, read_back

ATTEMPTS = 5  # at a copy whose source is replaced by a save meanwhile
SETTLING = 5.0  # seconds within which a save that has renamed a file also lists it


class CheckpointReplica:
    """Copies what the index of `source` lists to `target`.

    For one process at a time: the caller holds a lease. Only this object writes to `target`, so the index there is
    parsed once, and kept in memory until an error occurs (`forget`). The index of `source` is written by the training:
    it is parsed again for each copy, and once more if a file does not match it, to distinguish a file that was replaced
    from one that is damaged.
    """

    def __init__(self, source: Path, target: Path, pulse: Pulse):
        self.source, self.target, self.pulse = source, target, pulse
        self._listed: Index | None = None  # the index of `target`; None: not read yet
        self._verified: dict[str, str] = {}  # name in `target` -> SHA-256, as read back by this process
        self._unverified = False  # whether all files in `target` must be read back before the next copy

    def shown(self) -> str:
        """A description of the checkpoints in `target`, for people."""
        return shown(self.target)

    def sweep(self) -> None:
        """Remove what a killed copy left. Raises OSError."""
        for pattern in (f"{TEMPORARY}*", f"{SAVING}*"):
            for litter in self.target.glob(pattern):
                litter.unlink(missing_ok=True)

    def forget(self) -> None:
        """Discard what is known about `target`, after a failure."""
        self._listed = None
        self._verified.clear()

    def require_verification(self) -> None:
        """Files in `target` may have been lost (it was detached): the next `update` reads all of them back, and copies
        again what is missing or damaged."""
        self.forget()
        self._unverified = True

    def update(self) -> list[str]:
        """Copy all checkpoints that are missing or older in `target`; returns a message for each file that is damaged
        in `source` and was left out. Another run's checkpoints are set aside in `target`. Raises HostError if `target`
        is ahead in the same run, OSError."""
        for _ in range(ATTEMPTS):
            try:
                return self._update()
            except Changed:  # a save replaced a file while it was copied
                self.pulse.beat()
        raise HostError(f"the checkpoints in {self.source} change faster than they can be copied")

    def damaged(self) -> list[str]:
        """Read all files back that are listed in `target`; returns the names of those that are missing or damaged,
        which the next `update` copies again. Raises OSError."""
        there = Index.read(self.target)
        bad = self._damaged(there)
        self._listed = there
        return bad

    def _damaged(self, there: Index) -> list[str]:
        """Removes files that are missing or damaged in `target` from the index `there`; returns their names."""
        expected = {name: entry.sha256 for name, entry in there.files.items()}
        expected |= {name: about["sha256"] for name, about in there.constants.items()}
        bad = []
        for name, digest in expected.items():
            path = self.target / name
            if not path.is_file() or read_back(path, self.pulse) != digest:
                bad.append(name)
        for listed in (there.files, there.constants):
            for name in bad:
                listed.pop(name, None)
        return bad

    def _update(self) -> list[str]:
        mine = Index.read(self.source)
        if LAST not in mine.files:
            return []
        there = self._load(mine)
        problems = self._update_constants(mine, there)
        epochs = mine.epochs()[::-1]  # the newest first
        # From the second update on, before_last.pt is the file that was copied as last.pt before.
        others = [BEFORE_LAST] if BEFORE_LAST in mine.files and BEFORE_LAST not in there.files else []
        present = {about["sha256"] for about in there.constants.values()} | {""}
        for name in (*best_first(mine), *others, *epochs):
            entry = mine.files[name]
            if entry.constants not in present:  # of no use without them
                continue
            if name in there.files and there.files[name].sha256 == entry.sha256 and self._same_size(name):
                continue
            try:
                self._copy(name, entry, there)
            except Changed:
                if not still_listed(self.source, name, entry, self.pulse):
                    raise
                problems.append(f"{self.source / name} is missing or damaged")
        self._drop(there, [name for name in there.files if name not in mine.files and name != BEFORE_LAST])
        return problems

    def _update_constants(self, mine: Index, there: Index) -> list[str]:
        """Copy constants before the checkpoints that refer to them; they are listed together with the first of these.
        Returns a message for each file that is damaged in `source`."""
        problems = []
        for digest in {entry.constants for entry in mine.files.values()} - {""}:
            name = constants_name(digest)
            if name in there.constants and self._same_size(name):
                continue
            try:
                copy(self.source / name, self.target / name, self.pulse, digest)
            except Changed:
                if digest not in {entry.constants for entry in Index.read(self.source).files.values()}:
                    raise
                there.constants.pop(name, None)
                problems.append(f"{self.source / name} is missing or damaged")
            else:
                there.constants[name] = {"sha256": digest, "bytes": (self.target / name).stat().st_size}
        return problems

    def _drop(self, there: Index, old: list[str]) -> None:
        """Delete the checkpoints `old`, and constants that no other one refers to; the index first."""
        left = there.without(old)
        gone = [*old, *(there.constants.keys() - left.constants.keys())]
        if gone:
            there.files, there.constants = left.files, left.constants
            self._list(there)
            for name in gone:
                self._verified.pop(name, None)
                (self.target / name).unlink(missing_ok=True)

    def _load(self, mine: Index) -> Index:
        if self._listed is None:
            listed = Index.read(self.target)
            theirs = listed.files.get(LAST) or listed.files.get(BEST)
            if theirs is not None and theirs.run_id != mine.files[LAST].run_id:
                CheckpointFolder(self.target).set_aside(theirs.run_id)
                listed = Index()
            require_not_ahead(self.source, self.target)
            for path in self.target.glob(CONSTANTS):  # left by a copy that was killed before it listed them
                if path.name not in listed.constants:
                    path.unlink()
            if self._unverified:
                self._damaged(listed)
                self._unverified = False
            self._listed = listed
        return self._listed

    def _same_size(self, name: str) -> bool:
        try:
            return (self.target / name).stat().st_size == (self.source / name).stat().st_size
        except FileNotFoundError:
            return False

    def _copy(self, name: str, entry: Entry, there: Index) -> None:
        """Copy one checkpoint to its name in `target`, and list it.

        As in a save, the content that the index lists as `last.pt` is moved to `before_last.pt` before the new one gets
        its name, and the folder is synced before the index is written: a copy that is cut short anywhere leaves a
        replica whose index finds its newest content under one of the two names.
        """
        staged = self.target / f"{TEMPORARY}{name}"
        try:
            if not self._linked(entry.sha256, there, staged):
                copy(self.source / name, staged, self.pulse, entry.sha256)
            if name == LAST and LAST in there.files:
                last = there.files[LAST]
                if self._holds(LAST, last.sha256):
                    (self.target / LAST).replace(self.target / BEFORE_LAST)
                    self._verified[BEFORE_LAST] = self._verified.pop(LAST)
                if self._holds(BEFORE_LAST, last.sha256):
                    there.files[BEFORE_LAST] = last
            staged.replace(self.target / name)
            sync(self.target)
        finally:
            with suppress(OSError):
                staged.unlink(missing_ok=True)
        self._verified[name] = entry.sha256
        there.files[name] = entry
        self._list(there)

    def _linked(self, digest: str, there: Index, staged: Path) -> bool:
        """Whether `staged` could be made as a hard link to a file in `target` with the same content."""
        for name, entry in there.files.items():
            if entry.sha256 == digest:
                try:
                    os.link(self.target / name, staged)
                except OSError:  # a drive without hard links, or nothing to link to: it is copied
                    return False
                if self._holds(name, digest):
                    return True
                staged.unlink()
        return False

    def _holds(self, name: str, digest: str) -> bool:
        """Whether the file in `target` has this SHA-256; it is read once."""
        path = self.target / name
        if self._verified.get(name) != digest and path.is_file() and read_back(path, self.pulse) == digest:
            self._verified[name] = digest
        return self._verified.get(name) == digest

    def _list(self, there: Index) -> None:
        listed = Index(there.files, [], there.constants)
        listed.write(self.target)
        self.pulse.beat()
        if Index.read(self.target) != listed:
            raise OSError(errno.EIO, "the index read back is not the one written", str(self.target))


def best_first(listing: Index) -> list[str]:
    """The first names to be copied. The best checkpoint comes before the last one, whose progress refers to it: a copy
    that is cut short between the two would be continued without the model that is to be exported."""
    return [name for name in (BEST, LAST) if name in listing.files]


def still_listed(source: Path, name: str, entry: Entry, pulse: Pulse) -> bool:
    """Whether an entry that its file in `source` does not match is still listed after `SETTLING` seconds. If so, the
    file is damaged. If not, the copy was made during a save, which renames its files before it writes the index."""
    until = time.monotonic() + SETTLING
    while Index.read(source).files.get(name) == entry:
        if time.monotonic() >= until:
            return True
        pulse.beat()
        time.sleep(0.02)
    return False


def require_not_ahead(source: Path, target: Path) -> None:
    """Raise HostError if the newest checkpoint in `target` was saved after the newest in `source`: it must be restored
    first, not overwritten."""
    refuse_if_ahead(Index.read(target), Index.read(source), target, source)


def refuse_if_ahead(there: Index, here: Index, target: Path | str, source: Path) -> None:
    """The same, of indexes that were read."""
    # a copy that was cut short may list the best checkpoint alone
    theirs, ours = there.files.get(LAST) or there.files.get(BEST), here.files.get(LAST)
    if theirs is not None and (ours is None or theirs.saved > ours.saved):
        held = f"only step {ours.step}" if ours else "none"
        raise HostError(
            f"{target} is ahead: it holds step {theirs.step} of run {theirs.run_id}, and {source} holds {held}. "
            "Restore it first: python -m training restore (--resume never starts a new run, and keeps it aside)."
        )


def shown(folder: Path) -> str:
    """A description of the checkpoints that a folder's index lists, for people."""
    try:
        return shown_index(Index.read(folder))
    except (OSError, UsageError) as error:
        return f"nothing that can be read ({error})"


def shown_index(index: Index) -> str:
    """A description of the checkpoints that an index lists, for people."""
    files = index.files
    if LAST not in files:
        return "nothing"
    best = f", best of step {files[BEST].step}" if BEST in files else ""
    epochs = sum(name.startswith("checkpoint_epoch_") for name in files)
    return f"step {files[LAST].step}{best}" + (f", {epochs} kept epochs" if epochs else "")
