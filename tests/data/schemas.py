"""Schemas of two test domains: pictures with masks, and parts of long recordings from several devices."""

from __future__ import annotations

from typing import Any

from training.data.schema import ID, Key, PathKey, Schema, floats, is_number, text


def _grade(value: Any) -> list[float]:
    if not isinstance(value, list) or len(value) != 3:
        raise ValueError(f"`grade` should be three numbers; it is {value!r}")
    for number in value:
        if not is_number(number) or not -1 <= number <= 1:
            raise ValueError(f"`grade`: a number from -1 to 1 is needed; it is {number!r}")
    return floats(value)


def _offset(value: Any) -> float:
    if not is_number(value) or value < 0:
        raise ValueError(f"`offset` should be seconds; it is {value!r}")
    return value


PICTURES = Schema(
    place="tests.data.schemas:PICTURES",
    paths=(
        PathKey("image_path", root="image_root"),
        PathKey("mask_path", root="mask_root"),
        PathKey("preview_path", folder="data/previews"),
    ),
    keys={"source": text("source"), "offset": Key(_offset), "grade": Key(_grade, floats)},
    required=("grade",),
    names=(ID, "source", "preview_path"),
    defaults={"source": "manifest"},
    example='{"image_path": ..., "grade": [...]}',
    build="python build_pictures.py DIR",
)

PARTS = Schema(
    place="tests.data.schemas:PARTS",
    paths=(PathKey("path"),),
    keys={"level": Key(_offset)},
    defaults={"level": 1},
    spans={"path": ("begin", "end")},
    group="device",
)
