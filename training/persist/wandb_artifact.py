"""A trained family as an artifact of Weights & Biases, from which other hosts restore it (`--from-wandb`).

The artifact has the layout of a `--persist` folder: `checkpoints/RUN/` with the best and the newest checkpoint and an
index of these, and `runs/RUN/ID/` with the logs. Its metadata name the run, and the SHA-256 of every file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from training.data.files import sha256
from training.engine.checkpoints.checkpoint_folder import CheckpointFolder
from training.engine.checkpoints.index import BEST, DIGEST, LAST, Index, constants_name
from training.engine.tracking.tracker import LOG, METRICS, SETTINGS
from training.errors import DataError
from training.workspace import Workspace

TYPE = "checkpoint"  # of the artifact; the exports of a run are one of type `model`
FORMAT = 1
_RUN = re.compile(r"[a-z0-9_]+(/[A-Za-z0-9][A-Za-z0-9._-]*)?")  # family, or family/item


def pack(workspace: Workspace, run: str, run_id: str, folder: Path) -> dict[str, Any]:
    """Put what the artifact holds into `folder`, which is empty; returns the artifact's metadata, which are
    empty if there is no checkpoint of this run.

    The checkpoints are links where the file system has them. Raises OSError, and UsageError if the index is damaged.
    """
    source = workspace.checkpoints(run)
    listed = CheckpointFolder(source).listed()
    kept = {name: listed[name] for name in (LAST, BEST) if name in listed and listed[name].run_id == run_id}
    if not kept:
        return {}
    constants = {constants_name(entry.constants) for entry in kept.values() if entry.constants}
    there = folder / "checkpoints" / run
    there.mkdir(parents=True)
    for name in (*kept, *sorted(constants)):
        os.link(source / name, there / name)
    about = Index.read(source).constants
    Index(kept, [], {name: about[name] for name in constants}).write(there)
    logs = folder / "runs" / run / run_id
    logs.mkdir(parents=True)
    for name in (METRICS, LOG, SETTINGS):
        if (workspace.runs(run) / run_id / name).is_file():
            os.link(workspace.runs(run) / run_id / name, logs / name)
    return {"format": FORMAT, "run": run, "files": {path: sha256(folder / path) for path in _below(folder)}}


def run_of(about: Mapping[str, Any], name: str) -> str:
    """The run that an artifact with the metadata `about` holds. Raises DataError if it was not made by `pack`, or names
    files that no such artifact has: they would be written elsewhere."""
    run, files = about.get("run"), about.get("files")
    if about.get("format") != FORMAT or not isinstance(run, str) or not _RUN.fullmatch(run) or not files:
        raise DataError(f"The artifact {name} was not made by this program, or by another version of it.")
    for path, digest in dict(files).items():
        parts = PurePosixPath(path).parts
        inside = parts[:1] in (("checkpoints",), ("runs",)) and ".." not in parts and str(PurePosixPath(*parts)) == path
        if not inside or not path.startswith((f"checkpoints/{run}/", f"runs/{run}/")) or not DIGEST.fullmatch(digest):
            raise DataError(f"The artifact {name} lists {path!r}, which is no file of the run {run}.")
    return run


def require_same(folder: Path, about: Mapping[str, Any], name: str) -> None:
    """Raise DataError unless `folder` has exactly the files of the metadata, with their SHA-256."""
    expected, found = dict(about["files"]), list(_below(folder))
    for path in sorted({*expected, *found}):
        if path not in found:
            raise DataError(f"The artifact {name} is incomplete: {path} is missing.")
        if path not in expected:
            raise DataError(f"The artifact {name} has a file that its metadata do not list: {path}.")
        if sha256(folder / path) != expected[path]:
            raise DataError(
                f"The artifact {name} is damaged: {path} does not have the SHA-256 {expected[path][:12]}..."
            )


def require_digest(folder: Path, run: str, wanted: str, name: str) -> None:
    """Raise DataError unless the best checkpoint in `folder` has a SHA-256 that begins with `wanted`."""
    files = Index.read(folder / "checkpoints" / run).files
    digest = (files.get(BEST) or files[LAST]).sha256
    if not digest.startswith(wanted):
        raise DataError(f"{name} is another model: its checkpoint has the SHA-256 {digest}, and {wanted} is required.")


def size_of(folder: Path) -> int:
    """Bytes of all files in it."""
    return sum((folder / path).stat().st_size for path in _below(folder))


def _below(folder: Path) -> Iterable[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
