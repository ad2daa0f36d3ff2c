"""Which format a file has, and its networks. Needs no torch: this runs in the process that reads foreign files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from training.data.encode import Encoder
from training.domains.amp.formats import nam, proteus
from training.domains.amp.formats.document import parse

SUFFIXES = (".nam", ".json", ".aidax")


def format_of(content: bytes) -> str:
    """ "nam" or "proteus". Raises ValueError for anything else."""
    document = parse(content)
    if "architecture" in document or "weights" in document:
        return "nam"
    if "model_data" in document or "state_dict" in document:
        return "proteus"
    if "layers" in document:
        raise ValueError("`layers` (RTNeural, AIDA-X) is not supported")
    keys = ", ".join(repr(key)[1:-1] for key in list(document)[:5])
    raise ValueError(f"no capture: keys {keys}" if keys else "no capture: an empty object")


def read(content: bytes, sample_rate: int | None = None) -> nam.Read:
    """The networks of a file. `sample_rate`: in Hz, where it holds none. Raises ValueError with the reason."""
    formats = {"nam": nam, "proteus": proteus}
    return formats[format_of(content)].read(parse(content), sample_rate)


def decode(path: Path) -> dict[str, np.ndarray]:
    """A capture file -> {"content": uint8 [n], its bytes}, if it can be read. Raises ValueError."""
    content = path.read_bytes()
    read(content)
    return {"content": np.frombuffer(content, np.uint8)}


#: Its version changes when a file may be read differently.
CAPTURE = Encoder("captures", "captures 1", decode)
