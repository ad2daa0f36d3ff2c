"""Rewrites the page of a running training after its validations, in a separate process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

from training.workspace import PROJECT, Workspace

PAUSE = 20.0  # seconds before the first page and between two: short epochs need no more, short trainings none
LAST = 2.0  # seconds that the end of a run waits for a page that is being written


class Refresher:
    """Starts the process that writes the page, from the training. Only `close` waits, and LAST seconds at most; no
    method raises an error of the page.

    It is a process and not a thread: a thread would take time from the training's interpreter, and data loader workers
    are forked from that at any moment. `say`: receives one line for the log; the same error is reported once.
    """

    def __init__(self, workspace: Workspace, say: Callable[[str], None]):
        self.workspace, self.say = workspace, say
        self._process: subprocess.Popen | None = None
        self._began = time.monotonic()
        self._reported = ""

    def refresh(self) -> None:
        """Start to write the page; do nothing while one is being written, and within PAUSE seconds of the last start
        (at first, of the training's)."""
        self._look()
        if self._process is not None or time.monotonic() - self._began < PAUSE:
            return
        self._began = time.monotonic()
        path = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "training.report", str(self.workspace.root.absolute())],
                env={**os.environ, "PYTHONPATH": path}, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            )  # fmt: skip
        except OSError as error:  # no memory, no more processes
            self._report(str(error))

    @property
    def writing(self) -> bool:
        """Whether a page is being written."""
        return self._process is not None and self._process.poll() is None

    def close(self) -> None:
        """Wait LAST seconds for a page that is being written, then kill its process: as pages are replaced atomically,
        the page before stays."""
        if self._process is not None:
            try:
                self._process.wait(LAST)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
                self._process.stderr.close()
                self._process = None
        self._look()

    def _look(self) -> None:
        if self._process is None or self._process.poll() is None:
            return
        errors = self._process.stderr.read().decode(errors="replace").strip().splitlines()
        self._process.stderr.close()
        if self._process.returncode:
            self._report(errors[-1] if errors else f"its process ended with exit code {self._process.returncode}")
        else:
            self._reported = ""
        self._process = None

    def _report(self, why: str) -> None:
        if why != self._reported:
            self._reported = why
            self.say(f"The report is not up to date ({why}); the training is not affected.")
