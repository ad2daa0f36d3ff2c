"""A scratch folder under --out, on the disk that is saved to."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.data.files import disk_errors
from training.workspace import Workspace, exclusive


@contextmanager
def scratch(workspace: Workspace, name: str, purpose: str) -> Iterator[Path]:
    """The folder `name` under the workspace, absolute and empty, for this process alone; removed at the end. What a
    killed process left in it is removed at the beginning. Raises HostError."""
    folder = workspace.root.absolute() / name
    with disk_errors(folder), exclusive(folder, purpose):
        for path in folder.iterdir():
            if path.name != ".lock":
                shutil.rmtree(path)
        try:
            yield folder
        finally:
            shutil.rmtree(folder)
