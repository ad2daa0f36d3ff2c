"""The life of a sandbox's worker process: its limits, and its answers. See sandbox.py, which starts it."""

from __future__ import annotations

import ctypes
import functools
import importlib
import math
import os
import pickle
import resource
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing import connection, forkserver
from pathlib import Path
from typing import Any

from training.errors import HostError


def serve(items: connection.Connection, answers: connection.Connection, code: bytes, megabytes: int) -> None:
    """The life of a worker: load the function, set the limits, answer items until the pipe closes."""
    os.setpgid(0, 0)  # so that it can be ended together with programs it runs, and Ctrl-C reaches only the caller
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: never outlive the server
    # The server ends when nobody holds this pipe any more; workers inherit it, and would keep it alive by themselves.
    alive = getattr(forkserver._forkserver, "_forkserver_alive_fd", None)
    if alive is not None:
        os.close(alive)
    try:
        function = pickle.loads(code)
        importlib.import_module(module_of(function))
    except BaseException as error:  # noqa: BLE001 - told to the caller, who raises it
        answers.send(("unusable", f"{type(error).__name__}: {error}", 0.0))
        return
    quiet = os.open(os.devnull, os.O_WRONLY)  # decoders chatter on both; what matters is raised
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _keep_memory()
    _limit_memory(megabytes)
    answers.send(("ready", None, 0.0))
    while True:
        try:
            item, processor = items.recv()
        except (EOFError, ConnectionError):
            return
        _limit_processor(processor)
        began = time.monotonic()
        kind, value = _answer(function, item)
        answers.send((kind, value, time.monotonic() - began))
        if kind == "memory":
            return


def _answer(function: Callable[[Any], Any], item: Any) -> tuple[str, Any]:
    try:
        return "value", function(item)
    except MemoryError:
        return "memory", None
    except ValueError as error:
        return "error", _one_line(str(error) or "ValueError")
    except HostError as error:  # a missing program is no fault of the file
        return "host", str(error)
    except Exception as error:  # noqa: BLE001 - decoders raise anything on a broken file; it is told as the reason
        return "error", _one_line(f"{type(error).__name__}: {error}")


def _one_line(text: str, length: int = 300) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= length else line[: length - 1] + "…"


def _keep_memory() -> None:
    """Let the allocator keep what is freed, for the next file: giving it back to the system and getting it anew, page
    by page, took a fifth of the time of a small file. glibc only; elsewhere the allocator's own rules stay."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
        mallopt(trim_threshold, 64 * 2**20)
        mallopt(mmap_threshold, 32 * 2**20)


def _limit_memory(megabytes: int) -> None:
    """Cap the address space at what the process has now plus `megabytes`."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return  # no /proc (macOS), where RLIMIT_AS is not enforced either
    limit = pages * resource.getpagesize() + megabytes * 2**20
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _limit_processor(seconds: float) -> None:
    """The kernel ends this process (SIGXCPU) when it has used so much more processor time, in whole seconds."""
    if seconds == float("inf"):
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = math.ceil(used.ru_utime + used.ru_stime + seconds)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, hard))


def module_of(function: Callable[[Any], Any]) -> str:
    """The module whose import takes long: that of what is called in the end."""
    while isinstance(function, functools.partial):
        # the innermost function is what takes long to import: partial(wrapper, decoder) has two
        inner = next((a for a in function.args if callable(a)), None)
        function = inner or function.func
    return function.__module__
