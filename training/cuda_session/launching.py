"""What the scripts of this folder share: `python -m training train` for one family."""

from __future__ import annotations

import sys
from pathlib import Path

from training.cli import main


def train_script(family: str, folder: Path) -> int:
    """Run `train` for one family, from a script in `folder`; a --config that is not found is looked up there. Returns
    the exit code."""
    arguments = sys.argv[1:]
    for index, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == "--config" and (equals or index + 1 < len(arguments)):
            at, path = (index, Path(value)) if equals else (index + 1, Path(arguments[index + 1]))
            if not path.exists() and (folder / path).exists():
                arguments[at] = f"--config={folder / path}" if equals else str(folder / path)
    return main(["train", family, *arguments])
