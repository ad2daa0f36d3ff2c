"""Stop signals (SIGTERM, SIGINT, SIGHUP) and the end of the parent: finish the step, save, end. A second one ends the
process at once."""

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
#: A terminal's Ctrl-C reaches the process directly and again through torchrun, and a host that shuts down signals every
#: process at once: a repetition within this time is not a second request.
ECHO_SECONDS = 1.0

_earlier: tuple[str, float] | None = None  # the signal that `interrupt` received, and when
_requested = False  # whether any request came since `interrupt_on_signals`


def install_handlers(handler: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Set `handler` for every stop signal; returns the earlier handlers. Under `nohup` SIGHUP stays ignored.

    Ignored and blocked signals are inherited from the process that started this one, and are reset here: a shell script
    ignores SIGINT for what it starts in the background, and where SIGCHLD is ignored the exit codes of our own children
    are lost.
    """
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)

    def received(number: int, frame: FrameType | None) -> None:
        global _requested
        _requested = True
        handler(number, frame)

    hangup_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    stops = [number for number in STOPS if not (hangup_ignored and number == signal.SIGHUP)]
    return {number: signal.signal(number, received) for number in stops}


def follow_parent() -> None:
    """From here on the end of the parent process (training/parent.py) counts as a stop signal. It is ignored where a
    stop was requested before, so that the save in progress is not cut short."""
    follow(lambda: _requested)


def interrupt_on_signals() -> dict[int, Any]:
    """From here on a stop signal raises Interrupted, whatever is being executed; within `Signals` the step is finished
    first. Returns the earlier handlers."""
    global _earlier, _requested
    _earlier, _requested = None, False
    return install_handlers(interrupt)


def interrupt(number: int, _frame: FrameType | None) -> None:
    """The signal handler outside of training. Raises Interrupted: the stages write atomically, so that finished files
    are kept wherever one is stopped."""
    global _earlier
    now = time.monotonic()
    if _earlier is None:
        _earlier = (signal.Signals(number).name, now)
        raise Interrupted(f"{_earlier[0]}: stopped; what was finished is kept. Run the same command again.")
    if now - _earlier[1] >= ECHO_SECONDS:
        end_at_once(number)


def stopped(error: BaseException) -> Interrupted | None:
    """An Interrupted for `error`, if `interrupt` was called before and a library replaced what it raised; else None."""
    if _earlier is None or isinstance(error, Interrupted):
        return None
    return Interrupted(f"{_earlier[0]}: stopped (in {type(error).__name__}); what was finished is kept. Run it again.")


def end_at_once(number: int) -> None:
    """End this process by the default action of this signal."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


class Signals:
    """Within this context the first stop signal sets `name`, which the training loop reads at every step. While
    `immediate` is true (before the first step of this process, and after the last save) nothing could be lost, and the
    signal raises Interrupted at once instead."""

    def __init__(self) -> None:
        self.name = ""  # of the first stop signal, such as "SIGTERM"; empty: none was received
        self.immediate = True
        self._requested_at = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():  # only there may handlers be set
            self._before = install_handlers(self._handle)
        if _earlier is not None:  # the Interrupted of that signal was lost: Python ignores errors in destructors
            self.name, self._requested_at = _earlier
            self.__exit__(None, None, None)
            raise self._interrupted()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self.name and self.immediate and isinstance(error, Exception) and not isinstance(error, Interrupted):
            # A library (a compiler, a loader) caught the Interrupted and raised another error in its place.
            raise self._interrupted() from error

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.name:
            if now - self._requested_at >= ECHO_SECONDS:
                end_at_once(number)
            return
        self.name, self._requested_at = signal.Signals(number).name, now
        if self.immediate:
            raise self._interrupted()

    def _interrupted(self) -> Interrupted:
        return Interrupted(
            f"{self.name}: stopped; everything done so far is saved. Run the same command again to continue."
        )
