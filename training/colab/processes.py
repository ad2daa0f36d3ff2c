"""Commands from a notebook: their output in the cell, their exit codes heeded, and one SIGTERM when the cell is
stopped.

`!command` ignores exit codes, and a second click on the stop button ends it with SIGKILL half a second later.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import select
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.colab.surroundings import PROJECT, ColabError

SAVED = 75  # interrupted with everything saved
PAUSE = 0.2  # seconds after which a press of the stop button is answered
MEANINGS = {
    2: "wrong usage or configuration",
    3: "the data was refused",
    4: "an export is missing or differs",
    5: "the training failed",
    6: "something is missing on this host",
}


class CommandFailed(ColabError):
    """A command that ended with another exit code than 0 and 75."""

    def __init__(self, words: Sequence[str], code: int):
        self.code = code
        why = MEANINGS.get(code) or (f"signal {signal.Signals(-code).name}" if code < 0 else "see its messages above")
        super().__init__(f"{' '.join(words)} ended with exit code {code}: {why}.")


def run(
    command: Sequence[object],
    *,
    cwd: Path = PROJECT,
    environment: Mapping[str, str] | None = None,
    printed: list[str] | None = None,
) -> int:
    """Run a command with its output in this cell; returns 0, or 75: saved, run the same again.

    It runs in a separate session, so that the stop button reaches it once, as SIGTERM; this function then waits until
    it has saved. `printed` gets what it prints. Raises CommandFailed for every other exit code.
    """
    words = [str(word) for word in command]
    with (
        _StopButton() as button,
        subprocess.Popen(
            words,
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        button.of(process)
        _show(process, button, printed)
        code = process.wait()
        button.answer()
    if code == SAVED:
        print("Everything is saved: run the same cell again to continue.", flush=True)
    elif code:
        raise CommandFailed(words, code)
    return code


class _StopButton:
    """Takes SIGINT, which the stop button sends to the kernel, while a command runs: the command gets one SIGTERM,
    whenever it was pressed and however often. A KeyboardInterrupt could come before there is a command to stop, or
    while another one is answered."""

    def __init__(self) -> None:
        self.pressed = self.answered = 0
        self.process: subprocess.Popen | None = None
        self.before: Any = None

    def __enter__(self) -> _StopButton:
        if threading.current_thread() is threading.main_thread():  # no other one gets signals
            self.before = signal.signal(signal.SIGINT, self._press)
        return self

    def __exit__(self, *error: object) -> None:
        if self.before is not None:
            signal.signal(signal.SIGINT, self.before)

    def of(self, process: subprocess.Popen) -> None:
        """The command, which is stopped at once if the button has been pressed."""
        self.process = process
        if self.pressed:
            self._stop()

    def _press(self, _number: int, _frame: object) -> None:
        self.pressed += 1
        if self.pressed == 1 and self.process is not None:
            self._stop()

    def _stop(self) -> None:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)

    def answer(self) -> None:
        """Print a line for each press since the last call: a signal's handler must not print, as it may interrupt
        printing."""
        while self.answered < self.pressed:
            self.answered += 1
            first = self.answered == 1
            print("Saving first, then it stops ..." if first else "Still saving; nothing more is needed.", flush=True)


def _show(process: subprocess.Popen, button: _StopButton, printed: list[str] | None) -> None:
    """Print what the process writes, until it closes its output."""
    assert process.stdout is not None
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    while True:
        button.answer()
        if not select.select([process.stdout], [], [], PAUSE)[0]:
            continue
        block = os.read(process.stdout.fileno(), 65536)
        if not block:
            return
        text = decoder.decode(block)
        print(text, end="", flush=True)
        if printed is not None:
            printed.append(text)
