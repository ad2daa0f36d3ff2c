"""Runs trials in separate processes, which may be killed, hang, and leave other processes behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.errors import AthanorError, Interrupted


class NotHeld(Exception):
    """What must hold did not; the text states what was observed, with all that is needed to reproduce it."""


def expect(held: object, seen: str) -> None:
    """Raise NotHeld with the text `seen`, unless `held` is true."""
    if not held:
        raise NotHeld(seen)


@dataclass(frozen=True)
class Ended:
    """How a forked process ended."""

    code: int  # exit code; negative: the signal that ended it, as in subprocess
    value: Any  # what its function returned
    not_held: str | None  # the text of the NotHeld that it raised
    output: str  # stdout and stderr together
    seconds: float
    timed_out: bool

    @property
    def tail(self) -> str:
        """The end of its output."""
        return self.output[-2000:]


class Child:
    """A function running in a forked process, in a separate session, that is killed when this process ends. Made by
    `start`.

    A fork has the modules that are imported here, so a trial starts in milliseconds and not in the seconds that
    importing torch takes. It ends as a command does: an AthanorError is printed and determines the exit code, any other
    error results in a traceback and exit code 1.
    """

    def __init__(self, function: Callable[..., Any], arguments: Sequence[Any], environment: Mapping[str, str]):
        self._answer, self._output = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
        self.began = time.monotonic()
        sys.stdout.flush(), sys.stderr.flush()
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            _live(function, arguments, environment, parent, self._answer.fileno(), self._output.fileno())
        self._handle = os.pidfd_open(self.pid)
        self._ended: Ended | None = None

    @property
    def running(self) -> bool:
        return self._ended is None and not select.select([self._handle], [], [], 0)[0]

    @property
    def output(self) -> str:
        """What it has printed so far."""
        size = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), size, 0).decode(errors="replace")

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to this process, but not to those that it started."""
        signal.pidfd_send_signal(self._handle, number)

    def wait(self, seconds: float) -> Ended:
        """Wait for its end; after `seconds` it is killed. The processes that it started are killed in any case."""
        if self._ended is None:
            timed_out = not select.select([self._handle], [], [], seconds)[0]
            took = time.monotonic() - self.began
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            _, status = os.waitpid(self.pid, 0)
            value, not_held = self._read()
            code = os.waitstatus_to_exitcode(status)
            self._ended = Ended(code, value, not_held, self.output, took, timed_out)
            os.close(self._handle)
            self._answer.close(), self._output.close()
        return self._ended

    def _read(self) -> tuple[Any, str | None]:
        self._answer.seek(0)
        try:
            return pickle.load(self._answer)
        except (EOFError, pickle.UnpicklingError):
            return None, None  # it was killed, or ended by os._exit


def start(function: Callable[..., Any], *arguments: Any, environment: Mapping[str, str] | None = None) -> Child:
    """Start `function(*arguments)` in a forked process, with additional environment variables."""
    return Child(function, arguments, environment or {})


def forked(function: Callable[..., Any], *arguments: Any, seconds: float = 60.0) -> Ended:
    """Run `function(*arguments)` in a forked process, and wait for its end."""
    return start(function, *arguments).wait(seconds)


def _live(
    function: Callable[..., Any], arguments: Sequence[Any], environment: Mapping[str, str], parent: int, answer: int,
    output: int,
) -> None:  # fmt: skip
    """The forked process; never returns."""
    code = 1
    try:
        os.setsid()
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)  # the parent ended before prctl took effect
        os.dup2(output, 1), os.dup2(output, 2)
        with open(os.devnull) as nothing:  # noqa: PTH123
            os.dup2(nothing.fileno(), 0)
        # The parent's sys.stdout may be an object of pytest or a notebook that does not write to descriptor 1.
        sys.stdout = sys.__stdout__ = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
        sys.stderr = sys.__stderr__ = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        os.environ.update(environment)
        value, not_held = None, None
        try:
            value = function(*arguments)
            code = 0
        except NotHeld as error:
            not_held, code = str(error), 1
        except (AthanorError, Interrupted) as error:
            print(f"error: {error}", file=sys.stderr)
            code = error.exit_code
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        with open(answer, "wb", closefd=False) as stream:
            pickle.dump((value, not_held), stream)
    except BaseException:  # noqa: BLE001 - a forked process must not return into its parent's code
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)
