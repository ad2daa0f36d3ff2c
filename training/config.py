"""Reads YAML into typed settings. Every mistake is reported with its file, line, key, and the nearest valid key.

YAML is read by PyYAML's safe loader with three changes. A duplicate key is an error (PyYAML silently keeps the last).
Aliases are refused (a few lines of them can expand to gigabytes, and a merge hides a key), and so are tags. Numbers are
read as people write them: `1e-4` is a number (YAML 1.1 requires `1.0e-4` and reads `1e-4` as text); `1:30` (90 in
YAML 1.1), `007` and `.inf` are not.
"""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml

from training.errors import UsageError


class Section(pydantic.BaseModel):
    """Base of every settings class: frozen, strict about types, no unknown keys. Lists become tuples."""

    model_config = pydantic.ConfigDict(
        extra="forbid", frozen=True, strict=True, validate_default=True, allow_inf_nan=False
    )

    @pydantic.field_validator("*", mode="before")
    @classmethod
    def _lists_are_tuples(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value


class _Loader(yaml.SafeLoader):
    """SafeLoader with the number formats described above."""

    yaml_implicit_resolvers: typing.ClassVar = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in ("int", "float")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][\d_]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][-+]?\d+)$|^[-+]?(?:\d[\d_]*\.[\d_]*|\.\d[\d_]*)$"),
    list("-+0123456789."),
)


_DEEPEST, _LARGEST = 50, 1 << 20  # levels and bytes; PyYAML's run time is quadratic in both


@dataclass(frozen=True)
class Layer:
    """One source of settings: nested values, and the place of each dotted key ("file.yaml:12"). `notes`: lines for the
    user, about keys of another program's file that are read differently or not used."""

    values: Mapping[str, Any]
    places: Mapping[str, str] = field(default_factory=dict)
    name: str = "settings"
    notes: Sequence[str] = ()


def read_yaml(path: Path) -> Layer:
    """The mapping in a YAML file. Raises UsageError if the file is missing, unreadable or malformed, or has a duplicate
    key."""
    try:
        if path.exists() and not path.is_file():
            raise UsageError(f"Cannot read the config file {path}: it is a folder, FIFO or device")
        if path.stat().st_size > _LARGEST:
            raise UsageError(
                f"{path} is not a config file: it has {path.stat().st_size:,} bytes; the limit is {_LARGEST:,}."
            )
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"Cannot read the config file {path}: {error}") from None
    places: dict[str, str] = {}
    try:
        node = _compose(text)
        if node is not None:
            _walk(node, (), path, places)
        values = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date of month 13, a number of 5,000 digits
        raise UsageError(f"{path} is not valid YAML: {error}") from None
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise UsageError(f"{path} must contain `key: value` settings, not a {type(values).__name__}.")
    return Layer(values, places, str(path))


def _compose(text: str) -> yaml.Node | None:
    """The node tree of a YAML text. Raises yaml.YAMLError also for an alias, a tag, and too many levels of nesting."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise yaml.YAMLError(f"line {event.start_mark.line + 1} is nested too deeply")
        if getattr(event, "tag", None):
            raise yaml.YAMLError(f"line {event.start_mark.line + 1} has a tag ({event.tag}); write a plain value")
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError(
                f"line {event.start_mark.line + 1} has an alias (*{event.anchor}); repeat the value in its place"
            )
    return yaml.compose(text, Loader=_Loader)


def _walk(node: yaml.Node, at: tuple[str, ...], path: Path, places: dict[str, str]) -> None:
    """Record the line of each key, and refuse duplicate keys."""
    if not isinstance(node, yaml.MappingNode):
        return
    seen: dict[str, int] = {}
    for key_node, value_node in node.value:
        key, line = str(key_node.value), key_node.start_mark.line + 1
        dotted = ".".join((*at, key))
        if key in seen:
            raise UsageError(f"{path}:{line}: `{dotted}` is set twice (first on line {seen[key]}); keep one.")
        seen[key] = line
        places[dotted] = f"{path}:{line}"
        _walk(value_node, (*at, key), path, places)


def override_layer(assignments: Sequence[str]) -> Layer:
    """`--set a.b=value` assignments as a layer; the values are YAML."""
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    for assignment in assignments:
        dotted, separator, text = assignment.partition("=")
        if not separator or not dotted:
            raise UsageError(f"--set {assignment}: write it as --set section.key=value")
        try:
            _compose(text)
            value = yaml.load(text, Loader=_Loader)
        except (yaml.YAMLError, ValueError) as error:
            raise UsageError(f"--set {assignment}: {error}") from None
        at = values
        *parents, last = dotted.split(".")
        for parent in parents:
            at = at.setdefault(parent, {})
            if not isinstance(at, dict):
                raise UsageError(f"--set {assignment}: `{parent}` already has a value")
        at[last] = value
        places[dotted] = f"--set {assignment}"
    return Layer(values, places, "--set")


SectionT = TypeVar("SectionT", bound=Section)


def build(kind: type[SectionT], *layers: Layer) -> SectionT:
    """Merge layers, key by key (later ones override earlier ones), and validate them. Raises UsageError that lists
    every mistake."""
    merged: dict[str, Any] = {}
    places: dict[str, str] = {}
    for layer in layers:
        merged = _merge(merged, layer.values)
        places.update(layer.places)
    try:
        return kind.model_validate(merged)
    except pydantic.ValidationError as error:
        rows = [_explain(kind, item, places) for item in error.errors()]
        raise UsageError("The configuration has mistakes:\n" + "\n".join(f"  {row}" for row in rows)) from None


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        out[key] = _merge(out[key], value) if both else value
    return out


def _explain(kind: type[Section], item: Any, places: Mapping[str, str]) -> str:
    keys = [str(part) for part in item["loc"]]
    dotted = ".".join(keys)
    place = next((places[k] for n in range(len(keys), 0, -1) if (k := ".".join(keys[:n])) in places), "defaults")
    if item["type"] == "extra_forbidden":
        return f"{place}: `{dotted}` is not a setting. {_suggest(kind, keys)}"
    if item["type"] == "missing":
        return f"{place}: `{dotted}` is missing."
    message = item["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return f"{place}: `{dotted}` should be {message}; it is {item['input']!r}."


def _suggest(kind: type[Section], keys: list[str]) -> str:
    every = list(dotted_keys(kind))
    siblings = [k for k in every if k.rpartition(".")[0] == ".".join(keys[:-1])]
    elsewhere = [k for k in every if k.rpartition(".")[2] == keys[-1]]
    if elsewhere:
        return f"It belongs under `{elsewhere[0].rpartition('.')[0] or 'the top level'}`: `{elsewhere[0]}`."
    near = difflib.get_close_matches(keys[-1].lower(), [k.rpartition(".")[2] for k in siblings], 1, 0.6)
    if near:
        return f"Did you mean `{'.'.join([*keys[:-1], near[0]])}`?"
    far = difflib.get_close_matches(".".join(keys), every, 1, 0.6)
    if far:
        return f"Did you mean `{far[0]}`?"
    names = [k.rpartition(".")[2] for k in siblings] or sorted(kind.model_fields)
    return f"Known here: {', '.join(names)}."


def dotted_keys(kind: type[Section], prefix: str = "") -> typing.Iterator[str]:
    """Every key of a settings class and of its nested classes, as `training.early_stopping.patience`."""
    for name, info in kind.model_fields.items():
        dotted = f"{prefix}{name}"
        yield dotted
        nested = section_type(info.annotation)
        if nested:
            yield from dotted_keys(nested, dotted + ".")


def section_type(annotation: Any) -> type[Section] | None:
    """The Section class in an annotation (`X` or `X | None`), or None."""
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    return next((o for o in options if isinstance(o, type) and issubclass(o, Section)), None)
