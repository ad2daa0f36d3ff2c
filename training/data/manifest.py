"""JSONL manifests: one row a song, every row checked with its line number before anything trains."""

from __future__ import annotations

import difflib
import io
import json
import math
import os
import re
import stat
import unicodedata
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from training.data.files import printable, regular_file, write_atomic
from training.data.rows import Files, Row, Rows, Table, Texts, plain_id
from training.errors import DataError

__all__ = ["Row", "load", "write"]

#: Keys that hold the path of a file.
PATH_KEYS = ("audio_path", "midi_path", "target_pointcloud_path")
#: Every key that a row may have. Those that begin with "_" are the user's own and are ignored.
KEYS = (*PATH_KEYS, "emotion", "id", "label_source", "target_pointcloud_start")
MOST_SHOWN = 20
CHECKS = 1  # raised when a row that passed may no longer pass
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def load(
    path: Path,
    *,
    path_keys: Sequence[str],
    audio_root: Path | None = None,
    midi_root: Path | None = None,
    clouds_root: Path | None = None,
    check: Callable[[Mapping[str, Any]], None] | None = None,
) -> Rows:
    """The rows of a manifest, each with absolute paths of existing files, a unique `id` and a `label_source`.

    A path is looked up as it stands (a relative one beside the manifest, then where the user stands), then, since the
    manifest may come from another host, as the longest of its endings that exists under the key's root.

    Args:
        path_keys: keys that every row needs (`audio_path`, `midi_path`); other path keys are optional.
        check: a family's own check of a row; its ValueError is told with the line number.

    Raises DataError that lists every bad line.
    """
    reason = regular_file(path)
    if reason:
        raise DataError(
            f"There is no manifest {printable(path)} ({reason}). Build it from your folders:\n"
            "  python scripts/build_manifests.py --audio-root DIR --midi-root DIR\n"
            "or name your own with data.train_manifest and data.val_manifest. Nothing is made up in its place."
        )
    name = printable(path)
    clouds = clouds_root or path.absolute().parent.parent / "clouds"
    finder = _Finder(
        path.absolute().parent, {"audio_path": audio_root, "midi_path": midi_root, "target_pointcloud_path": clouds}
    )
    text = path.read_bytes()
    faults: list[str] = []
    ids: dict[str, int] = {}
    spans, numbers, numbered = array("q"), array("q"), bytearray()
    found: dict[str, list[str]] = {}
    end = 0
    for number, line in enumerate(io.BytesIO(text), 1):
        begin, end = end, end + len(line)
        if number == 1 and line.startswith(_BYTE_ORDER_MARK):
            begin, line = begin + len(_BYTE_ORDER_MARK), line[len(_BYTE_ORDER_MARK) :]
        line = line.removesuffix(b"\n")
        if not line.strip():
            continue
        try:
            values = _parse(line)
            _check_keys(values, path_keys)
            values["emotion"] = _emotion(values["emotion"])
            for key in PATH_KEYS:
                if key in values:
                    values[key] = finder.find(key, values[key])
            values["id"], is_numbered = _identity(values, path_keys, ids, number)
            values.setdefault("label_source", "manifest")
            if check is not None:
                check(values)
        except ValueError as error:
            faults.append(f"{name}:{number}: {error}")
            continue
        ids[values["id"]] = number
        for key in PATH_KEYS:
            if key in values and key not in found:
                found[key] = [""] * len(numbers)
        for key, paths in found.items():
            paths.append(values.get(key, ""))
        spans.extend((begin, begin + len(line)))
        numbers.append(number)
        numbered.append(is_numbered)
    if faults:
        shown = "\n".join(f"  {fault}" for fault in faults[:MOST_SHOWN])
        more = f"\n  ... and {len(faults) - MOST_SHOWN} more" if len(faults) > MOST_SHOWN else ""
        count = "1 bad line" if len(faults) == 1 else f"{len(faults)} bad lines"
        raise DataError(f"The manifest has {count}; nothing was trained.\n{shown}{more}")
    if not numbers:
        raise DataError(f"The manifest {name} is empty: it needs one JSON object a line.")
    keys = [*path_keys, *(key for key in found if key not in path_keys)]
    table = Table(
        name=str(path),
        text=np.frombuffer(text, np.uint8),
        spans=np.frombuffer(spans, np.int64).reshape(-1, 2),
        numbers=np.frombuffer(numbers, np.int64),
        numbered=np.frombuffer(bytes(numbered), bool),
        files={key: Files(Texts.of(found.pop(key))) for key in keys},
        plain=finder.plain,
    )
    return Rows(table)


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> bool:
    """Write rows as JSONL, atomically; returns False if the file already was just that."""

    def fill(temporary: Path) -> None:
        with temporary.open("wb", buffering=1 << 20) as stream:
            for row in rows:
                stream.write(line_of(row))

    return write_atomic(path, fill)


class AsJson(str):
    """A row's value that is JSON already: many rows share it."""

    __slots__ = ()


def line_of(row: Mapping[str, Any]) -> bytes:
    """A row as it stands in a manifest, with its line feed."""
    told = [f"{_text(key)}: {_text(value) if type(value) is str else as_json(value)}" for key, value in row.items()]
    return f"{{{', '.join(told)}}}\n".encode()


def as_json(value: Any) -> str:
    """A value of a row, as it stands in a manifest."""
    return value if type(value) is AsJson else _AS_JSON(value)


_AS_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_text = json.encoder.encode_basestring  # what _AS_JSON makes of a text, without the detour


# -- one row -------------------------------------------------------------------------------------------------------


def _parse(line: bytes) -> dict[str, Any]:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 text (byte {error.start + 1})") from None
    try:
        values = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not valid JSON: {error.msg} (column {error.colno})") from None
    except RecursionError:
        raise ValueError("is not a manifest row: nested too deeply") from None
    if not isinstance(values, dict):
        raise ValueError('is not a JSON object like {"midi_path": ..., "emotion": [...]}')
    return values


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"`{twice}` is there twice")
    return out


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number that can be trained on")


def _check_keys(values: Mapping[str, Any], path_keys: Sequence[str]) -> None:
    unknown = [key for key in values if key not in KEYS and not key.startswith("_")]
    if unknown:
        near = difflib.get_close_matches(unknown[0], KEYS, 1, 0.6)
        hint = f"did you mean `{near[0]}`?" if near else f"known are {', '.join(KEYS)}; begin your own with `_`"
        raise ValueError(f"`{printable(unknown[0])}` is no manifest key: {hint}")
    for key in (*path_keys, "emotion"):
        if key not in values:
            raise ValueError(f"`{key}` is missing")
    for key in PATH_KEYS:
        if key in values and (not isinstance(values[key], str) or not values[key].strip()):
            raise ValueError(f"`{key}` should be the path of a file; it is {values[key]!r}")
    for key in ("id", "label_source"):
        if key in values and (not isinstance(values[key], str) or not values[key]):
            raise ValueError(f"`{key}` should be a text; it is {values[key]!r}")
    start = values.get("target_pointcloud_start", 0)
    if not _is_number(start) or start < 0:
        raise ValueError(f"`target_pointcloud_start` should be seconds from the start of the audio; it is {start!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15


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
        if not _is_number(number) or not math.isfinite(number) or not low <= number <= 1:
            raise ValueError(f"`emotion`: {name} should be a number from {low} to 1; it is {number!r}")
    return [float(number) for number in value]


def _identity(
    values: Mapping[str, Any], path_keys: Sequence[str], ids: Mapping[str, int], number: int
) -> tuple[str, bool]:
    """The row's id, and whether it took the line's number to make it unique."""
    if "id" in values:
        if values["id"] in ids:
            raise ValueError(f"`id` {printable(values['id'])!r} is that of line {ids[values['id']]} too")
        return values["id"], False
    plain = plain_id(values[path_keys[0]])
    return (f"{plain}:{number}", True) if plain in ids else (plain, False)


# -- paths ---------------------------------------------------------------------------------------------------------


class _Finder:
    """Finds the file that a row means on this host."""

    def __init__(self, folder: Path, roots: Mapping[str, Path | None]):
        self.folder, self.roots = folder, roots
        self.plain = True  # so far, every file was where the row said, in so many words

    def find(self, key: str, text: str) -> str:
        """Absolute path of a regular file. Raises ValueError."""
        if "\0" in text:
            raise ValueError(f"`{key}` holds a NUL character")
        path = Path(text)
        if path.is_absolute() and _is_file(text) and str(path) == text:
            return text
        self.plain = False
        places = [path] if path.is_absolute() else [self.folder / path, Path.cwd() / path]
        for place in places:
            found = _exists(place)
            if found is not None:
                return str(found)
        root = self.roots.get(key)
        for place in _under(root, text) if root is not None else ():
            found = _exists(place)
            if found is not None:
                return str(found)
        reason = regular_file(places[0]) or "no such file"
        hint = ""
        if key in ("audio_path", "midi_path"):
            option = "--" + key.replace("_path", "-root")
            hint = f"; give {option} if it moved" if root is None else f"; nor is it under {option} {printable(root)}"
        raise ValueError(f"`{key}` {printable(text)}: {reason}{hint}")


def _is_file(text: str) -> bool:
    """As `_exists`, for the million paths that are just what they say."""
    try:
        return stat.S_ISREG(os.stat(text).st_mode)  # noqa: PTH116
    except OSError:
        return False


def _exists(path: Path) -> Path | None:
    """The file, in whichever Unicode form the disk has its name; None if it is no regular file."""
    forms = (unicodedata.normalize(form, str(path)) for form in ("NFC", "NFD"))
    for text in dict.fromkeys((str(path), *forms)):
        if regular_file(Path(text)) is None:
            return Path(text).absolute()
    return None


def _under(root: Path, text: str) -> Iterator[Path]:
    """`root` with ever shorter endings of a path that may come from another system."""
    foreign = PureWindowsPath(text) if re.match(r"^[A-Za-z]:[\\/]|^\\\\", text) else Path(text)
    parts = [part for part in foreign.parts if part != foreign.anchor]
    if ".." in parts:
        parts = parts[len(parts) - parts[::-1].index("..") :]  # never out of the root
    for start in range(len(parts)):
        yield root.joinpath(*parts[start:])
