"""Where the folder of a base model comes from, by the file that a download writes into it, and under which licence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from training.data.files import printable
from training.pretrained import Base, licence_of

ORIGIN = "origin.json"  # of a downloaded base: {"model", "commit", "revisions", "files": {name: SHA-256}}


def about(folder: Path) -> Base:
    """Name, commit and licence of the base in a folder."""
    origin = origin_of(folder)
    name = str(origin.get("model") or folder.name)
    return Base(printable(name), *licence_of(folder), revision=str(origin.get("commit") or ""))


def origin_of(folder: Path) -> dict[str, Any]:
    """What a download has written into the folder; empty for another one."""
    try:
        found = json.loads((folder / ORIGIN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
