"""The user's own features of the film: tables of numbers, in bins of the volumes. Files are read in the sandbox."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.data.encode import Encoder
from training.data.files import printable
from training.domains.brain.stimulus.bins import RESERVED
from training.errors import DataError

SUFFIXES = (".npy", ".npz", ".csv", ".tsv")
_TIMES = ("time", "times", "onset", "seconds", "start", "time (s)")


@dataclass(frozen=True, eq=False)
class Own:
    """One band. `times`: float64 [N], seconds of the film, ascending; None: a row for each volume of the runs."""

    path: Path
    band: str
    values: np.ndarray  # float32 [N, F]
    times: np.ndarray | None

    def check_rows(self, lengths: Mapping[str, tuple[int, int]]) -> None:
        """`lengths`: run -> fewest and most volumes of its subjects. Raises DataError if the rows are neither of the
        volumes of the runs one after another, nor have times."""
        fewest, most = (sum(pair[number] for pair in lengths.values()) for number in (0, 1))
        count = len(self.values)
        if self.times is None and not (fewest <= count <= most if len(lengths) == 1 else count == fewest):
            listed = ", ".join(f"run {name} has {low}" + (f" to {high}" if high > low else "") for name, (low, high) in
                               lengths.items())  # fmt: skip
            raise DataError(
                f"--features {printable(self.path)}: {self.band} has {count} rows without times, and {listed} volumes. "
                "Give a row for each volume of all runs, or times in seconds of the film (a column `time`; `times` in "
                ".npz)."
            )

    def binned(self, volumes: int, tr: float, onset: float, first: int, run: str) -> np.ndarray:
        """float32 [volumes, F] of a run that begins `onset` seconds into the film; without times from row `first` on.

        With times: the mean of the samples within a volume; for a volume without one, between its neighbours. Raises
        DataError if the run begins before the features or ends after them.
        """
        if self.times is None:
            return self.values[first : first + volumes]
        step = float(np.median(np.diff(self.times))) if len(self.times) > 1 else tr
        slack, end = max(2 * tr, step), onset + volumes * tr
        if onset < self.times[0] - slack or end > self.times[-1] + slack:
            raise DataError(
                f"--features {printable(self.path)}: {self.band} has times from {self.times[0]:g} to "
                f"{self.times[-1]:g} s, and run {run} shows {onset:g} to {end:g} s of the film. Times are seconds of "
                "the film, not of the run or volumes."
            )
        edges = np.searchsorted(self.times, onset + tr * np.arange(volumes + 1) - 1e-9)
        cumulated = np.concatenate([np.zeros((1, self.values.shape[1])), np.cumsum(self.values, 0, dtype=np.float64)])
        counts = np.diff(edges)
        out = np.diff(cumulated[edges], axis=0) / np.maximum(counts, 1)[:, None]
        empty = np.flatnonzero(counts == 0)
        middle = onset + tr * (empty + 0.5)
        for column in range(self.values.shape[1]) if len(empty) else ():
            out[empty, column] = np.interp(middle, self.times, self.values[:, column])
        return out.astype(np.float32)

    def remark(self, tr: float) -> str:
        """For the user: its size and rate."""
        rate = "a row for each volume"
        if self.times is not None:
            step = float(np.median(np.diff(self.times))) if len(self.times) > 1 else 0.0
            rate = f"{step:.3g} s between rows"
            if step > 2 * tr:
                rate += f", coarser than the volumes ({tr:g} s): values between them are interpolated"
        return f"features {self.band} ({self.path.name}): {self.values.shape[1]} columns, {rate}"


def bands_of(path: Path, record: Mapping[str, np.ndarray]) -> list[Own]:
    """The bands of a decoded file."""
    times = record["times"] if len(record["times"]) else None
    names = json.loads(np.asarray(record["bands"]).tobytes())
    return [Own(path, name, np.asarray(record[f"values_{number}"]), times) for number, name in enumerate(names)]


def files_of(path: Path) -> list[Path]:
    """A file, or the files of a folder in their order. Raises DataError for a folder without one."""
    if not path.is_dir():
        return [path]
    found = sorted(one for one in path.iterdir() if one.suffix.lower() in SUFFIXES and not one.name.startswith("."))
    if not found:
        raise DataError(f"--features {printable(path)} holds no {', '.join(SUFFIXES)}.")
    return found


def check_names(bands: Sequence[Own]) -> None:
    """Raises DataError for two bands of one name, or one of a band that the film has."""
    seen: dict[str, Path] = {}
    for one in bands:
        if one.band in RESERVED:
            raise DataError(
                f"--features {printable(one.path)}: a band of the film is called {one.band} too. Give the "
                + ("array" if one.path.suffix == ".npz" else "file") + " another name."
            )  # fmt: skip
        before = seen.setdefault(one.band, one.path)
        if before != one.path:
            raise DataError(
                f"--features: {printable(before)} and {printable(one.path)} both have a band {one.band}. Rename one."
            )


# -- files -------------------------------------------------------------------------------------------------------------


def decode(path: Path) -> dict[str, np.ndarray]:
    """bands: uint8, a JSON list of names; values_0, values_1 ...: float32 [N, F] of each; times: float64 [N], or [0]
    for a row for each volume. Raises ValueError, with row and column, for a file that is no such table."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"is no table of features: {', '.join(SUFFIXES)} are read")
    times, tables = _arrays(path) if suffix in (".npy", ".npz") else _text(path, suffix)
    out: dict[str, np.ndarray] = {"times": np.zeros(0) if times is None else _checked_times(times)}
    for number, (name, values) in enumerate(tables.items()):
        out[f"values_{number}"] = _checked(name, values)
        if times is not None and len(values) != len(times):
            raise ValueError(f"{name} has {len(values)} rows and {len(times)} times")
    names = [_band(name) for name in tables]
    return out | {"bands": np.frombuffer(json.dumps(names).encode(), np.uint8)}


def _band(name: str) -> str:
    return re.sub(r"\W+", "_", name).strip("_").lower() or "features"


def _arrays(path: Path) -> tuple[np.ndarray | None, dict[str, np.ndarray]]:
    try:
        content = np.load(path, allow_pickle=False)
        arrays = {path.stem: content} if isinstance(content, np.ndarray) else {name: content[name] for name in content}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"cannot be read by numpy: {error}. Save arrays of numbers, without pickle") from None
    times = next((arrays.pop(name) for name in _TIMES if name in arrays), None)
    if not arrays:
        raise ValueError("holds no array beside its times")
    return times, arrays


def _text(path: Path, suffix: str) -> tuple[np.ndarray | None, dict[str, np.ndarray]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"is no UTF-8 at byte {error.start}: save it as UTF-8") from None
    first = text.split("\n", 1)[0]
    separator = "\t" if suffix == ".tsv" else max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    if not rows:
        raise ValueError("is empty")
    header = [cell.strip() for cell in rows[0][1]]
    titled = not all(_is_number(cell) for cell in header)
    names = header if titled else [str(number) for number in range(1, len(header) + 1)]
    values = np.empty((len(rows) - titled, len(names)))
    for place, (line, row) in enumerate(rows[titled:]):
        if len(row) != len(names):
            raise ValueError(f"line {line} has {len(row)} cells, the first line {len(names)}")
        for column, cell in enumerate(row):
            if not _is_number(cell):
                raise ValueError(f"line {line}, column {names[column]}: {cell.strip()!r} is no number")
            values[place, column] = float(cell)
    timed = next((column for column, name in enumerate(names) if name.lower() in _TIMES), None)
    if timed is None:
        return None, {path.stem: values}
    return values[:, timed], {path.stem: np.delete(values, timed, 1)}


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _checked(name: str, values: np.ndarray) -> np.ndarray:
    """As float32 [N, F]."""
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{name} holds {values.dtype}: numbers are needed")
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2 or len(values) < 2 or not values.shape[1]:
        raise ValueError(f"{name} has the shape {'x'.join(map(str, values.shape))}: it should be rows x columns")
    with np.errstate(over="ignore"):
        out = values.astype(np.float32)
    bad = np.argwhere(~np.isfinite(out))
    if len(bad):
        row, column = bad[0] + 1
        raise ValueError(
            f"{name}, row {row}, column {column} is NaN or infinite ({len(bad):,} such values): fill or remove them"
        )
    return out


def _checked_times(times: np.ndarray) -> np.ndarray:
    if times.dtype.kind not in "iuf" or times.ndim != 1 or not np.isfinite(times).all():
        raise ValueError("its times are not a list of finite numbers: seconds of the film are needed")
    later = np.flatnonzero(np.diff(times) < 0)
    if len(later):
        row = int(later[0]) + 2
        raise ValueError(f"its times go back at row {row} ({times[row - 2]:g} to {times[row - 1]:g} s): sort the rows")
    return times.astype(np.float64)


ENCODER = Encoder("features", "features 1", decode, megabytes=4096, imports=("numpy",))
