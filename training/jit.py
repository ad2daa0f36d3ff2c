"""Compiles numeric loops by numba (of an extra: imported when a loop is declared), and keeps the result on the disk:
other processes, and later ones, need not compile again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def compiled(*signature: str, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """A decorator. `signature`: of the arguments, which are compiled for when the function is declared; without one, at
    its first call. `options`: of `numba.njit`. What the function reads from other modules must be passed as arguments:
    numba keeps the result until the function's own file changes."""
    import numba

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(*signature, nogil=True, cache=True, **options)(function)
        except RuntimeError:  # a container without any folder that can be written: compiled in every process
            return numba.njit(*signature, nogil=True, **options)(function)

    return decorate
