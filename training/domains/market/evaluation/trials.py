"""The list of everything that was tried: each judged model and each trial of hyper-parameters is a line. The number of
lines decides what the best one is worth (`sharpe.deflated`)."""

from __future__ import annotations

import json
import os
from pathlib import Path

from training.data.files import disk_errors


def record(path: Path, symbol: str, name: str, digest: str) -> int:
    """Note that a model was judged, unless it was noted before; returns how many were tried on the symbol.

    `digest`: of what is tried: predictions, or hyper-parameters.
    """
    known = lines(path, symbol)
    if digest not in known:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                entry = {"symbol": symbol, "name": name, "digest": digest}
                os.write(handle, json.dumps(entry).encode() + b"\n")  # one call: other processes append too
                os.fsync(handle)
            finally:
                os.close(handle)
        known.add(digest)
    return len(known)


def lines(path: Path, symbol: str) -> set[str]:
    """The digests of what was tried on a symbol. An incomplete last line, after a crash, is left out."""
    if not path.is_file():
        return set()
    found = set()
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if entry["symbol"] == symbol:
            found.add(entry["digest"])
    return found
