"""What is known of a pre-trained model: of one on whose weights a family builds, or whose features it takes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.data.files import printable
from training.errors import UsageError

NOT_STATED = "not stated"
CARD = "README.md"
_LICENCES = ("LICENSE*", "LICENCE*", "COPYING*")
_LARGEST = 1 << 20  # bytes that are read of a card


@dataclass(frozen=True)
class Base:
    """A pre-trained model: for the receipt, the model card and the report."""

    name: str  # its id on a hub, or its folder's name
    licence: str = NOT_STATED  # as it states it: an identifier, or the first line of its text
    stated_in: str = ""  # the file that states it
    revision: str = ""  # of a downloaded one: the commit

    @property
    def words(self) -> str:
        """For people, in a line."""
        commit = f", commit {self.revision[:12]}" if self.revision else ""
        return f"{self.name}{commit}; licence: {self.licence}" + (f" ({self.stated_in})" if self.stated_in else "")


def base_in(entry: Mapping[str, Any]) -> Base | None:
    """The base in an entry of a receipt; None without one."""
    found = entry.get("base")
    if not isinstance(found, Mapping) or not found.get("name"):
        return None
    known = {key: str(found.get(key) or "") for key in ("name", "licence", "stated_in", "revision")}
    return Base(**known | {"licence": known["licence"] or NOT_STATED})


# -- the folder of a model in Hugging Face's format --------------------------------------------------------------------


def refuse_code(config: Path, option: str = "--base") -> dict[str, Any]:
    """The content of a config.json. Raises UsageError for one that is not JSON, or that names code. `option`: the one
    that named the model."""
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{option}: {config} is not JSON ({error}).") from None
    if not isinstance(content, dict):
        raise UsageError(f"{option}: {config} is a {type(content).__name__}, not an object.")
    if "auto_map" in content:
        raise UsageError(
            f"{option}: {config} names Python code (auto_map), which is never run. Use a model whose architecture "
            "transformers has."
        )
    return content


def licence_of(folder: Path) -> tuple[str, str]:
    """The licence that a model's folder states, and in which file: that of its card ("apache-2.0"), or the first line
    of its licence file, or NOT_STATED."""
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
