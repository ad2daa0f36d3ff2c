"""Stop when the process that started this one is gone. An orphan would continue unseen, hold its folder and cost money.

Every process of a job that starts another one (the runner, the supervisor, the launcher of ranks, stages/children.py)
passes it its process number in ATHANOR_PARENT. The child follows this process: when it has gone, however it ended, the
child stops as on SIGTERM. Each process follows the one directly above it, so whichever is killed, all below it stop.
Without the variable nothing is followed: a command that a user started continues without its shell.

The child compares os.getppid() with this number twice a second. An orphan gets another parent before the number of the
old one can be used again, so the comparison is exact, and it also shows a parent that had gone before the first
comparison. Why not one of the two alternatives:

- prctl(PR_SET_PDEATHSIG) exists on Linux only; the end of the parent's *thread* sends it; it would have to be set
  between fork and exec, where nothing is safe beside threads; and a SIGTERM that it sends while a stage is already
  stopping is that stage's second request, which ends it in the middle of its last save.
- A pipe whose write end the parent alone holds would have to pass through torchrun, which closes what its ranks could
  inherit, and the write end would have to be kept from everything else that the parent starts. It is what remains
  where a container's client is the child, which follows no process (scripts/docker.sh).
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

from training.host import process_exists

PARENT = "ATHANOR_PARENT"
SECONDS = 0.5  # between two comparisons


def as_parent(process: int | None = None) -> dict[str, str]:
    """Environment variables for a child that is to stop when `process` (default: this one) has gone."""
    return {PARENT: str(process or os.getpid())}


def follow(is_stopping: Callable[[], object]) -> None:
    """From here on, send SIGTERM to the main thread of this process when the parent that ATHANOR_PARENT names has
    ended, unless `is_stopping()` shows that a stop was requested before. The variable is removed, as it is not meant
    for children."""
    named = os.environ.pop(PARENT, "")
    if named:
        threading.Thread(target=_follow, args=(int(named), is_stopping), name="parent", daemon=True).start()


def _follow(parent: int, is_stopping: Callable[[], object]) -> None:
    # If the interpreter is a shell script (ATHANOR_PYTHON may name one), its process is between the two. Then this
    # looks for a process of this number, which is wrong only if the number is used again within half a second.
    lives = (lambda: os.getppid() == parent) if os.getppid() == parent else (lambda: process_exists(parent))
    while lives():
        time.sleep(SECONDS)
    main = threading.main_thread().ident
    if not is_stopping():
        _report(parent)
    # Repeated until a handler has run: a signal that arrives just before a system call begins does not interrupt it.
    while not is_stopping() and main is not None:
        signal.pthread_kill(main, signal.SIGTERM)
        time.sleep(SECONDS)


def _report(parent: int) -> None:
    """Print why a SIGTERM follows that no one sent. If the terminal was closed with the parent, nothing is printed."""
    with contextlib.suppress(OSError, ValueError):
        print(
            f"process {parent}, which started process {os.getpid()}, has ended: stopping", file=sys.stderr, flush=True
        )
