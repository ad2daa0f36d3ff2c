"""Verifies that a folder of exports matches its receipt. Only the exported files are needed, no checkpoint or data."""

from __future__ import annotations

import shlex
from pathlib import Path

from training.errors import AthanorError, ExportError
from training.export.check import Line, check_run
from training.export.layout import Layout
from training.export.receipt import NAME, read_receipt
from training.export.table import table
from training.registry import recipe_type

_MODELS = (".onnx", ".mlpackage", ".safetensors")


def verify(folder: Path) -> None:
    """Check digests, ONNX Runtime's outputs against the golden files, recurrences, int8 in the task's metric, CoreML
    descriptions, weights, and artefacts with their provers. Prints a line for each file. Raises ExportError, listing
    every problem, if a file is missing or differs."""
    receipt = read_receipt(folder)
    if receipt is None or not receipt["families"]:
        raise ExportError(f"There are no exports in {folder} (no {NAME}). `python -m training export` makes them.")
    problems: list[str] = []
    bad: list[str] = []  # runs that have some
    places = {folder}
    for run, entry in receipt["families"].items():
        try:
            kind, layout = recipe_type(run), Layout.of(run)
            lines = check_run(folder, run, entry, kind.grade, kind.provers)
        except AthanorError as error:
            problems.append(str(error))
            bad.append(run)
            continue
        made = entry.get("exported", {}).get("at", "at an unknown time")
        synthetic = ", synthetic: true" if entry.get("synthetic") else ""
        print(f"{entry.get('title', run)} (exported {made}{synthetic})")
        print(table((line.name, line.bytes, _status(line)) for line in lines))
        for note in entry.get("notes", []):
            print(f"  NOTE: {note}")
        found = [f"{line.name}: {problem}" for line in lines for problem in line.problems]
        problems += found
        bad += [run] if found else []
        places.add(folder / layout.item)
    listed = {name for entry in receipt["families"].values() for name in entry["files"]}
    for path in sorted(path for place in places if place.is_dir() for path in place.iterdir()):
        name = path.relative_to(folder).as_posix()
        if path.suffix in _MODELS and not path.name.startswith(".") and name not in listed:
            print(f"  NOTE: {name} is not in the receipt; it was not checked.")
    if problems:
        raise ExportError(
            f"{folder} does not verify:\n"
            + "\n".join(f"  {problem}" for problem in problems)
            + "\nCopy the files again from where they were exported, or export them again there, which trains nothing: "
            f"python -m training export {shlex.join(bad)}"
        )
    print(f"All {len(listed)} files verified.")


def _status(line: Line) -> str:
    return "BAD" if line.problems else f"ok  {line.detail}"
