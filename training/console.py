"""Handles a console that fails while a stage runs: a closed terminal, a pipe (`| head`) whose reader has gone, a full
disk behind `> run.log`, a descriptor that was never open. The work continues, and the exit code is that of the work."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import IO

GONE = (errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO)  # it has no reader any more, so nothing is missed
NAMES = {1: "standard output", 2: "standard error"}

_failures: dict[int, OSError] = {}  # descriptor -> why it could not be written, the first time


class ConsoleFile(io.FileIO):
    """A descriptor to write to. What cannot be written is dropped; the first time, if it had a reader, the other one of
    the two descriptors reports it."""

    def write(self, data: bytes | bytearray | memoryview) -> int:
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            try:
                written = super().write(view[done:])
            except OSError as error:
                _failed(self.fileno(), error)
                break
            if written is None:  # another program has made it non-blocking: wait for its reader, as it would
                select.select([], [self.fileno()], [])
            else:
                done += written
        return len(view)


def keep_console() -> None:
    """From here on, writing to sys.stdout and sys.stderr raises nothing, and the three standard descriptors are open:
    one that was closed would be given to the next file that this process opens.

    Streams that are not this process's own (a notebook's, a test's) stay as they are.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
    if sys.stdout is sys.__stdout__:
        sys.stdout = _stream(sys.stdout, 1)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _stream(sys.stderr, 2)


def failure(number: int) -> OSError | None:
    """Why output to this descriptor was dropped although it may have a reader; None: nothing was."""
    error = _failures.get(number)
    return None if error is None or error.errno in GONE else error


def has_gone(number: int) -> bool:
    """Whether this descriptor has no reader any more."""
    return number in _failures and _failures[number].errno in GONE


def _stream(before: IO[str] | None, number: int) -> io.TextIOWrapper:
    unbuffered = number == 2
    if isinstance(before, io.TextIOWrapper):
        before.flush()
        unbuffered = unbuffered or before.write_through
    raw = ConsoleFile(number, "wb", closefd=False)
    return io.TextIOWrapper(
        raw if unbuffered else io.BufferedWriter(raw),  # type: ignore[arg-type]  as Python itself does under -u
        encoding=(before.encoding if before is not None else None) or "utf-8",
        errors="backslashreplace",  # a character that the encoding does not have raises nothing either
        line_buffering=raw.isatty(),
        write_through=unbuffered,
    )


def _failed(number: int, error: OSError) -> None:
    if number in _failures:
        return
    _failures[number] = error
    if error.errno not in GONE:
        text = (
            f"note: {NAMES[number]} cannot be written ({error.strerror}); its output is dropped. The work continues, "
            "and its exit code is not affected.\n"
        )
        try:
            os.write(3 - number, text.encode())
        except OSError as other:
            _failures.setdefault(3 - number, other)
