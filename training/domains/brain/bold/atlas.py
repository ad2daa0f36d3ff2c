"""An atlas: a number for each voxel, which says in which region it lies, and the names of the regions."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.data.files import printable, write_atomic
from training.domains.brain.bold.masks import same_place
from training.domains.brain.bold.reading import SUFFIXES
from training.errors import DataError

LEAST_VOXELS = 5  # of a region within the mask
_NUMBER = ("index", "label", "value", "id", "number", "roi")
_NAME = ("name", "region", "labels", "roi_name", "full_name", "label", "roi")
_TABLES = (".tsv", ".csv", ".txt", ".json")


@dataclass(frozen=True, eq=False)
class Regions:
    """The region of each voxel of the mask: `of` int32 [V], a place in `names` and `numbers`, or -1 outside of all
    regions. Only regions of at least LEAST_VOXELS voxels are kept."""

    of: np.ndarray
    names: tuple[str, ...]
    numbers: tuple[int, ...]  # as in the atlas

    def voxels(self, place: int) -> np.ndarray:
        """bool [V]."""
        return self.of == place


def regions_of(
    path: Path, atlas: Mapping[str, np.ndarray], voxels: np.ndarray, shape: Sequence[int], affine: np.ndarray
) -> tuple[Regions, tuple[str, ...]]:
    """The regions of the voxels (int32, indices of the flattened grid of BOLD), and remarks for the user. `atlas`: the
    arrays of bold/masks.decode.

    An atlas on another grid is resampled: a voxel of BOLD takes the number of the voxel of the atlas in which its
    middle lies. Raises DataError where no region has enough voxels, or for names that cannot be read.
    """
    why = same_place(atlas, shape, affine)
    numbers = _sampled(atlas, voxels, shape, affine)
    inside = numbers > 0
    notes = []
    if why:
        notes.append(
            f"{path.name}: {why}; each voxel of the BOLD takes the region of the nearest voxel of the atlas. Both must "
            "be of one space, which cannot be seen in the files"
        )
    counts = {int(number): int(count) for number, count in
              zip(*np.unique(numbers[inside], return_counts=True), strict=True)}  # fmt: skip
    kept = [number for number, count in counts.items() if count >= LEAST_VOXELS]
    if not kept:
        own = _extent(atlas["values"].shape, np.asarray(atlas["affine"]))
        raise DataError(
            f"--atlas {printable(path)}: no region has {LEAST_VOXELS} voxels or more in the mask. The atlas is "
            f"{_grid(atlas['values'].shape)} and lies at {own}, the BOLD is {_grid(shape)} at "
            f"{_extent(shape, affine)}. Take an atlas in the space of the BOLD, with numbers from 1 up."
        )
    names, source = names_of(path)
    small = [number for number in counts if number not in kept]
    if small:
        listed = ", ".join(names.get(number, f"region {number}") for number in small[:5])
        notes.append(f"{path.name}: {len(small)} regions of fewer than {LEAST_VOXELS} voxels are left out ({listed})")
    unnamed = [number for number in kept if number not in names]
    if source is not None and unnamed:
        notes.append(f"{source.name} has no name for {len(unnamed)} regions ({', '.join(map(str, unnamed[:5]))})")
    share = np.isin(numbers, kept).mean()
    notes.append(f"{path.name}: {len(kept)} regions with {share:.0%} of the voxels"
                 + (f", named by {source.name}" if source else "; no table of names is beside it"))  # fmt: skip
    of = np.full(len(voxels), -1, np.int32)
    for place, number in enumerate(kept):
        of[numbers == number] = place
    return Regions(of, tuple(names.get(number, f"region {number}") for number in kept), tuple(kept)), tuple(notes)


def _sampled(
    atlas: Mapping[str, np.ndarray], voxels: np.ndarray, shape: Sequence[int], affine: np.ndarray
) -> np.ndarray:
    """The number of the atlas at each voxel, int64 [V]; 0 beyond its grid."""
    values = np.asarray(atlas["values"])
    at = np.stack([*np.unravel_index(voxels, tuple(shape)), np.ones(len(voxels))]).astype(np.float64)
    place = np.rint((np.linalg.inv(np.asarray(atlas["affine"], np.float64)) @ affine @ at)[:3] + 1e-6).astype(int)
    inside = ((place >= 0) & (place < np.array(values.shape)[:, None])).all(0)
    out = np.zeros(len(voxels), np.int64)
    out[inside] = values[tuple(place[:, inside])]
    return out


def _grid(shape: Sequence[int]) -> str:
    return "x".join(str(int(length)) for length in shape)


def _extent(shape: Sequence[int], affine: np.ndarray) -> str:
    """Where a grid lies: "x -90 to 90, y ... mm"."""
    corners = np.array(np.meshgrid(*[(0, int(length) - 1) for length in shape], [1])).reshape(4, -1)
    at = (affine @ corners)[:3]
    return ", ".join(f"{axis} {low:.0f} to {high:.0f}" for axis, low, high in zip("xyz", at.min(1), at.max(1),
                                                                                    strict=True)) + " mm"  # fmt: skip


# -- names -------------------------------------------------------------------------------------------------------------


def names_of(path: Path) -> tuple[dict[int, str], Path | None]:
    """Number -> name, by the table beside an atlas, and that table; empty and None without one.

    It has the name of the atlas and .tsv, .csv, .txt or .json; or, as in BIDS, a subset of its entities:
    atlas-Schaefer2018_dseg.tsv for space-MNI152_res-02_atlas-Schaefer2018_dseg.nii.gz. Tables have a column of numbers
    (index, label ...) and one of names; a .txt without a header has the number and the name first in each line. JSON
    maps numbers to names, or names to numbers. Raises DataError for a table that cannot be read.
    """
    table = _beside(path)
    if table is None:
        return {}, None
    try:
        text = table.read_text(encoding="utf-8-sig")
        found = _json(text) if table.suffix == ".json" else _table(text, table.suffix)
    except (UnicodeDecodeError, ValueError) as error:
        raise DataError(
            f"{printable(table)} names the regions of {path.name}, and cannot be read: {error}. Correct it, or move it "
            "away: regions are then listed by their numbers."
        ) from None
    return found, table if found else None


def _beside(path: Path) -> Path | None:
    name = next((path.name[: -len(suffix)] for suffix in reversed(SUFFIXES) if path.name.endswith(suffix)), path.stem)
    for suffix in _TABLES:
        if (table := path.with_name(name + suffix)).is_file():
            return table
    own, ending = set(name.split("_")), name.split("_")[-1]
    found = [
        table for suffix in _TABLES for table in sorted(path.parent.glob(f"*_{ending}{suffix}"))
        if "-" in table.stem and set(table.stem.split("_")) <= own
    ]  # fmt: skip
    return max(found, key=lambda table: len(table.stem.split("_")), default=None)


def _json(text: str) -> dict[int, str]:
    """Empty for a JSON that describes the atlas, and names no region."""
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError('it holds no object of numbers and names, as {"1": "V1"} is')
    out = {}
    for key, value in content.items():
        if key.lstrip("-").isdigit() and isinstance(value, str):
            out[int(key)] = value
        elif isinstance(value, int) and not isinstance(value, bool):
            out[value] = key
    return out


def _table(text: str, suffix: str) -> dict[int, str]:
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip() and line[0] != "#"]
    if not lines:
        raise ValueError("it is empty")
    separator = "," if suffix == ".csv" else "\t" if "\t" in lines[0][1] else None
    rows = [(number, next(csv.reader([line])) if separator == "," else line.split(separator)) for number, line in lines]
    header = [cell.strip().lower() for cell in rows[0][1]]
    number = next((header.index(name) for name in _NUMBER if name in header), None)
    name = next((header.index(one) for one in _NAME if one in header and header.index(one) != number), None)
    first = 1
    if number is None and rows[0][1][0].strip().isdigit() and len(rows[0][1]) > 1:
        number, name, first = 0, 1, 0
    elif number is None or name is None:
        raise ValueError(
            f"its first line is {', '.join(header)[:120]!r}; expected are a column `index` and a column `name`"
        )
    out = {}
    for line, row in rows[first:]:
        try:
            out[int(float(row[number]))] = row[name].strip()
        except (ValueError, IndexError):
            raise ValueError(f"line {line} has no number and name of a region: {' '.join(row)[:80]!r}") from None
    return out


# -- the file ----------------------------------------------------------------------------------------------------------


def write(path: Path, regions: Regions) -> bool:
    """Write the regions as safetensors; returns False if the file already had this content."""
    from safetensors.numpy import save

    path.parent.mkdir(parents=True, exist_ok=True)
    about = np.frombuffer(json.dumps([regions.names, regions.numbers], ensure_ascii=False).encode(), np.uint8)
    return write_atomic(path, save({"of": np.ascontiguousarray(regions.of, np.int32), "about": about}))


def read(path: Path) -> Regions:
    """The regions of `write`. Raises DataError if there is no such file."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(path.read_bytes())
        names, numbers = json.loads(arrays["about"].tobytes())
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise DataError(
            f"The regions of --atlas cannot be read from {printable(path)}: {error}. Run prepare again."
        ) from None
    return Regions(arrays["of"], tuple(names), tuple(numbers))
