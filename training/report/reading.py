"""Reads the files of a job for the page: a missing file is None, a damaged one is listed and not shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from training.errors import ExportError

T = TypeVar("T")


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None if there is no file. Raises ValueError for a damaged file, and OSError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} cannot be read: it holds no object.")
    return found


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects in a file of JSON lines; none if there is no file. The last line may be incomplete, as it is being
    written or its writer was killed. Raises ValueError for any other damaged line, and OSError."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    found = []
    for number, line in enumerate(lines, 1):
        try:
            one = json.loads(line)
        except ValueError as error:
            if number == len(lines):
                break
            raise ValueError(f"{path.name} line {number} cannot be read: {error}") from None
        if not isinstance(one, dict):
            raise ValueError(f"{path.name} line {number} cannot be read: it holds no object.")
        found.append(one)
    return found


def attempt(read: Callable[[], T], problems: list[str]) -> T | None:
    """What `read` returns; None if it fails, with the reason added to `problems`."""
    try:
        return read()
    except (OSError, ValueError, KeyError, ExportError) as error:
        problems.append(f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error))
        return None


def objects(values: Any) -> Iterable[tuple[str, dict[str, Any]]]:
    """The entries of a JSON object that are objects themselves."""
    return ((str(k), v) for k, v in values.items() if isinstance(v, dict)) if isinstance(values, dict) else ()
