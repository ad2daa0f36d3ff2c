"""Stop when the process that started this one is gone. An orphan would continue unseen, hold its folder and cost money.

Every process of a job that starts another one (the runner, the supervisor, the launcher of ranks, what runs several
commands at once) names itself to it in ATHANOR_PARENT, and that one follows its parent: when the parent has gone,
however it ended, it stops as SIGTERM would stop it. Each follows the one directly above it, so whichever is killed, all
below it stop. Without the variable nothing is followed: a command that a user started continues without its shell.

The mechanism is to compare os.getppid() twice a second. An orphan is given another parent before the number of the old
one can be used again, so the comparison is exact, and the number in the variable shows a parent that had gone before
the first look. Why not one of the two others:

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
SECONDS = 0.5  # between two looks


def as_parent() -> dict[str, str]:
    """Variables for a child that is to stop when this process has gone."""
    return {PARENT: str(os.getpid())}


def follow(asked: Callable[[], object]) -> None:
    """From here on the end of the parent that ATHANOR_PARENT names is a request to stop: SIGTERM to the main thread of
    this process, unless it was `asked` to stop before. The variable is removed: it is not meant for children."""
    named = os.environ.pop(PARENT, "")
    if named:
        threading.Thread(target=_follow, args=(int(named), asked), name="parent", daemon=True).start()


def _follow(parent: int, asked: Callable[[], object]) -> None:
    # An interpreter that is a script (ATHANOR_PYTHON may name one) stands between the two. Then the number itself is
    # looked for, which would be wrong only if it were used again within half a second.
    lives = (lambda: os.getppid() == parent) if os.getppid() == parent else (lambda: process_exists(parent))
    while lives():
        time.sleep(SECONDS)
    main = threading.main_thread().ident
    if not asked():
        _report(parent)
    # Again until a handler has run: a signal that comes just before a system call begins does not interrupt it.
    while not asked() and main is not None:
        signal.pthread_kill(main, signal.SIGTERM)
        time.sleep(SECONDS)


def _report(parent: int) -> None:
    """No one sent the signal that is reported next. If the terminal ended with the parent, this is not printed."""
    with contextlib.suppress(OSError, ValueError):
        print(
            f"process {parent}, which started process {os.getpid()}, has ended: stopping", file=sys.stderr, flush=True
        )
