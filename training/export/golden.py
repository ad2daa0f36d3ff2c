"""Inputs and the model's own outputs, in files that any host can check itself against.

golden/<graph>.npz      trial<N>/in/<input>, trial<N>/out/<output>       one pair a set of axis sizes
                        steps/in/<input>, steps/out/<output>             recurrent graphs: whole sequences, and what
                                                                         stepping along them must give,
                        steps/start/<input>                              from these states on (without the batch axis)
golden/<family>_exam.npz  in/<input>, ref/<name>                         held-out material and what to grade against
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from training.data.files import write_atomic
from training.errors import ExportError

Named = dict[str, np.ndarray]
#: Bytes of arrays that one graph's golden file may hold; larger trials are proved, but not kept.
BUDGET = 5_000_000


@dataclass(frozen=True)
class Golden:
    """The content of golden/<graph>.npz."""

    trials: list[tuple[Named, Named]]  # (inputs, outputs)
    steps: tuple[Named, Named] | None = field(default=None)  # (the full graph's inputs, {output: expected})
    start: Named = field(default_factory=dict)  # state input -> what stepping starts from


def write_golden(
    path: Path,
    cases: Sequence[tuple[Named, Named]],
    steps: tuple[Named, Named] | None,
    start: Mapping[str, np.ndarray] | None = None,
) -> list[int]:
    """Write what fits the budget, the smallest cases first, never less than one; returns the places of those kept."""
    sizes = [sum(a.nbytes for part in case for a in part.values()) for case in cases]
    order = sorted(range(len(cases)), key=lambda at: sizes[at])
    kept, used = [], 0
    for at in order:
        if not kept or used + sizes[at] <= BUDGET:
            kept.append(at)
            used += sizes[at]
    kept.sort()
    arrays = {}
    for place, at in enumerate(kept):
        arrays |= _flat(f"trial{place}", cases[at])
    if steps:
        arrays |= _flat("steps", steps) | {f"steps/start/{name}": value for name, value in (start or {}).items()}
    _write(path, arrays)
    return kept


def read_golden(path: Path) -> Golden:
    """Raises ExportError for a file that is not what write_golden writes."""
    groups: dict[str, tuple[Named, Named]] = {}
    start: Named = {}
    for key, array in _read(path).items():
        group, side, name = _split(path, key, 3)
        if (group, side) == ("steps", "start"):
            start[name] = array
        else:
            groups.setdefault(group, ({}, {}))[side != "in"][name] = array
    steps = groups.pop("steps", None)
    if not groups:
        raise ExportError(f"{path.name} holds no trial.")
    trials = [groups[name] for name in sorted(groups, key=lambda g: int(g.removeprefix("trial")))]
    return Golden(trials, steps, start)


def write_exam(path: Path, inputs: Mapping[str, np.ndarray], references: Mapping[str, np.ndarray]) -> None:
    """Keep an exam: the graph's inputs, and what Recipe.grade compares its outputs with."""
    _write(path, {f"in/{k}": v for k, v in inputs.items()} | {f"ref/{k}": v for k, v in references.items()})


def read_exam(path: Path) -> tuple[Named, Named]:
    """(inputs, references). Raises ExportError for a file that is not what write_exam writes."""
    sides: dict[str, Named] = {"in": {}, "ref": {}}
    for key, array in _read(path).items():
        side, name = _split(path, key, 2)
        sides.setdefault(side, {})[name] = array
    return sides["in"], sides["ref"]


def _flat(group: str, pair: tuple[Named, Named]) -> Named:
    return {f"{group}/{side}/{k}": v for side, part in zip(("in", "out"), pair, strict=True) for k, v in part.items()}


def _split(path: Path, key: str, parts: int) -> list[str]:
    split = key.split("/", parts - 1)
    if len(split) != parts:
        raise ExportError(f"{path.name} holds `{key}`, which is no part of a golden file.")
    return split


def _write(path: Path, arrays: Named) -> None:
    """An .npz whose bytes depend on the arrays alone."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for key in sorted(arrays):
            content = io.BytesIO()
            np.lib.format.write_array(content, np.ascontiguousarray(arrays[key]), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{key}.npy", (1980, 1, 1, 0, 0, 0))
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, content.getvalue(), compresslevel=1)
    write_atomic(path, whole.getvalue())


def _read(path: Path) -> Named:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, KeyError) as error:
        raise ExportError(f"{path.name} is no readable golden file: {error}") from None
