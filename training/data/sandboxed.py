"""The worker process of the sandbox: it sets its limits, then answers items. sandbox.py starts it."""

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
from collections.abc import Callable, Sequence
from multiprocessing import connection, forkserver
from pathlib import Path
from typing import Any

from training.errors import HostError


def serve(
    items: connection.Connection, answers: connection.Connection, code: bytes, megabytes: int, imports: Sequence[str]
) -> None:
    """The worker's main function: load the function and what it imports late, set the limits, answer items until the
    pipe closes."""
    # A separate process group: the caller can kill it together with the programs that a decoder starts, and Ctrl-C in
    # the terminal, which signals the foreground group, reaches the caller alone.
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: the kernel kills this process with the server
    # The fork server ends when the last process closes its end of the "alive" pipe. Workers inherit a copy of it: if
    # they kept it open, workers and server would keep each other running after the caller has ended.
    alive = getattr(forkserver._forkserver, "_forkserver_alive_fd", None)
    if alive is not None:
        os.close(alive)
    try:
        function = pickle.loads(code)
        for name in (module_of(function), *imports):
            importlib.import_module(name)
    except BaseException as error:  # noqa: BLE001 - sent to the caller, who raises it
        answers.send(("unusable", f"{type(error).__name__}: {error}", 0.0))
        return
    quiet = os.open(os.devnull, os.O_WRONLY)  # decoders print to stdout and stderr; their errors are raised
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
    except HostError as error:  # a missing program: the fault is not in the file
        return "host", str(error)
    except Exception as error:  # noqa: BLE001 - a broken file may raise anything; the text becomes its reason
        return "error", _one_line(f"{type(error).__name__}: {error}")


def _one_line(text: str, length: int = 300) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= length else line[: length - 1] + "…"


def _keep_memory() -> None:
    """Let the allocator keep freed memory for the next file. Returning it to the system and mapping it again, page by
    page, took a fifth of the time of a small file. glibc only; other allocators keep their defaults."""
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
    """Let the kernel kill this process (SIGXCPU) once it has used `seconds` more of processor time. RLIMIT_CPU counts
    from the start of the process and in full seconds, so the time used so far is added and the sum is rounded up."""
    if seconds == float("inf"):
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = math.ceil(used.ru_utime + used.ru_stime + seconds)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, hard))


def module_of(function: Callable[[Any], Any]) -> str:
    """The module of the innermost function: importing it takes long. A wrapper's module, as in
    functools.partial(wrapper, decoder), does not."""
    while isinstance(function, functools.partial):
        inner = next((a for a in function.args if callable(a)), None)
        function = inner or function.func
    return function.__module__
