"""SIGTERM, SIGINT, SIGHUP, the end of the parent: finish the step, save, leave. A second signal ends at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from training.errors import Interrupted
from training.parent import follow

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
#: A terminal's Ctrl-C reaches the process directly and again through torchrun, and a host that shuts down tells every
#: process at once: the echo is no second request.
ECHO_SECONDS = 1.0

_earlier: tuple[str, float] | None = None  # the signal that `interrupt` received, and when
_asked = False  # whether any request came since `listen`


def listening(handler: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Set `handler` for every request to stop; returns the handlers before. `nohup` means what it says.

    Ignored and blocked signals are inherited from whatever started this process: a shell script ignores SIGINT for what
    it starts in the background, and a parent that ignores SIGCHLD would hide how our own children end.
    """
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)

    def received(number: int, frame: FrameType | None) -> None:
        global _asked
        _asked = True
        handler(number, frame)

    hangup_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    stops = [number for number in STOPS if not (hangup_ignored and number == signal.SIGHUP)]
    return {number: signal.signal(number, received) for number in stops}


def follow_parent() -> None:
    """From here on the end of the parent (training/parent.py) is a request to stop to whoever is `listening`. Where one
    came before, it is none: the save that is under way is not cut short."""
    follow(lambda: _asked)


def listen() -> dict[int, Any]:
    """From here on a request to stop raises Interrupted wherever it finds this process; `Signals` does better. Returns
    the handlers before."""
    global _earlier, _asked
    _earlier, _asked = None, False
    return listening(interrupt)


def interrupt(number: int, _frame: FrameType | None) -> None:
    """The handler outside of training: the stages write atomically, so stopping anywhere leaves what was done."""
    global _earlier
    now = time.monotonic()
    if _earlier is None:
        _earlier = (signal.Signals(number).name, now)
        raise Interrupted(f"{_earlier[0]}: stopped; what was finished is kept. Run the same command again.")
    if now - _earlier[1] >= ECHO_SECONDS:
        end_at_once(number)


def stopped(error: BaseException) -> Interrupted | None:
    """The Interrupted behind `error`, if `interrupt` was called before: a library may have replaced it."""
    if _earlier is None or isinstance(error, Interrupted):
        return None
    return Interrupted(f"{_earlier[0]}: stopped (in {type(error).__name__}); what was finished is kept. Run it again.")


def end_at_once(number: int) -> None:
    """Die of this signal."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


class Signals:
    """While entered, a first signal is noted in `name`. Where nothing could be lost (`immediate`) it raises
    Interrupted on the spot: before the first step of this process, and after the last save. Elsewhere the loop asks
    `name`."""

    def __init__(self) -> None:
        self.name = ""  # "SIGTERM" once asked to stop
        self.immediate = True
        self._asked = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():  # only there may handlers be set
            self._before = listening(self._handle)
        if _earlier is not None:  # what it raised then was lost: raised in a destructor, or in a callback of an import
            self.name, self._asked = _earlier
            self.__exit__(None, None, None)
            raise self._interrupted()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self.name and self.immediate and isinstance(error, Exception) and not isinstance(error, Interrupted):
            # Raised inside a library that wrapped or replaced it (a compiler, a loader).
            raise self._interrupted() from error

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.name:
            if now - self._asked >= ECHO_SECONDS:
                end_at_once(number)
            return
        self.name, self._asked = signal.Signals(number).name, now
        if self.immediate:
            raise self._interrupted()

    def _interrupted(self) -> Interrupted:
        return Interrupted(
            f"{self.name}: stopped; everything done so far is saved. Run the same command again to continue."
        )
