"""The page of a training that runs: rewritten after its validations, by a separate process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

from training.workspace import PROJECT, Workspace

PAUSE = 20.0  # seconds before the first page and between two: short epochs need no more, short trainings none
LAST = 2.0  # seconds that a run which ends waits for a page that is being written


class Refresher:
    """The training's side. No method waits, but `close`, and that not for long; none raises for an error of the page.

    A process, and no thread: it takes nothing from the interpreter that trains, and data loader workers are forked from
    that at any moment. `say`: one line for people; the same error is reported once.
    """

    def __init__(self, workspace: Workspace, say: Callable[[str], None]):
        self.workspace, self.say = workspace, say
        self._process: subprocess.Popen | None = None
        self._began = time.monotonic()
        self._reported = ""

    def refresh(self) -> None:
        """There is something new. Written now, or (where the last page is only just there) not at all."""
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
            self._tell(str(error))

    @property
    def writing(self) -> bool:
        """Whether a page is being written now."""
        return self._process is not None and self._process.poll() is None

    def close(self) -> None:
        """Wait a little for a page that is being written, and end it: pages are replaced atomically."""
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
            self._tell(errors[-1] if errors else f"its process ended with exit code {self._process.returncode}")
        else:
            self._reported = ""
        self._process = None

    def _tell(self, why: str) -> None:
        if why != self._reported:
            self._reported = why
            self.say(f"The report is not up to date ({why}); the training is not affected.")
