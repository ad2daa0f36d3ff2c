"""Row 14: every key of every family's configuration, misspelt, mistyped, misplaced and doubled."""

from __future__ import annotations

import dataclasses
import random
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from soak.harness import Mutant, Row, Soak, TrialResult, once, patched
from training import config
from training.config import Section, section_type
from training.errors import UsageError
from training.registry import families, load_recipe, recipe_type

#: Type of a key -> YAML that it must refuse: typing mistakes such as quotes, lists, words, or a time for a number.
WRONG = {
    bool: ["text", "1", "0", '"true"', "null", "[true]", "{a: true}", "0.5"],
    int: ["text", "3.5", '"7"', "[1]", "{a: 1}", "true", "1:30", "007", "1e400", ".inf", ".nan", "1,000", "5 #\n z"],
    float: ["text", '"0.5"', "[0.5]", "{a: 1}", "true", "1:30", ".inf", "-.inf", ".nan", "1e400", "0,5", "1e", "5%"],
    str: ["3", "0.5", "[text]", "{a: text}", "true", "2024-01-01"],
    tuple: ["text", "5", "{a: 1}", "true", "[[1], [2]]", "[null, null]", "null"],
    Section: ["text", "5", "[1]", "true", "null", "[{a: 1}]"],
}  # fmt: skip
#: Beside those of `tuple`: what a list of texts must refuse, and what every other list must refuse.
WRONG_TEXTS, WRONG_ELEMENTS = ["[1, 2]", "[a, 0.5]", "[true]"], ["[a, b]"]


@dataclasses.dataclass(frozen=True)
class Case:
    """One mistake in a configuration, and what the error message must contain."""

    family: str
    what: str
    text: str  # YAML
    named: tuple[tuple[str, ...], ...]  # of each group, at least one text must be in the message
    override: str = ""  # the argument of --set; `text` is then empty


def _fields(kind: type[Section], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key -> its field, of a settings class and of those nested in it."""
    for name, info in kind.model_fields.items():
        yield prefix + name, info
        if nested := section_type(info.annotation):
            yield from _fields(nested, f"{prefix}{name}.")


def _kind(info: Any) -> tuple[type, bool]:
    """The kind of a field (a key of WRONG), and whether it may be null."""
    annotation = info.annotation
    options = typing.get_args(annotation) or (annotation,)
    nullable = type(None) in options
    if section_type(annotation):
        return Section, nullable
    if typing.get_origin(annotation) is typing.Literal:
        return type(options[0]), False
    bare = [option for option in options if option is not type(None)] if nullable else [annotation]
    first = bare[0]
    while typing.get_origin(first) is typing.Annotated:
        first = typing.get_args(first)[0]
    origin = typing.get_origin(first) or first
    return (tuple if origin in (tuple, list) else origin), nullable


def _wrong_elements(info: Any) -> list[str]:
    options = [info.annotation, *typing.get_args(info.annotation)]  # the field, or one of the types of a union
    lists = [option for option in options if typing.get_origin(option) in (tuple, list)]
    if not lists:
        return []
    return WRONG_TEXTS if typing.get_args(lists[0])[0] is str else WRONG_ELEMENTS


def _yaml(dotted: str, value: str, repeat: int = 1) -> str:
    *parents, last = dotted.split(".")
    lines = [f"{'  ' * depth}{parent}:" for depth, parent in enumerate(parents)]
    return "\n".join([*lines, *[f"{'  ' * len(parents)}{last}: {value}"] * repeat]) + "\n"


def _cases(family: str, numbers: random.Random) -> Iterator[Case]:
    kind = recipe_type(family).settings_type
    fields = dict(_fields(kind))
    every = set(fields)
    sections = [""] + [key for key, info in fields.items() if section_type(info.annotation)]
    for key, info in fields.items():
        parent, _, name = key.rpartition(".")
        siblings = {k.rpartition(".")[2] for k in every if k.rpartition(".")[0] == parent}
        line = f"run.yaml:{key.count('.') + 1}"
        for wrong in _misspelt(name, numbers) - siblings:
            dotted = f"{parent}.{wrong}" if parent else wrong
            if any(k.endswith(f".{wrong}") for k in every):  # optim.r: lora.r misplaced, not optim.lr misspelt
                continue
            yield Case(family, f"{key} misspelt {wrong}", _yaml(dotted, "1"), ((f"`{dotted}`",), (name,), (line,)))
            yield Case(family, f"--set {dotted}", "", ((f"`{dotted}`",), (name,), (f"--set {dotted}",)), f"{dotted}=1")
        sort, nullable = _kind(info)
        for value in WRONG[sort] + _wrong_elements(info):
            if value == "null" and nullable:
                continue
            yield Case(family, f"{key}: {value}", _yaml(key, value), ((f"`{key}", "YAML"), (line, "line")))
        if typing.get_origin(info.annotation) is typing.Literal:
            for value in (str(typing.get_args(info.annotation)[0]).upper() + "x", '""'):
                yield Case(family, f"{key}: {value}", _yaml(key, value), ((f"`{key}`",), (line,)))
        right = tuple(f"`{k}`" for k in every if k.rpartition(".")[2] == name)
        for section in sections:
            dotted = f"{section}.{name}" if section else name
            if dotted not in every:
                where = f"run.yaml:{dotted.count('.') + 1}"
                # A file in another program's form may have this very key: then its value is refused.
                named = (*right, f"`{dotted}` should be")
                yield Case(family, f"{key} misplaced {dotted}", _yaml(dotted, "1"), (named, (where,)))
        first, second = (f"run.yaml:{key.count('.') + 2}", f"line {key.count('.') + 1}")
        value = "{}" if sort is Section else "1"
        doubled = ((f"`{key}`",), (first,), (second,))
        yield Case(family, f"{key} doubled", _yaml(key, value, 2), doubled)
        quoted = _yaml(key, value) + "  " * key.count(".") + f'"{name}": {value}\n'
        yield Case(family, f"{key} doubled, once in quotes", quoted, doubled)
        flow = _yaml(parent, f"{{{name}: {value}, {name}: {value}}}") if parent else f"{{{name}: 1, {name}: 1}}"
        yield Case(family, f"{key} doubled in one line", flow, ((f"`{key}`",), ("run.yaml:",)))
        if not parent:
            continue
        top = key.split(".")[0]
        again = _yaml(key, value) + f"seed: 1\n{top}:\n  x: 1\n"
        yield Case(family, f"{key}: its section twice", again, ((f"`{top}`",), ("twice",)))
        merged = f"base: &base\n  {name}: {value}\n" + _yaml(key, value) + "  " * key.count(".") + "<<: *base\n"
        yield Case(family, f"{key} given again by a merge", merged, (("alias", "merge", "<<"), ("run.yaml",)))


def _misspelt(name: str, numbers: random.Random) -> set[str]:
    at = numbers.randrange(len(name))
    swap = numbers.randrange(max(1, len(name) - 1))
    out = {name[:at] + name[at + 1 :], name[:at] + numbers.choice("aeiost") + name[at:], name + "s", name.upper()}
    out.add(name[:swap] + name[swap : swap + 2][::-1] + name[swap + 2 :])
    out.add(name.replace("_", "-") if "_" in name else f"{name}_")
    return {wrong for wrong in out if wrong and wrong != name and wrong.isascii() and not wrong.isdigit()}


def _judge(soak: Soak) -> list[TrialResult]:
    """Every case of every family; an even sample of them if the count of trials is smaller."""
    path = soak.folder / "run.yaml"
    cases = [case for family in families() for case in _cases(family, soak.random(0))]
    if soak.count < len(cases):
        step = len(cases) / soak.count
        cases = [cases[int(n * step)] for n in range(soak.count)]
    found: list[TrialResult] = []
    for case in cases:
        found.append(_try(case, path))
        if soak.mutant and not found[-1].held:
            break
    return found


def _try(case: Case, path: Path) -> TrialResult:
    title = f"{case.family} {case.what}"
    path.write_text(case.text, encoding="utf-8")
    try:
        load_recipe(case.family, "full", *((None, [case.override]) if case.override else (path,)))
    except UsageError as error:
        message = str(error)
        missing = [group for group in case.named if not any(name in message for name in group)]
        return TrialResult(title, not missing, f"{case.text!r}: no {missing} in: {message}" if missing else "")
    except Exception as error:  # noqa: BLE001 - anything but a UsageError would be a traceback for the user
        return TrialResult(title, False, f"{case.text!r}: {type(error).__name__}: {error}")
    return TrialResult(title, False, f"{case.text!r} was accepted")


ROWS = (
    Row(
        14, "every config key misspelt, mistyped, misplaced, doubled", "refused with the right name",
        once(_judge, seconds=900), full=10**6, small=600,
        mutants=(
            Mutant("plain YAML, which keeps the last of two", patched(config, "_walk", lambda *a: None)),
            Mutant("no suggestion", patched(config, "_suggest", lambda kind, keys: "")),
            Mutant("PyYAML's own numbers", patched(config, "_Loader", yaml.SafeLoader)),
        ),
    ),
)  # fmt: skip
