"""Whether a million files are unchanged, by their signatures, checked in several processes.

A stat() takes 3 us per file, most of it in the kernel; threads would wait for each other at the GIL.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise

import numpy as np

from training.data.digests import signatures
from training.data.rows import Texts
from training.host import available_cpus

SHARE = 25_000  # files; for fewer, starting a process takes longer than it saves
MOST = 16  # processes
_AT_ONCE = 1 << 14  # files
_SAME, _CHANGED, _FAILED = 0, 1, 2  # exit codes


@contextmanager
def comparing_signatures(paths: Texts, expected: np.ndarray) -> Iterator[Callable[[], bool]]:
    """Start to compare the signatures of all files with `expected` (int64 [n, 5]). The block gets a function that waits
    for the result, and may do other work before it calls it."""
    count = min(MOST, available_cpus(), len(paths) // SHARE)
    parts = list(pairwise(np.linspace(0, len(paths), max(1, count) + 1).astype(int).tolist()))
    running = {_fork(paths, expected, part): part for part in parts} if count > 1 else {}

    def unchanged() -> bool:
        if not running:
            return _unchanged(paths, expected, (0, len(paths)))
        for pid, part in list(running.items()):
            code = _exit_code(pid)
            del running[pid]
            if code not in (_SAME, _CHANGED):  # it was killed, or memory ran out: this process checks its part
                code = _SAME if _unchanged(paths, expected, part) else _CHANGED
            if code == _CHANGED:
                return False
        return True

    try:
        yield unchanged
    finally:
        for pid in running:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            _exit_code(pid)


def _unchanged(paths: Texts, expected: np.ndarray, part: tuple[int, int], parent: int | None = None) -> bool:
    for begin in range(*part, _AT_ONCE):
        end = min(begin + _AT_ONCE, part[1])
        if not np.array_equal(signatures(paths.every(begin, end)), expected[begin:end]):
            return False
        if parent is not None and os.getppid() != parent:
            os._exit(_FAILED)  # the parent has ended: no process reads the result
    return True


def _fork(paths: Texts, expected: np.ndarray, part: tuple[int, int]) -> int:
    """Start a child process that compares one part; its exit code is the result.

    A plain fork is safe here although the parent may have threads: a fork copies their locks, possibly held, but the
    child runs only numpy indexing and stat(), takes no lock of those threads, and leaves by os._exit, without atexit
    handlers or flushing the parent's buffers. All signals are blocked across the fork and stay blocked in the child, so
    no handler of the parent (Ctrl-C, SIGTERM) can run there; SIGKILL still ends it.
    """
    parent = os.getpid()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            code = _FAILED
            try:
                code = _SAME if _unchanged(paths, expected, part, parent) else _CHANGED
            finally:
                os._exit(code)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid


def _exit_code(pid: int) -> int:
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:  # another part of this process has already waited for it
        return _FAILED
