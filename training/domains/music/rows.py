"""The schema of music's manifest rows: a recording, its score, the emotion, and optionally a precomputed cloud."""

from __future__ import annotations

import math
from typing import Any

from training.data.schema import ID, Key, PathKey, Schema, floats, is_number, text

AUDIO, MIDI = "audio_path", "midi_path"
CLOUD, CLOUD_START = "target_pointcloud_path", "target_pointcloud_start"
EMOTION, LABEL_SOURCE = "emotion", "label_source"
TIME_MAP = "time_map"  # times of the score and of the recording that belong together; none: they are equal


def _emotion(value: Any) -> list[float]:
    """[valence, arousal, intensity] or 64 numbers, checked. Raises ValueError."""
    if not isinstance(value, list) or len(value) not in (3, 64):
        count = f" of length {len(value)}" if isinstance(value, list) else f": {value!r}"
        raise ValueError(
            f"`emotion` should be [valence, arousal, intensity] or 64 numbers; it is a {type(value).__name__}{count}"
        )
    names = ("valence", "arousal", "intensity") if len(value) == 3 else tuple(f"number {n + 1}" for n in range(64))
    for name, number in zip(names, value, strict=True):
        low = 0 if name == "intensity" else -1
        if not is_number(number) or not math.isfinite(number) or not low <= number <= 1:
            raise ValueError(f"`emotion`: {name} should be a number from {low} to 1; it is {number!r}")
    return floats(value)


def _start(value: Any) -> float:
    if not is_number(value) or value < 0:
        raise ValueError(f"`{CLOUD_START}` should be seconds from the start of the audio; it is {value!r}")
    return value


def _time_map(value: Any) -> list[list[float]]:
    """[[score seconds, recording seconds], ...], both ascending. Raises ValueError."""
    form = f"`{TIME_MAP}` should be a list of [score seconds, recording seconds]"
    if not isinstance(value, list) or not value:
        raise ValueError(f"{form}; it is {value!r}")
    for number, knot in enumerate(value):
        if not isinstance(knot, list) or len(knot) != 2 or not all(map(is_number, knot)):
            raise ValueError(f"{form}; its entry {number + 1} is {knot!r}")
        if number and not (knot[0] > value[number - 1][0] and knot[1] > value[number - 1][1]):
            raise ValueError(f"`{TIME_MAP}`: both times should ascend; {knot!r} follows {value[number - 1]!r}")
    return _knots(value)


def _knots(value: list) -> list[list[float]]:
    return [floats(knot) for knot in value]


SCHEMA = Schema(
    place="training.domains.music.rows:SCHEMA",
    paths=(PathKey(AUDIO, root="audio_root"), PathKey(MIDI, root="midi_root"), PathKey(CLOUD, folder="data/clouds")),
    keys={
        LABEL_SOURCE: text(LABEL_SOURCE),
        CLOUD_START: Key(_start),
        EMOTION: Key(_emotion, floats),
        TIME_MAP: Key(_time_map, _knots),
    },
    required=(EMOTION,),
    names=(ID, LABEL_SOURCE, CLOUD),
    defaults={LABEL_SOURCE: "manifest"},
    example='{"midi_path": ..., "emotion": [...]}',
    build="python scripts/build_manifests.py --audio-root DIR --midi-root DIR",
)
