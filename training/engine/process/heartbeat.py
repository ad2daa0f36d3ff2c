"""A heartbeat after every step and every validation batch, from which a hang is detected in two ways.

From another process (scripts/health.py): where ATHANOR_HEARTBEAT names a folder, as in the container image, each
process touches a file in it that is named by its process id. No other container may use the folder, since nothing
removes the file of a process that was killed with SIGKILL.

In the process (a watchdog): after `training.hang_minutes` without a heartbeat every thread's stack is written to a file
of the run and to stderr, and the process ends with exit code 1, for training/runner/supervisor.py to start it again.
`faulthandler` does that in C, so it works while the interpreter's lock is held: in a collective that never returns, or
in a driver that does not answer.
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

SECONDS = 5.0  # between two heartbeats: restarting the watchdog starts a thread, which would cost each step time
NOTE = "ATHANOR_CRASH_NOTE"  # names the file in which the supervisor looks for the error of this process
_STDERR = 2

_folder = os.environ.get("ATHANOR_HEARTBEAT")
_watched = False  # between `watch` and `stop_watching`; outside of them `beat` writes nothing
_limit = 0.0  # seconds without a heartbeat after which the watchdog ends the process; 0: no watchdog
_stacks: IO[str] | None = None
_last = 0.0  # time of the newest heartbeat
_beats = 0  # calls of `beat` in this process: the supervisor sees whether a crash is at the same place again


def watch(minutes: float, stacks: Path) -> None:
    """Until `stop_watching`, end this process when `beat` is not called for `minutes` (0: never). `stacks`: the file to
    which the stack of each thread is then written."""
    global _watched, _limit, _stacks
    _watched, _limit = True, 60 * minutes
    if _limit:
        _stacks = _opened(stacks)
        # faulthandler writes to one file for each mechanism: its handler of SIGALRM, whose timer expires first, to this
        # one; half a second later its watchdog, which also ends the process, to stderr.
        faulthandler.register(signal.SIGALRM, _stacks, all_threads=True)
        _restart_watchdog()


def _opened(stacks: Path) -> IO[str]:
    """The file for stacks. On a full disk they go to stderr alone, and training proceeds. Raises HostError."""
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
    """Record that this process has finished a step, a batch or a tensor. A folder that cannot be written is ignored."""
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


def stop_watching() -> None:
    """The training is over: end the watchdog, and remove the heartbeat file and an empty file of stacks."""
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
    """Write for the supervisor, if there is one, which error ended this process, and where. Of several ranks only the
    first to fail writes: the others fail because of it."""
    if NOTE not in os.environ:
        return
    text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    with contextlib.suppress(OSError), Path(os.environ[NOTE]).open("x", encoding="utf-8") as file:
        file.write(f"{text} [after {_beats} steps and batches]\n")
