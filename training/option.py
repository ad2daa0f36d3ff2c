"""One option of a domain. Importing this module is cheap, as that of domain.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

#: The verbs that read data, and so have the options that name its folders.
DATA_VERBS = ("doctor", "prepare", "train", "estimate", "prove-resume", "evaluate", "export", "node", "each")
#: Kind of an option that takes a value -> its placeholder.
METAVARS = {"folder": "DIR", "file": "FILE", "path": "PATH", "number": "N", "url": "URL", "text": "TEXT"}


@dataclass(frozen=True)
class Option:
    """One option of a domain, declared once. The runner, `--help`, mounts of containers, compose and the tables of the
    docs are derived from it. Its value is in Job.options under `attribute`.

    The runner's `--only` names a part of the job or families. A domain may have an option of that name as well, which
    gets the values that name neither.

    Kinds: a `folder` or `file` that is read, or a `path`, which may be either (it must exist, is made absolute, and is
    mounted read-only under the same path), `number`, `text`, `choice` (of `choices`), `url`, and `flag` (no value; True
    or False).
    """

    name: str  # without the dashes: "image-root"
    kind: Literal["folder", "file", "path", "number", "text", "choice", "url", "flag"]
    help: str
    metavar: str = ""  # default: according to its kind
    environment: str = ""  # a variable that can be set instead: "ATHANOR_IMAGE_ROOT"
    choices: tuple[str, ...] = ()
    default: Any = None
    verbs: tuple[str, ...] = DATA_VERBS  # the verbs of `python -m training` that accept it; ("",): only the runner does
    runner: bool = True  # whether train_cuda.sh accepts it
    label: str = ""  # a word that may stand before the value, which it does not change: `video=DIR` is DIR
    #: Attributes of other options -> subfolders that are their values, where this one has a URL. Of a folder on this
    #: host, the domain looks which there are (`arrange`).
    parts: Mapping[str, str] = field(default_factory=dict)

    @property
    def flag(self) -> str:
        return f"--{self.name}"

    @property
    def attribute(self) -> str:
        return self.name.replace("-", "_")

    @property
    def placeholder(self) -> str:
        """What stands for its value in help texts."""
        return self.metavar or METAVARS[self.kind]

    def without_label(self, kind: Callable[[str], Any]) -> Callable[[str], Any]:
        """The type of its value on a command line, as a function for argparse. `kind`: of a value without the label."""
        if not self.label:
            return kind
        return lambda text: kind(text.removeprefix(f"{self.label}="))

    @property
    def mounted(self) -> bool:
        """Whether the path must be mounted into a container."""
        return self.kind in ("folder", "file", "path")
