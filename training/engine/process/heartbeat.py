"""A sign of life after every step and every held-out batch, for two that watch a training.

From outside (scripts/health.py): where ATHANOR_HEARTBEAT names a folder, as the container image does, a file for each
process, named by its number. The folder must be the container's own: nothing cleans up after kill -9.

From inside: after `training.hang_minutes` without a sign every thread's stack goes to a file of the run and to stderr,
and the process ends with exit code 1, for training/runner/supervisor.py to start it again. `faulthandler` does that in
C, so it works while the interpreter's lock is held: in a collective that waits for ever, in a driver that does not
answer.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import os
import signal
import time
from pathlib import Path
from typing import IO

from training.data.files import disk_errors, is_full
from training.errors import HostError

SECONDS = 5.0  # between two signs: to wind up the watchdog starts a thread, which no step should pay for
NOTE = "ATHANOR_CRASH_NOTE"  # names a file for the supervisor: what this process crashed with
_STDERR = 2

_folder = os.environ.get("ATHANOR_HEARTBEAT")
_watched = False  # between `watch` and `rest`; outside of them a sign means nothing
_limit = 0.0  # seconds without a sign after which the watchdog strikes; 0: none
_stacks: IO[str] | None = None
_last = 0.0  # when a sign was given
_beats = 0  # in this process: tells one place in a run from another


def watch(minutes: float, stacks: Path) -> None:
    """From here to `rest`, this process ends itself when no `beat` comes for `minutes` (0: never). `stacks`: the file
    that then tells where each thread stood."""
    global _watched, _limit, _stacks
    _watched, _limit = True, 60 * minutes
    if _limit:
        _stacks = _opened(stacks)
        # Each of the two writes to one file: a signal's handler to this one, then the watchdog, which also ends the
        # process, to stderr.
        faulthandler.register(signal.SIGALRM, _stacks, all_threads=True)
        _restart_watchdog()


def _opened(stacks: Path) -> IO[str]:
    """On a full disk the stacks go to stderr alone: they are no reason not to train. Raises HostError."""
    try:
        with disk_errors(stacks):
            stacks.parent.mkdir(parents=True, exist_ok=True)
            return stacks.open("a", encoding="utf-8")
    except HostError as error:
        if not is_full(error.__cause__):
            raise
        return Path(os.devnull).open("w", encoding="utf-8")


def _restart_watchdog() -> None:
    signal.setitimer(signal.ITIMER_REAL, _limit)
    faulthandler.dump_traceback_later(_limit + 0.5, exit=True, file=_STDERR)


def beat() -> None:
    """This process has just finished a piece of work. A folder that cannot be written never stops a training."""
    global _last, _beats
    _beats += 1
    now = time.monotonic()
    if not _watched or (_last and now - _last < min(SECONDS, _limit / 8 or SECONDS)):
        return
    first, _last = not _last, now
    if _limit:
        _restart_watchdog()
    if _folder:
        path = Path(_folder) / str(os.getpid())
        with contextlib.suppress(OSError):
            if first:
                path.parent.mkdir(parents=True, exist_ok=True)
                atexit.register(path.unlink, missing_ok=True)
            path.touch()


def rest() -> None:
    """The training is over: no more signs will come, and none are missed."""
    global _watched, _limit, _stacks, _last
    if _folder:
        with contextlib.suppress(OSError):
            (Path(_folder) / str(os.getpid())).unlink(missing_ok=True)
    if _stacks is not None:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.unregister(signal.SIGALRM)
        _stacks.close()
        with contextlib.suppress(OSError):
            path = Path(_stacks.name)
            if path.is_file() and not path.stat().st_size:
                path.unlink()
    _watched, _limit, _stacks, _last = False, 0.0, None, 0.0


def note_crash(error: BaseException) -> None:
    """Tell the supervisor, if there is one, what this process crashed with, and where. Of several ranks the first is
    heard: the others fall because of it."""
    if NOTE not in os.environ:
        return
    text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    with contextlib.suppress(OSError), Path(os.environ[NOTE]).open("x", encoding="utf-8") as file:
        file.write(f"{text} [after {_beats} steps and batches]\n")
