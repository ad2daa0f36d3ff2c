"""Where the notebook runs: Colab, Colab Enterprise or elsewhere, its folders, its clock and its environment."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import time
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
CONTENT = "ATHANOR_COLAB_CONTENT"  # environment variable: a folder instead of /content
STAMP = ".athanor-session"  # in the content folder: when this session was first seen


class ColabError(RuntimeError):
    """Something that the notebook cannot continue without. The message names the cause and the remedy."""


def detect_colab() -> str | None:
    """ "colab", "enterprise" (which has no Google Drive), or None elsewhere."""
    if os.environ.get("VERTEX_PRODUCT") == "COLAB_ENTERPRISE":
        return "enterprise"
    with contextlib.suppress(ModuleNotFoundError):  # of `google`
        if importlib.util.find_spec("google.colab") is not None:
            return "colab"
    return None


def colab_module(name: str) -> Any:
    """`google.colab.NAME`. Raises ColabError outside of Colab."""
    try:
        return importlib.import_module(f"google.colab.{name}")
    except ModuleNotFoundError:
        raise ColabError(f"google.colab.{name} is not there: this is not a Colab notebook.") from None


def content() -> Path:
    """The session's own disk: /content on Colab."""
    return Path(os.environ.get(CONTENT) or "/content")


def default_out() -> Path:
    """The job's folder: on the session's own disk, never on a drive."""
    return content() / "athanor-job"


def environment_python() -> Path:
    """The interpreter of the project's environment. Raises ColabError if it was not made yet."""
    named = os.environ.get("ATHANOR_PYTHON")
    python = Path(named or Path(os.environ.get("ATHANOR_VENV") or PROJECT / ".venv", "bin/python"))
    if not python.exists():
        raise ColabError(f"{python} is not there: run the cell that sets up the environment first.")
    return python


# -- the session ---------------------------------------------------------------------------------------------------


def session_start(started: float | None = None) -> float:
    """When this session began, in seconds since 1970: the older of the start of process 1 and of the first call here.

    `started`: the time, if you know it better; it is kept for later calls."""
    stamp = content() / STAMP
    known = [time.time()]
    with contextlib.suppress(OSError, ValueError):
        seen = json.loads(stamp.read_text(encoding="utf-8"))
        if seen["given"] and started is None:
            return float(seen["began"])
        known.append(float(seen["began"]))
    if started is None and os.environ.get("ATHANOR_SESSION_STARTED"):
        started = float(os.environ["ATHANOR_SESSION_STARTED"])
    if started is None:
        with contextlib.suppress(OSError, ValueError, IndexError):
            known.append(_first_process_start())
    first = min(known) if started is None else started
    content().mkdir(parents=True, exist_ok=True)
    stamp.write_text(json.dumps({"began": first, "given": started is not None}), encoding="utf-8")
    return first


def _first_process_start() -> float:
    """The start of process 1, in seconds since 1970."""
    ticks = int(Path("/proc/1/stat").read_text().rpartition(")")[2].split()[19])
    booted = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
    return int(booted.split()[1]) + ticks / os.sysconf("SC_CLK_TCK")
