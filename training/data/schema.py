"""What a domain's manifest row is: its keys, which of them name files, what they may hold, and what keeps rows apart.

A schema is data and small functions. Everything in data/ and stages/ reads rows by it, and so knows no domain.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

SPLITS = ("train", "val", "test")
ID = "id"  # of every row; made from the first path where a row has none


@dataclass(frozen=True)
class PathKey:
    """A key that holds the path of a file. A file that is not at the path of the row, since the manifest comes from
    another host, is looked up under `root` or `folder`."""

    name: str
    root: str = ""  # attribute of the domain's option that names a folder: "image_root"
    folder: str = ""  # or a folder of the workspace: "data/masks"

    @property
    def flag(self) -> str:
        """The option that names the root; empty without one."""
        return f"--{self.root.replace('_', '-')}" if self.root else ""


@dataclass(frozen=True)
class Key:
    """A key that holds anything but a path."""

    #: Returns the value as it is learnt from; raises ValueError, which is reported with the line number.
    check: Callable[[Any], Any]
    #: The same for a value that passed `check` before, without checking; None: the value as it stands in the manifest.
    normalise: Callable[[Any], Any] | None = None


@dataclass(frozen=True, eq=False)
class Schema:
    """The keys of a manifest row. Keys that begin with "_" are the user's own; every other unknown key is refused.

    Another process that is sent a schema imports it from its `place`.
    """

    place: str  # "module:OBJECT" that names this schema: an index on the disk refers to it
    paths: tuple[PathKey, ...]
    keys: Mapping[str, Key]
    required: tuple[str, ...] = ()  # of `keys`; a family requires its own path keys
    #: Keys that name a row and are not learnt from. The digest of the data leaves them out; of a path among them it
    #: takes the file's content.
    names: tuple[str, ...] = (ID,)
    defaults: Mapping[str, Any] = field(default_factory=dict)  # of keys that a row leaves out
    #: Path key -> the keys (begin, end) of the part of its file that a row means, begin < end, in one unit per key
    #: (seconds, samples). A row without them means the complete file.
    spans: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    group: str = ""  # key whose equal values must stay in one split (a speaker, a device, a day)
    example: str = '{"id": ...}'  # a row, for messages
    build: str = "python -m training prepare"  # the command that writes manifests, for messages
    version: int = 1  # raised when a row that passed may no longer pass

    def __reduce__(self) -> tuple:
        return schema_at, (self.place,)

    @cached_property
    def known(self) -> tuple[str, ...]:
        """Every key that a row may have."""
        extra = [name for pair in self.spans.values() for name in pair]
        extra += [self.group] if self.group else []
        return tuple(dict.fromkeys([*(key.name for key in self.paths), *self.keys, *extra, ID]))

    def path(self, name: str) -> PathKey:
        return next(key for key in self.paths if key.name == name)

    def complete(self, values: dict[str, Any]) -> None:
        """Normalise a checked row as it stands in its manifest, in place, and add the defaults."""
        for name, key in self.keys.items():
            if key.normalise is not None and name in values:
                values[name] = key.normalise(values[name])
        for name, value in self.defaults.items():
            values.setdefault(name, value)


def schema_at(place: str) -> Schema:
    """The schema that `place` ("module:OBJECT") names."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


# -- values ------------------------------------------------------------------------------------------------------------


def floats(value: list[int | float]) -> list[float]:
    """`normalise` of a list of numbers: 1 and 1.0 are the same."""
    return [float(number) for number in value]


def is_number(value: Any) -> bool:
    """Whether a JSON value is a finite number below 1e15 in size."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15


def text(name: str) -> Key:
    """A key that holds a text."""

    def check(value: Any) -> str:
        if not isinstance(value, str) or not value:
            raise ValueError(f"`{name}` should be a text; it is {value!r}")
        return value

    return Key(check)
