"""JSONL manifests: one row a song, every row checked with its line number before anything trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Row:
    """One checked manifest row."""

    values: Mapping[str, Any]  # the row; paths are absolute and exist
    place: str  # "path/of/manifest.jsonl:12"
    #: manifest key (`audio_path`) -> stored arrays of that file, memory-mapped, as its encoder returned them
    records: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
