"""Whether a million files are as they were: asked of the file system by several processes at once.

To ask takes 3 us a file, most of it in the kernel; Python's own threads would wait for each other.
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

SHARE = 25_000  # files; for fewer no process is worth its start
MOST = 16  # processes
_AT_ONCE = 1 << 14  # files
_SAME, _CHANGED, _FAILED = 0, 1, 2  # exit codes


@contextmanager
def looking(paths: Texts, signed: np.ndarray) -> Iterator[Callable[[], bool]]:
    """Begin to look whether all files have the signatures `signed` (int64 [n, 5]). The block is given a function that
    waits for the answer, and may do something else before it asks."""
    count = min(MOST, available_cpus(), len(paths) // SHARE)
    parts = list(pairwise(np.linspace(0, len(paths), max(1, count) + 1).astype(int).tolist()))
    crew = {_fork(paths, signed, part): part for part in parts} if count > 1 else {}

    def same() -> bool:
        if not crew:
            return _same(paths, signed, (0, len(paths)))
        for pid, part in list(crew.items()):
            code = _ended(pid)
            del crew[pid]
            if code not in (_SAME, _CHANGED):  # killed, or out of memory: what it was to find out is not known
                code = _SAME if _same(paths, signed, part) else _CHANGED
            if code == _CHANGED:
                return False
        return True

    try:
        yield same
    finally:
        for pid in crew:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            _ended(pid)


def _same(paths: Texts, signed: np.ndarray, part: tuple[int, int], parent: int | None = None) -> bool:
    for begin in range(*part, _AT_ONCE):
        end = min(begin + _AT_ONCE, part[1])
        if not np.array_equal(signatures(paths.every(begin, end)), signed[begin:end]):
            return False
        if parent is not None and os.getppid() != parent:
            os._exit(_FAILED)  # nobody waits for the answer
    return True


def _fork(paths: Texts, signed: np.ndarray, part: tuple[int, int]) -> int:
    """A process that does nothing else and hears no signal but SIGKILL: its exit code is the answer."""
    parent = os.getpid()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            code = _FAILED
            try:
                code = _SAME if _same(paths, signed, part, parent) else _CHANGED
            finally:
                os._exit(code)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid


def _ended(pid: int) -> int:
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:  # somebody else has waited for it
        return _FAILED
