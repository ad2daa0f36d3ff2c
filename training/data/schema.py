"""The schema of a domain's manifest rows: their keys, which of them name files, valid values, and how rows are grouped.

A schema is data and small functions. The code in data/ and stages/ reads rows through it and needs no code of a domain.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

SPLITS = ("train", "val", "test")
ID = "id"  # the key that every row has; default: derived from its first path


@dataclass(frozen=True)
class PathKey:
    """A key that holds the path of a file. If the file does not exist there, because the manifest comes from another
    host, it is looked up under `root` or `folder`."""

    name: str
    root: str = ""  # attribute of the domain's option that names a folder: "image_root"
    folder: str = ""  # or a folder of the workspace: "data/masks"
    shared: bool = False  # whether rows of several splits may use the same file: context that is no example itself

    @property
    def flag(self) -> str:
        """The option that names the root; empty without one."""
        return f"--{self.root.replace('_', '-')}" if self.root else ""


@dataclass(frozen=True)
class Key:
    """A key that holds a value other than a path."""

    #: Returns the normalised value; raises ValueError, which is reported with the line number.
    check: Callable[[Any], Any]
    #: Normalises a value that passed `check` before, without checking it; None: the value needs no normalising.
    normalise: Callable[[Any], Any] | None = None


@dataclass(frozen=True, eq=False)
class Schema:
    """The keys of a manifest row. Keys that begin with "_" are the user's own; every other unknown key is refused.

    A schema is pickled by its `place`: the other process imports it from there.
    """

    place: str  # "module:OBJECT" of this schema; an index on the disk refers to it too
    paths: tuple[PathKey, ...]
    keys: Mapping[str, Key]
    required: tuple[str, ...] = ()  # of `keys`; a family requires its own path keys
    #: Keys that identify a row and are not inputs or targets. The digest of the data leaves them out; for a path key
    #: among them it uses the content of the file.
    names: tuple[str, ...] = (ID,)
    defaults: Mapping[str, Any] = field(default_factory=dict)  # values of missing keys
    #: Path key -> the keys (begin, end) of the part of its file that a row uses, begin < end, in any unit (seconds,
    #: samples). A row without them uses the complete file.
    spans: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    group: str = ""  # a key; rows with the same value of it must be in one split (a speaker, a device, a day)
    example: str = '{"id": ...}'  # a row, for messages
    build: str = "python -m training prepare"  # the command that writes manifests, for messages
    version: int = 1  # increment it when a row that passed the checks may no longer pass

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
        """Normalise a row that was checked before, in place, and add the defaults."""
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
    """A function for `Key.normalise`: a list of numbers as floats, so that 1 and 1.0 are the same."""
    return [float(number) for number in value]


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number whose absolute value is below 1e15."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15


def text(name: str) -> Key:
    """A key that holds a text."""

    def check(value: Any) -> str:
        if not isinstance(value, str) or not value:
            raise ValueError(f"`{name}` should be a text; it is {value!r}")
        return value

    return Key(check)
