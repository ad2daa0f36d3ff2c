"""Files become stored arrays: decoded once, in worker processes that may neither hang nor grow, keyed by content."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Encoder:
    """How one kind of file becomes arrays. The store's key is the file's content and `version`."""

    kind: str  # the store's folder name under cache/: "logmel"
    version: str  # whatever changes the output: code version and parameters
    function: Callable[[Path], dict[str, np.ndarray]]  # pure, picklable (top-level or functools.partial of one)
    seconds: float = 60.0  # of wall clock a file may take
    megabytes: int = 2048  # of address space beyond the worker's own
