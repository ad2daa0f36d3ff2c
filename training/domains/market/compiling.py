"""Compiles numeric loops at their first call, and keeps the result on the disk: 30 seconds of a first run."""

from __future__ import annotations

from training import jit

#: A decorator. What the function reads from other modules must be passed as arguments: see `jit.compiled`.
compiled = jit.compiled()
