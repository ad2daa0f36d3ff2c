"""SIGTERM and SIGINT: finish the step, save, leave. A second one ends at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType, TracebackType

from training.errors import Interrupted

#: A terminal's Ctrl-C reaches the process directly and again through torchrun: the echo is no second request.
ECHO_SECONDS = 1.0


class Signals:
    """While entered, a first signal is noted in `name`. Where nothing could be lost (`immediate`) it raises
    Interrupted on the spot: before the first step of this process, and after the last save. Elsewhere the loop asks
    `name`."""

    def __init__(self) -> None:
        self.name = ""  # "SIGTERM" once asked to stop
        self.immediate = True
        self._asked = 0.0
        self._before: dict[int, object] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():  # only there may handlers be set
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        if self.name and self.immediate and isinstance(error, Exception) and not isinstance(error, Interrupted):
            # Raised inside a library that wrapped or replaced it (a compiler, a loader).
            raise self._interrupted() from error

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.name:
            if now - self._asked < ECHO_SECONDS:
                return
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self.name, self._asked = signal.Signals(number).name, now
        if self.immediate:
            raise self._interrupted()

    def _interrupted(self) -> Interrupted:
        return Interrupted(
            f"{self.name}: stopped; everything done so far is saved. Run the same command again to go on."
        )
