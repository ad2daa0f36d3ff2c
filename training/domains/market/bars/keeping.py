"""Clean bars in a file, for what needs them after `prepare`: the leak detector."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from training.domains.market.bars.cleaning import Minutes
from training.domains.market.bars.sessions import Session

COLUMNS = ("time", "open", "high", "low", "close", "volume", "bad", "segment")


def write(path: Path, minutes: Minutes) -> bool:
    """Write clean bars atomically; returns False if the file already had this content."""
    from safetensors.numpy import save

    from training.data.files import write_atomic

    about = np.frombuffer(json.dumps([minutes.symbol, minutes.session.plain()]).encode(), np.uint8)
    arrays = {name: np.ascontiguousarray(getattr(minutes, name)) for name in COLUMNS}
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_atomic(path, save(arrays | {"about": about}))


def read(path: Path) -> Minutes:
    """The bars that `write` kept."""
    from safetensors.numpy import load

    arrays = load(path.read_bytes())
    symbol, session = json.loads(arrays["about"].tobytes())
    return Minutes(symbol, **{name: arrays[name] for name in COLUMNS}, session=Session.of(session))
