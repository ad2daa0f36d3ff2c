"""Timing this host by a fixed export, before a training that has a limit."""

from __future__ import annotations

import sys
import time

from training.errors import ExportError
from training.stages.children import Children, End


def trial() -> float:
    """Run training/export/trial.py in a separate process, like the last stages of a job; returns the seconds that it
    took. The random numbers and threads of this process are not affected. Raises ExportError if it fails,
    Interrupted."""
    began = time.monotonic()
    with Children(print) as children:
        end: End = children.run({"trial": [sys.executable, "-m", "training.export.trial"]})["trial"]
    if end.code:
        raise ExportError(
            f"A fixed export, by which this host is timed, ended with exit code {end.code}: {end.last} The exports at "
            "the end of the job would fail, too. `python -m training.export.trial` repeats it."
        )
    return time.monotonic() - began
