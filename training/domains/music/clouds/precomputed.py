"""Precomputed target clouds: one per song, at the window in which most notes sound."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.data.files import write_atomic
from training.domains.music.audio import HOP, SAMPLE_RATE, WINDOW_FRAMES
from training.domains.music.clouds.cloud import render


def write_cloud(folder: Path, notes: np.ndarray, frames: int, emotion: Sequence[float]) -> dict[str, Any]:
    """Draw the fullest window of a song of `frames` log-mel frames; returns the keys of its manifest row.

    `target_pointcloud_path`: float32 [1200, 3] .npy, named by its content. `target_pointcloud_start`: seconds, a
    multiple of a frame, so that sound and cloud can be cut at the same place.
    """
    start = fullest_window(notes, frames) * HOP / SAMPLE_RATE
    stream = io.BytesIO()
    np.save(stream, render(notes, start, np.array(emotion)).positions)
    path = folder / f"{hashlib.sha256(stream.getvalue()).hexdigest()[:32]}.npy"
    write_atomic(path, stream.getvalue())
    return {"target_pointcloud_path": str(path), "target_pointcloud_start": start}


def fullest_window(notes: np.ndarray, frames: int) -> int:
    """The first frame s (with s + 64 <= `frames`, if the song is that long) at which most notes sound in the window."""
    starts = np.arange(max(1, frames - WINDOW_FRAMES + 1))
    begin, end = starts * HOP / SAMPLE_RATE, (starts + WINDOW_FRAMES) * HOP / SAMPLE_RATE
    begun = np.searchsorted(np.sort(notes["onset"]), end, side="left")
    over = np.searchsorted(np.sort(notes["onset"] + notes["duration"]), begin, side="right")
    return int(np.argmax(begun - over))
