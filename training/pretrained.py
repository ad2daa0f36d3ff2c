"""What is known of a pre-trained model on whose weights a family builds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NOT_STATED = "not stated"


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
