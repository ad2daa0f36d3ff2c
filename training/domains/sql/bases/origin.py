"""Where the folder of a base model comes from, and under which licence: from the file that a download writes into it,
and from the model's own card and licence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.data.files import printable
from training.pretrained import NOT_STATED, Base

ORIGIN = "origin.json"  # of a downloaded base: {"model", "commit", "revisions", "files": {name: SHA-256}}
CARD = "README.md"
_LICENCES = ("LICENSE*", "LICENCE*", "COPYING*")
_LARGEST = 1 << 20  # bytes that are read of a card


def about(folder: Path) -> Base:
    """Name, commit and licence of the base in a folder."""
    origin = origin_of(folder)
    name = str(origin.get("model") or folder.name)
    return Base(printable(name), *licence_of(folder), revision=str(origin.get("commit") or ""))


def licence_of(folder: Path) -> tuple[str, str]:
    """The licence that a base's folder states, and in which file: that of its card ("apache-2.0"), or the first line of
    its licence file, or NOT_STATED."""
    try:
        with (folder / CARD).open("rb") as file:
            stated = licence_in(front_matter(file.read(_LARGEST).decode("utf-8", "replace")))
    except OSError:
        stated = ""
    if stated:
        return stated, CARD
    for path in sorted(path for pattern in _LICENCES for path in folder.glob(pattern) if path.is_file()):
        with path.open(encoding="utf-8", errors="replace") as file:
            lines = (" ".join(line.split()) for line in file.read(4096).splitlines())
            first = next((line for line in lines if line.strip("#=-* ")), "")
        if first:
            return printable(first[:80]), printable(path.name)
    return NOT_STATED, ""


def front_matter(text: str) -> Mapping[str, Any]:
    """The YAML between the two lines of dashes with which a card begins; empty without one that can be read."""
    lines = text.replace("\r\n", "\n").removeprefix("\ufeff").split("\n")
    if lines[0].strip() != "---" or "---" not in (line.rstrip() for line in lines[1:]):
        return {}
    end = next(number for number, line in enumerate(lines[1:], 1) if line.rstrip() == "---")
    import yaml

    try:
        found = yaml.safe_load("\n".join(lines[1:end]))
    except (yaml.YAMLError, RecursionError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def licence_in(card: Mapping[str, Any]) -> str:
    """The licence in the data of a model card: its identifier, and of `other` its name and where its text is."""
    stated = card.get("license")
    names = [name for name in (stated if isinstance(stated, list) else [stated]) if isinstance(name, str) and name]
    more = [f"{card[key]}" for key in ("license_name", "license_link") if isinstance(card.get(key), str)]
    text = ", ".join(names) + (f": {', '.join(more)}" if names == ["other"] and more else "")
    return printable(" ".join(text.split())[:200])


def origin_of(folder: Path) -> dict[str, Any]:
    """What a download has written into the folder; empty for another one."""
    try:
        found = json.loads((folder / ORIGIN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
