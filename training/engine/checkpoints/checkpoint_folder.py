"""A folder of checkpoints, each of which is intact or absent.

A save writes a temporary file, fsyncs it, renames it to `last.pt`, fsyncs the folder, and only then lists its SHA-256
in `index.json` (itself replaced atomically). A file whose content is not listed is ignored, and the checkpoint before
it is used, which `before_last.pt` keeps. A kill at any moment leaves a verified newest and a verified best checkpoint.
`best.pt`, `checkpoint_epoch_N.pt` and `checkpoint_step_N.pt` are further names (hard links where the file system has
them) of the same content. The index lists names that are still to be linked, so that the next start links those that a
kill prevented.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.data.files import Signature, disk_errors, sha256, signature, sync
from training.engine.checkpoints import disk_space
from training.engine.checkpoints.checkpoint_file import has, link, write_state
from training.engine.checkpoints.constants import StoredOnce, are_large
from training.engine.checkpoints.index import (
    BEFORE_LAST,
    BEST,
    CONSTANTS,
    INDEX,
    LAST,
    TEMPORARY,
    Entry,
    Index,
    constants_name,
    discard,
)
from training.errors import HostError, UsageError


class CheckpointFolder:
    """The checkpoints in the folder `path`, which need not exist yet.

    Each method parses the index once, at its beginning, and uses that version. It is not cached between calls, since
    another process may replace it. Only the run that holds the folder's lock saves; but `restore` writes the index
    before a run begins, and an export or a replica reads it while a run saves. A reader may thus use an index that is
    one save old. That is safe: the files that it lists still exist, under the same name or, in the case of `last.pt`,
    under `before_last.pt`.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self._written: tuple[Signature, str] | None = None  # of the last.pt that this object wrote: not hashed
        self._stored = StoredOnce(self.path)

    # -- write -----------------------------------------------------------------------------------------------------

    def save(self, state: Mapping[str, Any], entry: Mapping[str, Any], names: Sequence[str] = ()) -> Path:
        """Write `state` as `last.pt`, and under the further `names`; returns the path of `last.pt`.

        `entry`: step, epoch, value and run_id of Entry. Large constants in `state` go to a separate file
        (constants.py). Raises HostError when it cannot be written (no space, no permission); the earlier checkpoints
        are then intact.

        The order of these steps makes a save safe, and must not be changed:
        1. The state is written completely, and fsynced, under a temporary name.
        2. `before_last.pt` is linked to the verified newest checkpoint, whose content now has two names.
        3. The rename to `last.pt` replaces one of the two. The index still lists the old content as `last.pt`; a reader
           finds it under `before_last.pt`.
        4. The folder is fsynced before the index is written. In the other order a power cut could keep the new index
           and lose the rename: the index would list content that no file has.
        5. The index lists the new `last.pt`, and in `naming` the further names.
        6. The further names are linked only now, when their content is listed: at every moment the index lists the
           content of `best.pt`.
        """
        temporary = self.path / f"{TEMPORARY}{os.getpid()}"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            state, reference, stored = self._constants_outside(state)
            digest = write_state(temporary, state)
            index = Index.read(self.path)
            self._keep_before_last(index)
            temporary.replace(self.path / LAST)
            sync(self.path)
            # `saved` must increase with each save in a folder, as it decides which of two replicas is newer (persist).
            # The clock alone does not ensure that: it may be set back, and a run moves to hosts whose clocks differ.
            before = index.files.get(LAST)
            saved = max(time.time(), before.saved + 0.001 if before else 0.0)
            index.files[LAST] = Entry(**entry, sha256=digest, saved=saved, constants=reference)
            index.constants |= stored
            index.naming = [name for name in names if name != LAST]
            index.write(self.path)
            self._give_names(index)
            self._written = signature(self.path / LAST), digest
        except OSError as error:
            raise self._not_saved(error) from error
        finally:
            discard(temporary)
        return self.path / LAST

    def _constants_outside(self, state: Mapping[str, Any]) -> tuple[Mapping[str, Any], str, dict[str, Any]]:
        """`state` with a reference in place of large constants, the reference, and the index's list of their file."""
        constants = state.get("constants") or {}
        if not are_large(constants):
            return state, "", {}
        digest, about = self._stored.put(constants)
        return {**state, "constants": {}, "constants_ref": digest}, digest, {constants_name(digest): about}

    def _keep_before_last(self, index: Index) -> None:
        """Make `before_last.pt` the content that the index lists as `last.pt`, under whichever of the two names it is.

        After a save that was killed between its rename and its listing, `last.pt` is not listed. Then `before_last.pt`
        is the verified checkpoint, and must not be replaced by an unverified file.
        """
        last = index.files.get(LAST)
        if last is None:
            return
        if self.holds(LAST, last.sha256):
            link(self.path / LAST, self.path / BEFORE_LAST)
            index.files[BEFORE_LAST] = last
        elif BEFORE_LAST in index.files and self.holds(BEFORE_LAST, last.sha256):
            index.files[BEFORE_LAST] = last

    def _give_names(self, index: Index) -> None:
        """Link `last.pt`, which is listed, to the names in `naming`, and list them."""
        if index.naming:
            for name in index.naming:
                link(self.path / LAST, self.path / name)
                index.files[name] = index.files[LAST]
            sync(self.path)
            index.naming = []
            index.write(self.path)

    def apply_retention(self, keep: int) -> None:
        """Delete the oldest `checkpoint_epoch_N.pt` beyond the newest `keep`, and constants that no listed checkpoint
        refers to; `best.pt` and `last.pt` are never touched. Raises HostError where nothing can be written."""
        try:
            index = Index.read(self.path)
            old = index.epochs()[:-keep]
            left = index.without(old)
            unused = index.constants.keys() - left.constants.keys()
            if old or unused:
                left.naming = []
                left.write(self.path)
                for name in (*old, *unused):
                    (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            raise self._not_saved(error) from error

    def evict(self) -> str | None:
        """Delete the least needed checkpoint on a full disk; returns its name, or None if none may be deleted.

        That is the oldest `checkpoint_epoch_N.pt` or `checkpoint_step_N.pt`; when none is left, `before_last.pt`, if
        `last.pt` and a third checkpoint were read and are intact. Never `best.pt`, `last.pt`, or a hard link to one of
        them or to a file outside this folder, since deleting that would free nothing. Raises HostError where nothing
        can be written.
        """
        index = Index.read(self.path)
        try:
            about = {name: (self.path / name).stat() for name in index.files if (self.path / name).is_file()}
            for name in (*index.epochs(), BEFORE_LAST):
                if name not in about:
                    continue
                same = [other for other in about if about[other].st_ino == about[name].st_ino]
                if {LAST, BEST} & set(same) or about[name].st_nlink > len(same):
                    continue
                if BEFORE_LAST in same and not self._can_spare(index, same):
                    continue
                left = index.without(same)
                # Files first: otherwise the index would have to be written while the disk is full. A kill in between
                # leaves names in the index whose files are gone; readers ignore these.
                for other in (*same, *(index.constants.keys() - left.constants.keys())):
                    (self.path / other).unlink(missing_ok=other not in same)
                left.naming = index.naming
                left.write(self.path)
                return name
        except OSError as error:
            raise self._not_saved(error) from error
        return None

    def _can_spare(self, index: Index, names: Sequence[str]) -> bool:
        """Whether `last.pt` is intact, and a checkpoint of other content that is not among `names`."""
        last = index.files[LAST].sha256
        others = [n for n, entry in index.files.items() if n not in names and n != LAST and entry.sha256 != last]
        return self.holds(LAST, last) and any(self.holds(n, index.files[n].sha256) for n in others)

    def sweep(self) -> None:
        """Clean up after a killed save: remove temporary files, link the names that were still to be linked, delete
        constants that are not listed. Only for the holder of the folder's lock. Raises HostError where nothing can be
        written."""
        with disk_errors(self.path):
            for litter in self.path.glob(f"{TEMPORARY}*"):
                litter.unlink(missing_ok=True)
            index = Index.read(self.path)
            if index.naming and self.holds(LAST, index.files[LAST].sha256):
                self._give_names(index)
            if index.files:
                for path in self.path.glob(CONSTANTS):
                    if path.name not in index.constants:
                        path.unlink()

    def set_aside(self, run_id: str) -> Path | None:
        """Move a run's checkpoints to `previous/<run_id>/`; returns that folder, or None if there was nothing to move.

        `last.pt` is moved last, so that after a kill the next start finds it and repeats the call. Constants are linked
        to the new folder before the first move, and deleted here after the last one: at every moment a checkpoint has
        its constants in the same folder.
        """
        constants = list(self.path.glob(CONSTANTS))
        files = [path for path in self.path.glob("*.pt") if not path.is_dir() and path not in constants]
        if not files:
            return None
        aside = self.path / "previous" / run_id
        number = 1
        while (aside / LAST).exists():
            number += 1
            aside = self.path / "previous" / f"{run_id}-{number}"
        aside.mkdir(parents=True, exist_ok=True)
        for litter in aside.glob(f"{TEMPORARY}*"):  # of an earlier attempt that was killed
            litter.unlink()
        if (self.path / INDEX).exists():
            shutil.copyfile(self.path / INDEX, aside / INDEX)
            sync(aside / INDEX)
        for path in constants:
            link(path, aside / path.name)
        if constants:
            sync(aside)
        for path in sorted(files, key=lambda p: p.name == LAST):
            path.replace(aside / path.name)
        sync(aside)
        (self.path / INDEX).unlink(missing_ok=True)
        for path in constants:
            path.unlink()
        sync(self.path)
        return aside

    def _not_saved(self, error: OSError) -> HostError:
        try:
            free = f" ({disk_space.free(self.path) / 1e6:,.0f} MB free)"
        except OSError:  # the disk is gone
            free = ""
        return HostError(
            f"Could not save a checkpoint to {self.path}: {error.strerror or error}{free}. "
            f"The checkpoints saved before{self._newest_step()} are untouched; make room or fix the folder, and run "
            "the same command again."
        )

    def _newest_step(self) -> str:
        try:
            last = Index.read(self.path).files.get(LAST)
        except UsageError:  # the disk is gone
            return ""
        return f", the newest of step {last.step}," if last else ""

    # -- read ------------------------------------------------------------------------------------------------------

    def listed(self) -> dict[str, Entry]:
        """The entries of the index, newest content first. A listed file may still be damaged: see `damaged`."""
        return Index.read(self.path).newest_first()

    def holds(self, name: str, digest: str) -> bool:
        """Whether the file `name` has this SHA-256. A `last.pt` that this object wrote is not hashed again as long as
        its inode, size and times are unchanged: reading gigabytes twice for each save would delay the next one."""
        path = self.path / name
        if name == LAST and self._written and path.is_file() and self._written[0] == signature(path):
            return self._written[1] == digest
        return has(path, digest)

    def damaged(self) -> list[str]:
        """Listed names whose file is missing, or has content that the index does not list."""
        index = Index.read(self.path)
        return [name for name in index.newest_first() if not self._intact(name, index)]

    def all_damaged(self) -> bool:
        """Whether listed files exist, and none of them is intact."""
        index = Index.read(self.path)
        there = [name for name in index.files if (self.path / name).is_file()]
        return bool(there) and not any(self._intact(name, index) for name in there)

    def damage(self) -> str:
        """The message for `all_damaged`."""
        return (
            f"None of the checkpoints in {self.path} is intact: the SHA-256 of {', '.join(self.damaged())} does not "
            f"match {INDEX}"
        )

    def _intact(self, name: str, index: Index) -> bool:
        path = self.path / name
        return path.is_file() and index.of_content(sha256(path)) is not None

    def latest(self) -> Path | None:
        """The newest intact checkpoint, or None."""
        return self._find(Index.read(self.path).newest_first())

    def best(self) -> Path | None:
        """`best.pt`; if it is damaged, the intact checkpoint with the lowest monitored value; None if there is none."""
        path = self.path / BEST
        # Hash the file before reading the index: a run that saves meanwhile lists new content before it links it.
        digest = sha256(path) if path.is_file() else ""
        index = Index.read(self.path)
        if index.of_content(digest):
            return path
        entries = index.newest_first()
        valued = [(entry.value, name) for name, entry in entries.items() if entry.value is not None]
        return self._find({name: entries[name] for _, name in sorted(valued)})

    def _find(self, entries: Mapping[str, Entry]) -> Path | None:
        """The file of the first of `entries` whose content exists: under its own name, or, after a save that was killed
        between its rename and its listing, under `before_last.pt`."""
        for name, entry in entries.items():
            for path in (self.path / name, self.path / BEFORE_LAST):
                if has(path, entry.sha256):
                    return path
        return None
