"""The list of everything that was tried: each judged model and each trial of hyper-parameters is a line. The number of
lines decides what the best one is worth (`sharpe.deflated`)."""

from __future__ import annotations

import json
from pathlib import Path

from training.data.files import append_line, disk_errors


def record(path: Path, symbol: str, name: str, digest: str) -> int:
    """Note that a model was judged, unless it was noted before; returns how many were tried on the symbol.

    `digest`: of what is tried: predictions, or hyper-parameters.
    """
    known = lines(path, symbol)
    if digest not in known:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            append_line(path, json.dumps({"symbol": symbol, "name": name, "digest": digest}))
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
