"""The sealed test split: every time it is read is recorded, so that choosing a model by its test results is visible.

runs/test_openings.jsonl is an append-only file with one JSON object per opening.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from training.data.files import append_line, disk_errors, printable
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
    """Append an opening, durably, before any row is read. Raises HostError if it cannot be written."""
    opening = Opening(datetime.now(UTC).isoformat(timespec="seconds"), run, checkpoint_sha256, data_digest, purpose)
    path = _path(workspace)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        append_line(path, json.dumps(asdict(opening)))
    return opening


def openings(workspace: Workspace) -> list[Opening]:
    """Every opening, oldest first. Raises DataError for a damaged line."""
    path = _path(workspace)
    if not path.is_file():
        return []
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            found.append(Opening(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise DataError(f"{printable(path)}:{number} is damaged ({error}). Repair or remove that line.") from None
    return found


def _path(workspace: Workspace) -> Path:
    return workspace.root / "runs" / "test_openings.jsonl"
