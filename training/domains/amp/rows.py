"""The schema of a manifest row: a clip of guitar, and the capture that it is played through."""

from __future__ import annotations

from typing import Any

from training.data.schema import ID, Key, PathKey, Schema, text
from training.domains.amp.guitar import DI_PATH

CAPTURE_PATH = "capture_path"


def _rate(value: Any) -> int:
    """Sample rate of the capture, in Hz."""
    if isinstance(value, bool) or not isinstance(value, int) or not 8_000 <= value <= 384_000:
        raise ValueError(f"`rate` should be a sample rate in Hz; it is {value!r}")
    return value


SCHEMA = Schema(
    place="training.domains.amp.rows:SCHEMA",
    # every row of a capture names its file, so the splits share it
    paths=(
        PathKey(CAPTURE_PATH, root="captures", folder="data/captures", shared=True),
        PathKey(DI_PATH, root="di", folder="data/di"),
    ),
    keys={"capture": text("capture"), "rate": Key(_rate)},
    required=("capture", "rate"),
    names=(ID, "capture"),
    spans={DI_PATH: ("begin", "end")},  # seconds
    group="group",
    example='{"capture": ..., "rate": 48000, "capture_path": ..., "di_path": ..., "begin": 0, "end": 1, "group": ...}',
)
