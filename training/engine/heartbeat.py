"""A sign of life after every step and every held-out batch, for whoever watches from outside (scripts/health.py).

Written only where ATHANOR_HEARTBEAT names a folder, as the container image does: one file a process, named by its
number, and touched at most every few seconds. The folder must be the container's own: nothing cleans up after kill -9.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import time
from pathlib import Path

SECONDS = 5.0  # between two touches

_folder = os.environ.get("ATHANOR_HEARTBEAT")
_last = 0.0


def beat() -> None:
    """This process has just finished a piece of work. A folder that cannot be written never stops a training."""
    global _last
    now = time.monotonic()
    if not _folder or (_last and now - _last < SECONDS):
        return
    path = Path(_folder) / str(os.getpid())
    with contextlib.suppress(OSError):
        if not _last:
            path.parent.mkdir(parents=True, exist_ok=True)
            atexit.register(path.unlink, missing_ok=True)
        path.touch()
    _last = now


def rest() -> None:
    """The training is over: no more signs will come, and none are missed."""
    global _last
    if _folder:
        with contextlib.suppress(OSError):
            (Path(_folder) / str(os.getpid())).unlink(missing_ok=True)
    _last = 0.0
