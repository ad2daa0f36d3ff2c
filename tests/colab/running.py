"""Runs a notebook as Colab does, from its first cell to its last, in a process with a kernel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat

from .conftest import PROJECT, Session


def papermill(session: Session, name: str, parameters: dict, *, timeout: float = 900, **environment: str):
    """Run notebooks/NAME with these parameters -> (exit code, everything that its cells printed, standard error)."""
    made = session.content / Path(name).name
    made.parent.mkdir(parents=True, exist_ok=True)
    source = PROJECT / "notebooks" / name
    words = [sys.executable, "-m", "papermill", str(source), str(made), "--no-progress-bar"]
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("ATHANOR_", "STANDIN_"))}
    done = subprocess.run(
        [*words, "-y", json.dumps(parameters)], env={**clean, **session.environment, **environment},
        cwd=session.content, capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip
    return done.returncode, printed(made), done.stderr


def printed(notebook: Path) -> str:
    """What the cells of a notebook that was run have printed, errors too."""
    if not notebook.exists():
        return ""
    text = []
    for cell in nbformat.read(notebook, 4).cells:
        for output in cell.get("outputs", []):
            text.append(output.get("text") or "\n".join(output.get("traceback", [])))
    return "".join(text)


def parameters(session: Session, **more) -> dict:
    """Those that make a notebook run on the stand-in."""
    return {
        "CODE": str(PROJECT), "DRIVE": str(session.mount), "SETTINGS": str(session.settings_file()),
        "OUT": str(session.content / "job"), "PRESET": "debug", "TENSORBOARD": False, **more,
    }  # fmt: skip
