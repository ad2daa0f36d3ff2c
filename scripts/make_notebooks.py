#!/usr/bin/env python
"""Generates notebooks/*.ipynb from notebooks/src/*.py (jupytext's percent format).

    python scripts/make_notebooks.py [--check]

--check writes nothing, and ends with 1 if a notebook is not as generated. Needs the extra `notebooks`:
scripts/setup_env.sh notebooks. `# %% include NAME` stands for the cells of src/NAME.py, and __NAME__ for a value of
src/notebooks.yaml. Ids of cells come from the notebook's name and the cell's position, so that the same source always
gives the same file. Refused: a code cell without an explanation before it, and a placeholder without a value.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import yaml

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
SOURCES = NOTEBOOKS / "src"
INCLUDE = re.compile(r"^# %% include (\w+)\n", re.M)
PLACEHOLDER = re.compile(r"__([A-Z]+(?:_[A-Z]+)*)__")
METADATA = {
    "accelerator": "GPU",
    "colab": {"provenance": [], "toc_visible": True},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


class SourceError(ValueError):
    """A source that no notebook can be made of."""


def notebooks() -> dict[str, str]:
    """Name of every notebook, relative to notebooks/ -> its content."""
    listed = yaml.safe_load((SOURCES / "notebooks.yaml").read_text(encoding="utf-8"))
    return {name: generated(name, about["source"], about.get("values", {})) for name, about in listed.items()}


def generated(name: str, source: str, values: dict[str, Any]) -> str:
    """The content of one notebook. Raises SourceError."""
    text = (SOURCES / source).read_text(encoding="utf-8")
    text = INCLUDE.sub(lambda found: (SOURCES / f"{found[1]}.py").read_text(encoding="utf-8"), text)
    missing = sorted({found for found in PLACEHOLDER.findall(text) if found not in values})
    if missing:
        raise SourceError(f"{source}: notebooks.yaml gives {name} no value for {', '.join(missing)}.")
    text = PLACEHOLDER.sub(lambda found: str(values[found[1]]).strip(), text)
    notebook = jupytext.reads(text, fmt="py:percent")
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    explained = False
    for position, cell in enumerate(notebook.cells):
        cell["id"] = hashlib.sha256(f"{name} {position}".encode()).hexdigest()[:12]
        if cell.cell_type == "code":
            cell.metadata = nbformat.from_dict({"tags": cell.metadata["tags"]} if "tags" in cell.metadata else {})
            if not explained:
                raise SourceError(f"{source}: cell {position + 1} of {name} has no explanation before it.")
        explained = cell.cell_type == "markdown"
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Write, or check; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only compare")
    options = parser.parse_args(arguments)
    made = notebooks()
    stale = []
    for name, content in made.items():
        path = NOTEBOOKS / name
        if path.is_file() and path.read_text(encoding="utf-8") == content:
            continue
        stale.append(name)
        if not options.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
    stale += sorted({path.relative_to(NOTEBOOKS).as_posix() for path in NOTEBOOKS.rglob("*.ipynb")} - set(made))
    if options.check and stale:
        print(f"not as generated: {', '.join(stale)}. Run python scripts/make_notebooks.py", file=sys.stderr)
        return 1
    print(f"{len(made)} notebooks, {len(stale)} {'stale' if options.check else 'written'}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
