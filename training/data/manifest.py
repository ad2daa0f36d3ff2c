"""JSONL manifests, one row per line. Every row is checked before training starts; errors have line numbers."""

from __future__ import annotations

import difflib
import io
import json
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
from training.data.schema import ID, PathKey, Schema, is_number
from training.errors import DataError

__all__ = ["Row", "load", "write"]

MOST_SHOWN = 20
CHECKS = 1  # increment it when a row that passed the checks may no longer pass
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def load(
    path: Path,
    schema: Schema,
    *,
    path_keys: Sequence[str],
    roots: Mapping[str, Path | None] | None = None,
    check: Callable[[Mapping[str, Any]], None] | None = None,
) -> Rows:
    """The rows of a manifest, each with absolute paths of existing files, a unique `id` and the schema's defaults.

    A path is first looked up as written (a relative one in the manifest's folder, then in the working directory). If it
    does not exist, the manifest may come from another host: the longest ending of the path that exists under the key's
    root is used.

    Args:
        path_keys: keys that every row needs, since the family reads those files; other path keys are optional.
        roots: path key -> folder under which moved files are looked up. Default of a key that names a folder of the
            workspace: the folder of that name next to the manifest's folder.
        check: the family's check of a row; its ValueError is reported with the line number.

    Raises DataError that lists every bad line.
    """
    reason = regular_file(path)
    if reason:
        raise DataError(
            f"There is no manifest {printable(path)} ({reason}). Build it from your data:\n"
            f"  {schema.build}\n"
            "or name your own with data.train_manifest and data.val_manifest. No substitute data is generated."
        )
    name = printable(path)
    finder = _Finder(path.absolute().parent, schema, roots or {})
    text = path.read_bytes()
    named = [key.name for key in schema.paths]
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
            values = _parse(line, schema)
            _check_keys(values, schema, path_keys)
            for key in named:
                if key in values:
                    values[key] = finder.find(key, values[key])
            values[ID], is_numbered = _identity(values, path_keys, ids, number)
            for key, default in schema.defaults.items():
                values.setdefault(key, default)
            if check is not None:
                check(values)
        except ValueError as error:
            faults.append(f"{name}:{number}: {error}")
            continue
        ids[values[ID]] = number
        for key in named:
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
        schema=schema,
    )
    return Rows(table)


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> bool:
    """Write rows as JSONL, atomically; returns False if the file already had this content."""

    def fill(temporary: Path) -> None:
        with temporary.open("wb", buffering=1 << 20) as stream:
            for row in rows:
                stream.write(line_of(row))

    return write_atomic(path, fill)


class AsJson(str):
    """A value that is already JSON: it is encoded once for the many rows that share it."""

    __slots__ = ()


def line_of(row: Mapping[str, Any]) -> bytes:
    """A row as a line of a manifest, with its line feed."""
    pairs = [f"{_text(key)}: {_text(value) if type(value) is str else as_json(value)}" for key, value in row.items()]
    return f"{{{', '.join(pairs)}}}\n".encode()


def as_json(value: Any) -> str:
    """A value of a row, as a manifest holds it."""
    return value if type(value) is AsJson else _AS_JSON(value)


_AS_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_text = json.encoder.encode_basestring  # the same as _AS_JSON for a string, with less overhead


# -- one row -------------------------------------------------------------------------------------------------------


def _parse(line: bytes, schema: Schema) -> dict[str, Any]:
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
        raise ValueError(f"is not a JSON object like {schema.example}")
    return values


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key `{twice}` occurs twice")
    return out


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a finite number")


def _check_keys(values: dict[str, Any], schema: Schema, path_keys: Sequence[str]) -> None:
    """Check a row, except whether its files exist, and normalise its values in place. Raises ValueError."""
    known = schema.known
    unknown = [key for key in values if key not in known and not key.startswith("_")]
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, 1, 0.6)
        hint = f"did you mean `{near[0]}`?" if near else f"known are {', '.join(known)}; begin your own with `_`"
        raise ValueError(f"`{printable(unknown[0])}` is not a manifest key: {hint}")
    for key in (*path_keys, *schema.required):
        if key not in values:
            raise ValueError(f"`{key}` is missing")
    for path in schema.paths:
        value = values.get(path.name, ".")
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"`{path.name}` should be the path of a file; it is {value!r}")
    if ID in values and (not isinstance(values[ID], str) or not values[ID]):
        raise ValueError(f"`{ID}` should be a text; it is {values[ID]!r}")
    for name, key in schema.keys.items():
        if name in values:
            values[name] = key.check(values[name])
    for pair in schema.spans.values():
        _check_span(values, *pair)
    group = values.get(schema.group, "") if schema.group else ""
    if not isinstance(group, str) and not is_number(group):
        raise ValueError(f"`{schema.group}` should be a text or a number; it is {group!r}")


def _check_span(values: Mapping[str, Any], begin: str, end: str) -> None:
    if begin not in values and end not in values:
        return
    for key in (begin, end):
        if key not in values:
            raise ValueError(f"`{key}` is missing: a row has both `{begin}` and `{end}`, or neither")
        if not is_number(values[key]) or values[key] < 0:
            raise ValueError(f"`{key}` should be a number from 0 up; it is {values[key]!r}")
    if values[begin] >= values[end]:
        raise ValueError(f"`{begin}` {values[begin]!r} is not before `{end}` {values[end]!r}")


def _identity(
    values: Mapping[str, Any], path_keys: Sequence[str], ids: Mapping[str, int], number: int
) -> tuple[str, bool]:
    """The row's id, and whether the line number was added to make it unique. Raises ValueError."""
    if ID in values:
        if values[ID] in ids:
            raise ValueError(f"`{ID}` {printable(values[ID])!r} is already the id of line {ids[values[ID]]}")
        return values[ID], False
    if not path_keys:
        raise ValueError(f"`{ID}` is missing: a row without a file needs one")
    plain = plain_id(values[path_keys[0]])
    return (f"{plain}:{number}", True) if plain in ids else (plain, False)


# -- paths ---------------------------------------------------------------------------------------------------------


class _Finder:
    """Finds the files of a row on this host."""

    def __init__(self, folder: Path, schema: Schema, roots: Mapping[str, Path | None]):
        self.folder = folder
        self.keys = {key.name: key for key in schema.paths}
        self.roots = {key.name: self._root(key, roots) for key in schema.paths}
        self.plain = True  # so far, every path was absolute and existed as written

    def _root(self, key: PathKey, roots: Mapping[str, Path | None]) -> Path | None:
        root = roots.get(key.name)
        return self.folder.parent / Path(key.folder).name if root is None and key.folder else root

    def find(self, key: str, text: str) -> str:
        """The absolute path of the regular file that `text` names on this host. Raises ValueError if there is none."""
        if "\0" in text:
            raise ValueError(f"`{key}` contains a NUL character")
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
        if option := self.keys[key].flag:
            hint = f"; give {option} if it moved" if root is None else f"; nor is it under {option} {printable(root)}"
        raise ValueError(f"`{key}` {printable(text)}: {reason}{hint}")


def _is_file(text: str) -> bool:
    """A fast check for the common case, in which a path exists as written."""
    try:
        return stat.S_ISREG(os.stat(text).st_mode)  # noqa: PTH116
    except OSError:
        return False


def _exists(path: Path) -> Path | None:
    """The path in the Unicode form in which the disk has its name; None if it is not a regular file."""
    forms = (unicodedata.normalize(form, str(path)) for form in ("NFC", "NFD"))
    for text in dict.fromkeys((str(path), *forms)):
        if regular_file(Path(text)) is None:
            return Path(text).absolute()
    return None


def _under(root: Path, text: str) -> Iterator[Path]:
    """`root` joined with ever shorter endings of a path, which may come from another operating system."""
    foreign = PureWindowsPath(text) if re.match(r"^[A-Za-z]:[\\/]|^\\\\", text) else Path(text)
    parts = [part for part in foreign.parts if part != foreign.anchor]
    if ".." in parts:
        parts = parts[len(parts) - parts[::-1].index("..") :]  # so that the result stays under the root
    for start in range(len(parts)):
        yield root.joinpath(*parts[start:])
