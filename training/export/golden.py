"""Golden files: inputs and the model's outputs, with which an exported file can be checked on any host.

golden/<graph>.npz      trial<N>/in/<input>, trial<N>/out/<output>       one pair per set of axis sizes
                        steps/in/<input>, steps/out/<output>             recurrent graphs: complete sequences, and the
                                                                         outputs of stepping through them,
                        steps/start/<input>                              from these states (without the batch axis)
golden/<family>_exam.npz  in/<input>, ref/<name>                         the int8 check: held-out inputs and references
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
#: Bytes of arrays in the golden file of one graph. Trials that do not fit are compared, but not written.
BUDGET = 5_000_000


@dataclass(frozen=True)
class Golden:
    """The content of golden/<graph>.npz."""

    trials: list[tuple[Named, Named]]  # (inputs, outputs)
    steps: tuple[Named, Named] | None = field(default=None)  # (inputs of the full graph, {output: expected})
    start: Named = field(default_factory=dict)  # state input -> its value before the first step


def write_golden(
    path: Path,
    cases: Sequence[tuple[Named, Named]],
    steps: tuple[Named, Named] | None,
    start: Mapping[str, np.ndarray] | None = None,
) -> list[int]:
    """Write the cases that fit into BUDGET, smallest first, but always one; returns the indices of those written."""
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
    """Read a file of `write_golden`. Raises ExportError for any other file."""
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
        raise ExportError(f"{path.name} has no trials.")
    trials = [groups[name] for name in sorted(groups, key=lambda g: int(g.removeprefix("trial")))]
    return Golden(trials, steps, start)


def write_int8_check(path: Path, inputs: Mapping[str, np.ndarray], references: Mapping[str, np.ndarray]) -> None:
    """Write an int8 check: inputs of the graph, and the references that Recipe.grade compares its outputs with."""
    _write(path, {f"in/{k}": v for k, v in inputs.items()} | {f"ref/{k}": v for k, v in references.items()})


def read_int8_check(path: Path) -> tuple[Named, Named]:
    """(inputs, references) from a file of `write_int8_check`. Raises ExportError for any other file."""
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
        raise ExportError(f"{path.name} has an entry `{key}`, which a golden file cannot have.")
    return split


def _write(path: Path, arrays: Named) -> None:
    """Write an .npz whose bytes depend only on the arrays (numpy's savez would add the time)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for key in sorted(arrays):
            content = io.BytesIO()
            np.lib.format.write_array(content, np.ascontiguousarray(arrays[key]), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{key}.npy", (1980, 1, 1, 0, 0, 0))
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, content.getvalue(), compresslevel=1)
    write_atomic(path, buffer.getvalue())


def _read(path: Path) -> Named:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, KeyError) as error:
        raise ExportError(f"{path.name} is not a readable golden file: {error}") from None
