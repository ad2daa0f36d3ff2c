"""The names of a run's files below exports/.

The files of a run "family" are at the top; those of a run "family/item" have the same names in a folder named after the
item. Names are relative to exports/, with "/" between folders, as in the receipt's `files`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from training.errors import ExportError
from training.export.files import folders_of

#: Names at the top of exports/ that all runs share.
RESERVED = ("receipt.json", "metrics.json", "report.html", "README.md")
FOLDERS = ("golden", "samples", "play")


def safe_part(text: str) -> bool:
    """Whether `text` is a valid component of a path on every operating system, and cannot be taken for a command-line
    option: printable, no forbidden characters, no leading dot or dash."""
    return bool(text) and text.isprintable() and text[0] not in ".-" and not set(text) & set('/\\:*?"<>|')


def safe_item(text: str) -> bool:
    """Whether `text` can name an item, that is, a folder below exports/ other than those that all runs share."""
    return safe_part(text) and text not in (*RESERVED, *FOLDERS)


#: For messages.
ITEM_NAMES = (
    'An item must be usable as the name of a folder: no leading dot or dash, none of / \\ : * ? " < > |, and none of '
    f"the names {', '.join((*RESERVED, *FOLDERS))}."
)


@dataclass(frozen=True)
class Layout:
    """The file names of one run."""

    family: str
    item: str = ""

    @classmethod
    def of(cls, run: str) -> Layout:
        """The layout of a run's name. Raises ExportError if its item cannot be the name of a folder."""
        family, divided, item = run.partition("/")
        if not safe_part(family) or (divided and not safe_item(item)):
            raise ExportError(
                f"`{run}` is not the name of a run: its files would be in the folder `{item or family}`. {ITEM_NAMES}"
            )
        return cls(family, item)

    @property
    def run(self) -> str:
        return f"{self.family}/{self.item}" if self.item else self.family

    def name(self, below: str) -> str:
        """The name of the file that is called `below` in a run without an item."""
        return f"{self.item}/{below}" if self.item else below

    def onnx(self, graph: str) -> str:
        return self.name(f"{graph}.onnx")

    def int8(self, graph: str) -> str:
        return self.name(f"{graph}.int8.onnx")

    def coreml(self, graph: str) -> str:
        return self.name(f"{graph}.mlpackage")

    def golden(self, graph: str) -> str:
        return self.name(f"golden/{graph}.npz")

    @property
    def int8_check(self) -> str:
        return self.name(f"golden/{self.family}_exam.npz")

    @property
    def weights(self) -> str:
        return self.name(f"{self.family}.safetensors")

    @property
    def samples(self) -> str:
        """The folder of samples."""
        return self.name(f"samples/{self.family}")

    def artefact(self, path: str) -> str:
        """The name of an artefact. Raises ExportError for a path that leads out of the folder, or that is reserved."""
        parts = path.split("/")
        if not all(safe_part(part) for part in parts) or parts[0] in (*RESERVED, *FOLDERS):
            raise ExportError(
                f"The artefact `{path}` cannot have this name: it must be a relative path without `..` and leading "
                f"dots, and not below {', '.join((*RESERVED, *FOLDERS))}."
            )
        return self.name(path)


def collisions(names: Iterable[str], others: Iterable[str]) -> list[str]:
    """Those of `names` that are also in `others`, or are a parent folder of one of `others`, or inside one of them."""
    own, taken = set(names), set(others)
    below = folders_of(taken)
    return sorted(name for name in own if name in taken | below or folders_of({name}) & taken)
