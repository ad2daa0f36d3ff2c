"""The index of a folder of checkpoints: its files and their SHA-256. A file that is not listed is ignored.

    {"format": 1, "files": {"last.pt": {...}, ...}, "naming": [], "constants": {"constants-<sha256>.pt": {...}}}

`files` maps a name to its `Entry`. `naming`: names still to be linked to `last.pt`; not empty after a killed save.
`constants` (absent where there are none) lists the files that hold large constants: see constants.py.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.data.files import sync
from training.errors import UsageError

FORMAT = 1
LAST, BEFORE_LAST, BEST = "last.pt", "before_last.pt", "best.pt"
INDEX = "index.json"
TEMPORARY = ".saving-"
CONSTANTS = "constants-*.pt"  # a glob pattern
DIGEST = re.compile(r"[0-9a-f]{64}")  # SHA-256 in hex


def epoch_name(epoch: int) -> str:
    """File name of the checkpoint kept after `epoch` (1 for the first)."""
    return f"checkpoint_epoch_{epoch}.pt"


def step_name(step: int) -> str:
    """File name of the checkpoint kept after `step` optimizer steps, or rounds."""
    return f"checkpoint_step_{step}.pt"


def constants_name(digest: str) -> str:
    """Name of the constants file with this SHA-256. Raises ValueError if `digest` is not one: a path built from it must
    not lead out of the folder."""
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        raise ValueError(f"{digest!r} is not a SHA-256")
    return f"constants-{digest}.pt"


def discard(temporary: Path) -> None:
    """Remove a temporary file, if it is there."""
    with suppress(OSError):  # the error of the write is the one to report; `sweep` removes the file later
        temporary.unlink(missing_ok=True)


@dataclass(frozen=True)
class Entry:
    """The entry of one file in the index."""

    sha256: str
    step: int  # optimizer steps done
    epoch: int  # epochs finished
    value: float | None  # the monitored validation metric of these weights (lower is better); None: not measured
    run_id: str
    saved: float  # Unix time; in one folder, later is larger
    constants: str = ""  # SHA-256 of the constants file that it refers to; empty: it holds its constants

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        out = {"step": self.step, "epoch": self.epoch, "value": self.value, "run_id": self.run_id}
        out |= {"sha256": self.sha256, "saved": self.saved}
        return out | ({"constants": self.constants} if self.constants else {})


@dataclass
class Index:
    """The content of an index.json, in memory."""

    files: dict[str, Entry] = field(default_factory=dict)
    naming: list[str] = field(default_factory=list)  # names still to be linked to last.pt
    constants: dict[str, dict[str, Any]] = field(default_factory=dict)  # file name -> {"sha256", "bytes"}

    @classmethod
    def read(cls, folder: Path) -> Index:
        """The index in `folder`; an empty one where there is none. Raises UsageError if it is damaged."""
        try:
            return cls.parsed(json.loads((folder / INDEX).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError) as error:
            raise UsageError(
                f"{folder / INDEX} cannot be read ({error}). Without it no checkpoint in {folder} can be trusted: "
                "restore it, or move the folder away to start a new run."
            ) from None

    @classmethod
    def parsed(cls, index: Any) -> Index:
        """The index with the JSON value `index`. Raises ValueError if it is not one."""
        try:
            files, naming = dict(index["files"]), list(index.get("naming", ()))
            for name in (*files, *naming):  # files are linked and deleted by these names
                if not isinstance(name, str) or Path(name).name != name:
                    raise ValueError(f"{name!r} is not the name of a file in this folder")
            entries = {name: Entry(**values) for name, values in files.items()}
            for entry in entries.values():
                if entry.constants:
                    constants_name(entry.constants)  # raises ValueError if it is not a SHA-256
            constants = {name: dict(about) for name, about in index.get("constants", {}).items()}
            for name, about in constants.items():
                if name != constants_name(about["sha256"]):
                    raise ValueError(f"{name!r} is not the name of a constants file in this folder")
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(str(error)) from error
        return cls(entries, naming, constants)

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        value: dict[str, Any] = {
            "format": FORMAT,
            "files": {name: entry.plain() for name, entry in self.files.items()},
            "naming": list(self.naming),
        }
        return value | ({"constants": self.constants} if self.constants else {})

    def write(self, folder: Path) -> None:
        """Replace the index in `folder`: temporary file, fsync, rename, fsync of the folder. Raises OSError."""
        temporary = folder / f"{TEMPORARY}{os.getpid()}-{INDEX}"
        try:
            with temporary.open("w", encoding="utf-8") as file:
                json.dump(self.plain(), file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(folder / INDEX)
        finally:
            discard(temporary)
        sync(folder)

    def newest_first(self) -> dict[str, Entry]:
        """`files`, newest content first: `last.pt` before all others, although after a rollback it may be of an earlier
        step."""
        order = {LAST: 0, BEFORE_LAST: 1}
        by = sorted(self.files.items(), key=lambda e: (order.get(e[0], 2), -e[1].step, -e[1].saved, e[0] != BEST))
        return dict(by)

    def of_content(self, digest: str) -> Entry | None:
        """The newest entry with this content, or None."""
        return next((entry for entry in self.newest_first().values() if entry.sha256 == digest), None)

    def epochs(self) -> list[str]:
        """The listed `checkpoint_epoch_N.pt` and `checkpoint_step_N.pt`, oldest first."""
        kept = (name for name in self.files if name.startswith(("checkpoint_epoch_", "checkpoint_step_")))
        return sorted(kept, key=lambda name: (self.files[name].step, name))

    def without(self, names: Iterable[str]) -> Index:
        """This index without the files `names`, and without the constants that no other file refers to."""
        gone = set(names)
        files = {name: entry for name, entry in self.files.items() if name not in gone}
        used = {entry.constants for entry in files.values()}
        kept = {name: about for name, about in self.constants.items() if about["sha256"] in used}
        return Index(files, [name for name in self.naming if name not in gone], kept)
