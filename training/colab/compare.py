"""Compares a job's folder with its copy on a drive, by content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

PARTS = ("exports", "runs", "data/manifests")  # as in training/stages/persist.py


def differing_files(out: Path, copy: Path) -> list[str]:
    """Files of `out` that are missing in `copy`, or have another content there."""
    found = []
    for part in PARTS:
        for path in _files(out / part):
            name = path.relative_to(out)
            if not (copy / name).is_file():
                found.append(f"{name}: missing")
            elif _sha256(copy / name) != _sha256(path):
                found.append(f"{name}: another content")
    return found


def differing_checkpoints(out: Path, copy: Path) -> list[str]:
    """Checkpoints of `out`'s index files that the copy does not list, or lists and does not have."""
    found = []
    here = out / "checkpoints"
    for index in sorted([*here.glob("*/index.json"), *here.glob("*/*/index.json")]):
        run = index.parent.relative_to(here)
        if "previous" in run.parts:
            continue
        there = copy / "checkpoints" / run
        try:
            index_there = json.loads((there / "index.json").read_text(encoding="utf-8"))
            listed = index_there["files"]
        except (OSError, ValueError, KeyError) as error:
            found.append(f"checkpoints/{run}/index.json: {error}")
            continue
        own = json.loads(index.read_text(encoding="utf-8"))["files"]
        for name in ("last.pt", "best.pt"):
            if name in own and listed.get(name, {}).get("sha256") != own[name]["sha256"]:
                found.append(f"checkpoints/{run}/{name}: the copy's index lists another one")
        for name, entry in {**listed, **index_there.get("constants", {})}.items():
            if not (there / name).is_file() or _sha256(there / name) != entry["sha256"]:
                found.append(f"checkpoints/{run}/{name}: missing or another content")
    return found


def _files(folder: Path) -> Iterator[Path]:
    """Regular files, without hidden ones and links."""
    if folder.is_dir() and not folder.is_symlink():
        for path in sorted(folder.iterdir()):
            if path.name.startswith(".") or path.is_symlink():
                continue
            if path.is_dir():
                yield from _files(path)
            elif path.is_file():
                yield path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
