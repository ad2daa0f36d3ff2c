"""The options that name a base model. Uses the standard library only: they are checked while a command is planned."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from training.data.files import printable
from training.errors import UsageError

FORM = "--download NAME@REVISION"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)


@dataclass(frozen=True)
class Wanted:
    """A model on the Hub and its revision: a commit, tag or branch."""

    name: str  # "Qwen/Qwen2.5-Coder-1.5B"
    revision: str

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}"


def wanted_of(text: str) -> Wanted:
    """The model and revision in the value of --download. Raises UsageError."""
    name, _, revision = text.partition("@")
    if not _NAME.fullmatch(name) or ".." in name or "--" in name:
        raise UsageError(f"{FORM}: {printable(name)!r} is no name of a model on the Hub, such as Qwen/Qwen2.5-0.5B.")
    if not revision or not revision.isprintable() or " " in revision:
        raise UsageError(
            f"{FORM}: name the revision of {name} too: a commit (best), a tag or a branch, as in {name}@main. A branch "
            "is resolved to its commit once."
        )
    return Wanted(name, revision)


def require_one(options: Mapping[str, Any]) -> None:
    """Raise UsageError for two bases, or for a download that names no revision."""
    if options.get("download"):
        wanted_of(options["download"])
        if options.get("base") is not None:
            raise UsageError("Both --base and --download are given: name one of them.")
