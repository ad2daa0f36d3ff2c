"""Compiles numeric loops by numba, and keeps the result on the disk: 30 seconds of a first run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Any:
    """`function`, compiled at its first use. What it reads from other modules must be passed as arguments: numba keeps
    the result until the function's own file changes."""
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # a container without any folder that can be written: compiled in every process
        return numba.njit(nogil=True)(function)
