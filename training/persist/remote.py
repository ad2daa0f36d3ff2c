"""The checkpoints of one family in a second place, with the discipline of the first: whole or absent, listed last."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from training.data.files import sync
from training.engine.checkpoints import checkpoint_folder as checkpoint
from training.engine.checkpoints.checkpoint_folder import BEFORE_LAST, BEST, LAST
from training.errors import HostError, UsageError
from training.persist.copying import TEMPORARY, Changed, Pulse, copy, read_back
from training.persist.destination import asked

ATTEMPTS = 5  # at a copy whose source is replaced meanwhile


class CheckpointReplica:
    """What `source` lists, brought to `target`.

    Not for two processes at a time: the caller holds a claim.
    """

    def __init__(self, source: Path, target: Path, pulse: Pulse):
        self.source, self.target, self.pulse = source, target, pulse
        self._listed: dict[str, Any] | None = None  # what the index there says; None: not read yet
        self._verified: dict[str, str] = {}  # name there -> digest, as read back by this process

    def sweep(self) -> None:
        """Remove what a killed copy left. Raises OSError."""
        for pattern in (f"{TEMPORARY}*", f"{checkpoint.TEMPORARY}*"):
            for litter in self.target.glob(pattern):
                litter.unlink(missing_ok=True)

    def forget(self) -> None:
        """After a failure nothing is known of the place."""
        self._listed = None
        self._verified.clear()

    def carry(self) -> list[str]:
        """Bring everything; returns what is damaged in `source` and stays behind. Another run's checkpoints are set
        aside there. Raises HostError if the place is ahead in the same run, OSError."""
        for _ in range(ATTEMPTS):
            try:
                return self._carry()
            except Changed:  # a save replaced a file while it was copied
                self.pulse.beat()
        raise HostError(f"the checkpoints in {self.source} change faster than they can be copied")

    def damaged(self) -> list[str]:
        """Read everything back that is listed there; the names of what is missing or damaged, which the next `carry`
        brings anew. Raises OSError."""
        there = checkpoint.read_index(self.target)["files"]
        bad = []
        for name, entry in there.items():
            path = self.target / name
            if not path.is_file() or read_back(path, self.pulse) != entry["sha256"]:
                bad.append(name)
        self._listed = {name: entry for name, entry in there.items() if name not in bad}
        return bad

    def _carry(self) -> list[str]:
        mine = checkpoint.read_index(self.source)["files"]
        if LAST not in mine:
            return []
        there = self._load(mine)
        epochs = sorted((n for n in mine if n not in (LAST, BEST, BEFORE_LAST)), key=lambda n: -mine[n]["epoch"])
        problems = []
        # The one before last is, from the second time on, what was copied as last.pt before.
        others = [name for name in (BEST, BEFORE_LAST) if name in mine and (name == BEST or name not in there)]
        for name in (LAST, *others, *epochs):
            if there.get(name, {}).get("sha256") == mine[name]["sha256"] and self._sized(name):
                continue
            try:
                self._bring(name, mine[name], there)
            except Changed:
                if checkpoint.read_index(self.source)["files"].get(name) != mine[name]:
                    raise
                problems.append(f"{self.source / name} is missing or damaged")
        old = [name for name in there if name not in mine and name != BEFORE_LAST]
        if old:
            for name in old:
                del there[name]
                self._verified.pop(name, None)
            self._list(there)
            for name in old:
                (self.target / name).unlink(missing_ok=True)
        return problems

    def _load(self, mine: dict[str, Any]) -> dict[str, Any]:
        if self._listed is None:
            listed = checkpoint.read_index(self.target)["files"]
            if LAST in listed and listed[LAST]["run_id"] != mine[LAST]["run_id"]:
                checkpoint.set_aside(self.target, listed[LAST]["run_id"])
                listed = {}
            require_not_ahead(self.source, self.target)
            self._listed = listed
        return self._listed

    def _sized(self, name: str) -> bool:
        try:
            return (self.target / name).stat().st_size == (self.source / name).stat().st_size
        except FileNotFoundError:
            return False

    def _bring(self, name: str, entry: dict[str, Any], there: dict[str, Any]) -> None:
        staged = self.target / f"{TEMPORARY}{name}"
        try:
            if not self._linked(entry["sha256"], there, staged):
                copy(self.source / name, staged, self.pulse, entry["sha256"])
            if name == LAST and LAST in there:
                # Until the index is written, what it calls last is found under the other name; after a kill, it is.
                if self._holds(LAST, there[LAST]["sha256"]):
                    (self.target / LAST).replace(self.target / BEFORE_LAST)
                    self._verified[BEFORE_LAST] = self._verified.pop(LAST)
                if self._holds(BEFORE_LAST, there[LAST]["sha256"]):
                    there[BEFORE_LAST] = there[LAST]
            staged.replace(self.target / name)
            sync(self.target)
        finally:
            with suppress(OSError):
                staged.unlink(missing_ok=True)
        self._verified[name] = entry["sha256"]
        there[name] = entry
        self._list(there)

    def _linked(self, digest: str, there: dict[str, Any], staged: Path) -> bool:
        """Whether content that is there already could be given a further name."""
        for name, entry in there.items():
            if entry["sha256"] == digest:
                try:
                    os.link(self.target / name, staged)
                except OSError:  # a drive without hard links, or nothing to link to: it is copied
                    return False
                if self._holds(name, digest):
                    return True
                staged.unlink()
        return False

    def _holds(self, name: str, digest: str) -> bool:
        """Whether the file there has this content; read once."""
        path = self.target / name
        if self._verified.get(name) != digest and path.is_file() and read_back(path, self.pulse) == digest:
            self._verified[name] = digest
        return self._verified.get(name) == digest

    def _list(self, there: dict[str, Any]) -> None:
        checkpoint.write_index(self.target, there)
        self.pulse.beat()
        if checkpoint.read_index(self.target)["files"] != there:
            raise OSError(errno.EIO, "the index read back is not the one written", str(self.target))


def require_not_ahead(source: Path, target: Path) -> None:
    """Raise HostError if the newest checkpoint in `target` was saved after the newest in `source`: it must be brought
    here first, not overwritten."""
    theirs, ours = checkpoint.read_index(target)["files"].get(LAST), checkpoint.read_index(source)["files"].get(LAST)
    if theirs is not None and (ours is None or theirs["saved"] > ours["saved"]):
        here = f"only step {ours['step']}" if ours else "none"
        raise HostError(
            f"{target} is ahead: it holds step {theirs['step']} of run {theirs['run_id']}, and {source} holds {here}. "
            "Bring it here first: python -m training restore (--resume never starts anew, and keeps it aside)."
        )


def require_restored(root: Path, persist: Path, family: str) -> None:
    """Raise HostError if `persist` holds more of `family` than `root` does: a training would begin anew beside it."""
    part = Path("checkpoints") / family
    asked(lambda: require_not_ahead(root / part, persist / part), Pulse(), persist)


def shown(folder: Path) -> str:
    """What a folder's index lists, for people."""
    try:
        files = checkpoint.read_index(folder)["files"]
    except (OSError, UsageError) as error:
        return f"nothing that can be read ({error})"
    if LAST not in files:
        return "nothing"
    best = f", best of step {files[BEST]['step']}" if BEST in files else ""
    epochs = sum(name.startswith("checkpoint_epoch_") for name in files)
    return f"step {files[LAST]['step']}{best}" + (f", {epochs} kept epochs" if epochs else "")
