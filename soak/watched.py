"""Measures the time and memory that decoding each file takes, inside the workers that decode it.

This module imports little, as every worker of the sandbox imports it.
"""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

MUTANT = "ATHANOR_SOAK_MUTANT"  # as in harness.py, which is too heavy to import here


def decode(function: Callable[[Path], Any], log: Path, path: Path) -> Any:
    """`function(path)`, with its start and end recorded in `log`; under a mutant, with its fault applied."""
    with _fault(), open(log, "a", encoding="utf-8") as stream:  # noqa: PTH123
        _write(stream, path, "begin")
        _reset_peak()
        began = _processor()
        try:
            return function(path)
        finally:
            _write(stream, path, "end", processor=_processor() - began, megabytes=_peak() + _children())


def _write(stream, path: Path, what: str, **more: float) -> None:
    stream.write(json.dumps({"path": os.fsencode(path).hex(), "what": what, "at": time.monotonic(), **more}) + "\n")
    stream.flush()


def _processor() -> float:
    """Seconds of processor time of this process and of what it started and waited for."""
    return sum(getattr(resource.getrusage(who), field) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
               for field in ("ru_utime", "ru_stime"))  # fmt: skip


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak() -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def _children() -> float:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


# -- mutants' faults, applied in the workers -----------------------------------------------------------------------


def _no_length_limit() -> AbstractContextManager[None]:
    from training.domains.music.sound import decoding

    return _patched(decoding, "longest", lambda path: float("inf"))


def _accept_truncated() -> AbstractContextManager[None]:
    from training.domains.music.sound import decoding, source

    return _patched(decoding, "contents", lambda path: source.Contents())


def _names_through_a_shell() -> AbstractContextManager[None]:
    """ffmpeg is started as `os.system(f'ffmpeg ... {path}')` would."""
    from training.domains.music.sound import decoding

    real = decoding.subprocess.Popen
    return _patched(decoding.subprocess, "Popen", lambda command, **rest: real(" ".join(command), shell=True, **rest))


FAULTS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "no limit on the length of sound for a file's size": _no_length_limit,
    "truncated recordings are accepted": _accept_truncated,
    "names go through a shell": _names_through_a_shell,
}


def _fault() -> AbstractContextManager[None]:
    return FAULTS.get(os.environ.get(MUTANT, "").partition(":")[2], nullcontext)()


@contextmanager
def _patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


# -- in the caller -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """The most that one attempt to decode a file took. `seconds` is processor time, so that the load of the machine
    does not count; but wall-clock time if decoding mostly waited. `megabytes` is the peak of resident memory."""

    seconds: float
    megabytes: float


@contextmanager
def encoders(log: Path) -> Iterator[None]:
    """While entered, the decoders of `prepare` are measured. When the sandbox ends a worker, the end of the file that
    it was decoding is recorded."""
    from training.data import sandbox
    from training.domains.music import sharding

    names = ("LOGMEL", "NOTES", "TOKENS")
    before = {name: getattr(sharding, name) for name in names}
    worker = sandbox._Worker
    endings = {name: getattr(worker, name) for name in ("reap", "time_out")}

    def ended(name: str, self: Any) -> Any:
        if self.queue:
            _, path, limit = self.queue[0]
            # A worker that the kernel has killed at its processor limit, which is in whole numbers of seconds, took
            # up to a second more.
            with log.open("a", encoding="utf-8") as stream:
                _write(stream, path, "end", processor=limit.processor + 1 if name == "reap" else 0.0, megabytes=0.0)
        return endings[name](self)

    for name, encoder in before.items():
        setattr(sharding, name, replace(encoder, function=partial(decode, encoder.function, log)))
    for name in endings:
        setattr(worker, name, lambda self, name=name: ended(name, self))
    try:
        yield
    finally:
        for name, encoder in before.items():
            setattr(sharding, name, encoder)
        for name, method in endings.items():
            setattr(worker, name, method)


def costs(log: Path) -> dict[bytes, Cost]:
    """The cost of each file in the log, by the bytes of its path."""
    out: dict[bytes, Cost] = {}
    began: dict[str, float] = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if entry["what"] == "begin":
            began[entry["path"]] = entry["at"]
            continue
        key = bytes.fromhex(entry["path"])
        took = entry["at"] - began.pop(entry["path"], entry["at"])
        if entry["processor"] > 0.2 * took:
            took = min(took, entry["processor"])
        known = out.get(key, Cost(0.0, 0.0))
        out[key] = Cost(max(took, known.seconds), max(entry["megabytes"], known.megabytes))
    return out
