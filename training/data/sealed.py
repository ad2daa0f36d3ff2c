"""The test split is sealed: every opening is written down, so that a model that was chosen by it shows.

runs/test_openings.jsonl is only appended to: one JSON object an opening.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from training.data.files import disk_errors, printable, sync
from training.errors import DataError
from training.workspace import Workspace


@dataclass(frozen=True)
class Opening:
    """One time that a test split was read."""

    time: str  # UTC, ISO 8601
    run: str  # "family", or "family/item"
    checkpoint_sha256: str  # of the judged model; empty: none
    data_digest: str  # of the test split
    purpose: str


def record(workspace: Workspace, run: str, checkpoint_sha256: str, data_digest: str, purpose: str) -> Opening:
    """Append an opening, durably, before anybody sees the rows. Raises HostError if it cannot be written."""
    opening = Opening(datetime.now(UTC).isoformat(timespec="seconds"), run, checkpoint_sha256, data_digest, purpose)
    path = _path(workspace)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            # a line that a crash cut off is ended first, so that it does not swallow this one
            size = os.fstat(handle).st_size
            torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
            os.write(handle, (b"\n" if torn else b"") + json.dumps(asdict(opening)).encode() + b"\n")
            os.fsync(handle)
        finally:
            os.close(handle)
        sync(path.parent)
    return opening


def openings(workspace: Workspace) -> list[Opening]:
    """Every opening, the first one first. Raises DataError for a line that is none."""
    path = _path(workspace)
    if not path.is_file():
        return []
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            found.append(Opening(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise DataError(f"{printable(path)}:{number} is damaged ({error}). Mend or remove that line.") from None
    return found


def _path(workspace: Workspace) -> Path:
    return workspace.root / "runs" / "test_openings.jsonl"
