"""Artefacts: files and folders in other formats than ONNX, each with its own writer and prover.

A prover gets only the written files and plain values from the receipt. It runs before the files get their final names,
and again at every `verify`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.data.files import disk_errors
from training.errors import ExportError
from training.export.files import files_below, sha256, writer_errors
from training.export.receipt import finite
from training.graphs import Artefact, Prover


def write_artefact(artefact: Artefact, path: Path) -> None:
    """Write to `path`, which must not exist. Raises ExportError if the writer wrote nothing there, or a link."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with writer_errors(artefact.name):
        artefact.write(path)
    if path.is_symlink():
        raise ExportError(f"{artefact.name} is a symbolic link; an export must contain the files themselves.")
    if not path.exists() or (path.is_dir() and not files_below(path)):
        raise ExportError(f"{artefact.name} was not written: its writer created nothing at the path that it was given.")


def prove(
    name: str, provers: Mapping[str, Prover], prover: str, path: Path, about: Mapping[str, Any]
) -> dict[str, Any]:
    """Run the prover called `prover` on `path`; returns its measurements as plain values.

    Raises ExportError if there is no such prover, if it raises any error, or if it changed the file.
    """
    if prover not in provers:
        raise ExportError(f"{name}: there is no prover `{prover}`; available: {', '.join(provers) or 'none'}.")
    before = sha256(path)
    try:
        measured = plain_values(f"what `{prover}` measured on {name}", provers[prover](path, about))
    except ExportError:
        raise
    except Exception as error:
        raise ExportError(f"{name}: its proof `{prover}` failed: {type(error).__name__}: {error}") from error
    if sha256(path) != before:
        raise ExportError(f"{name}: its proof `{prover}` changed it; a proof must not modify the files.")
    return measured


def plain_values(what: str, values: Any) -> dict[str, Any]:
    """`values` as they are read back from the receipt: JSON, with tuples as lists and null for numbers that are not
    finite. Raises ExportError if `values` is not a mapping of plain values."""
    try:
        plain = json.loads(json.dumps(finite(values), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ExportError(f"{what} is not made of plain values (text, numbers, lists, mappings): {error}") from None
    if not isinstance(plain, dict):
        raise ExportError(f"{what} is a {type(values).__name__}, not a mapping of names to plain values.")
    return plain
