"""Where the files of a run lie below exports/.

Those of a run "family" lie at the top; those of a run "family/item" under the same names in a folder named after the
item. Names are relative to exports/, with "/" between folders: keys of the receipt's `files`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from training.errors import ExportError

#: At the top of exports/ these belong to all runs together.
RESERVED = ("receipt.json", "metrics.json", "report.html", "README.md")
FOLDERS = ("golden", "samples")


def safe_part(text: str) -> bool:
    """Whether `text` can be one component of a path on every system: printable, no separator, no leading dot."""
    return bool(text) and text.isprintable() and not text.startswith(".") and not set(text) & set('/\\:*?"<>|')


@dataclass(frozen=True)
class Layout:
    """The file names of one run."""

    family: str
    item: str = ""

    @classmethod
    def of(cls, run: str) -> Layout:
        """Raises ExportError for a run whose item is no name of a folder."""
        family, divided, item = run.partition("/")
        if not safe_part(family) or (divided and (not safe_part(item) or item in (*RESERVED, *FOLDERS))):
            raise ExportError(
                f"`{run}` is no name of a run: its files would lie in the folder `{item or family}`. Use letters, "
                f"digits, dots, dashes and underscores, no leading dot, and none of {', '.join((*RESERVED, *FOLDERS))}."
            )
        return cls(family, item)

    @property
    def run(self) -> str:
        return f"{self.family}/{self.item}" if self.item else self.family

    def name(self, below: str) -> str:
        """Of a file that is called `below` where there is no item."""
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
    def exam(self) -> str:
        return self.name(f"golden/{self.family}_exam.npz")

    @property
    def weights(self) -> str:
        return self.name(f"{self.family}.safetensors")

    @property
    def samples(self) -> str:
        """A folder."""
        return self.name(f"samples/{self.family}")

    def artefact(self, path: str) -> str:
        """Raises ExportError for a path that leads elsewhere, or to a file that is not the run's own."""
        parts = path.split("/")
        if not all(safe_part(part) for part in parts) or parts[0] in (*RESERVED, *FOLDERS):
            raise ExportError(
                f"The artefact `{path}` cannot have this name: it needs a relative path without `..` and leading dots, "
                f"outside of {', '.join((*RESERVED, *FOLDERS))}."
            )
        return self.name(path)


def collisions(names: Iterable[str], others: Iterable[str]) -> list[str]:
    """Those of `names` that are also in `others`, or that lie in a folder of `others`, or hold one of them."""
    taken = set(others)
    folders = {name[:at] for name in taken for at in _slashes(name)}
    return sorted(
        name for name in set(names) if name in taken | folders or any(name[:at] in taken for at in _slashes(name))
    )


def _slashes(name: str) -> list[int]:
    return [at for at, letter in enumerate(name) if letter == "/"]
