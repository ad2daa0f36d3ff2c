"""Commands from a notebook: their output in the cell, their exit codes heeded, and one SIGTERM when the cell is
stopped.

`!command` ignores exit codes, and a second click on the stop button ends it with SIGKILL half a second later.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from training.colab.surroundings import PROJECT, ColabError

SAVED = 75  # interrupted with everything saved
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
    with subprocess.Popen(
        words,
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        stopping = False
        while True:
            try:
                _show(process, printed)
                code = process.wait()
                break
            except KeyboardInterrupt:
                print(
                    "Still saving; nothing more is needed." if stopping else "Saving first, then it stops ...",
                    flush=True,
                )
                if not stopping:
                    stopping = True
                    with contextlib.suppress(ProcessLookupError):
                        process.send_signal(signal.SIGTERM)
    if code == SAVED:
        print("Everything is saved: run the same cell again to continue.", flush=True)
    elif code:
        raise CommandFailed(words, code)
    return code


def _show(process: subprocess.Popen, printed: list[str] | None) -> None:
    """Print what the process writes, until it closes its output."""
    assert process.stdout is not None
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    while block := os.read(process.stdout.fileno(), 65536):
        text = decoder.decode(block)
        print(text, end="", flush=True)
        if printed is not None:
            printed.append(text)
