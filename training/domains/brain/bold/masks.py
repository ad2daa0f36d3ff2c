"""Masks: which voxels of the grid are used. Given as a file, or voted by the runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from training.data.encode import Encoder
from training.data.files import write_atomic
from training.domains.brain.bold.reading import SUFFIXES

LEAST_VOXELS = 10


def decode(path: Path) -> dict[str, np.ndarray]:
    """A mask or an atlas: values int32 [X, Y, Z], affine float64 [4, 4]. Raises ValueError for a file that is none."""
    import nibabel
    from nibabel.filebasedimages import ImageFileError

    if not path.name.endswith(SUFFIXES):
        raise ValueError(f"is no {' or '.join(SUFFIXES)} file")
    try:
        image = nibabel.load(path)
        values = np.asanyarray(image.dataobj)
    except (ImageFileError, OSError, EOFError, ValueError) as error:
        raise ValueError(f"cannot be read as NIfTI: {error}") from None
    if values.ndim == 4 and values.shape[3] == 1:
        values = values[..., 0]
    if values.ndim != 3:
        raise ValueError(f"has {values.ndim} dimensions: a mask or an atlas has three")
    rounded = np.rint(np.nan_to_num(values))
    if np.abs(values - rounded).max() > 1e-3:
        raise ValueError("holds fractions, as a map of probabilities does: threshold it first")
    return {"values": rounded.astype(np.int32), "affine": np.asarray(image.affine, np.float64)}


def voted(records: Sequence[Mapping[str, np.ndarray]]) -> np.ndarray:
    """The voxels that hold signal in every run, int32 ascending: a head for each subject needs values of all of them.

    Compare the result with `agreement` to find a run that costs many voxels.
    """
    common = np.asarray(records[0]["index"])
    for record in records[1:]:
        common = np.intersect1d(common, record["index"], assume_unique=True)
    return common.astype(np.int32)


def agreement(records: Sequence[Mapping[str, np.ndarray]]) -> np.ndarray:
    """Of each run, the share of the voxels of the majority (more than half of the runs) that it has: float64 [n]."""
    size = int(np.prod(records[0]["shape"]))
    votes = np.zeros(size, np.int32)
    for record in records:
        votes[record["index"]] += 1
    majority = votes > len(records) / 2
    total = max(1, int(majority.sum()))
    return np.array([majority[record["index"]].sum() / total for record in records])


def same_place(one: Mapping[str, np.ndarray], shape: Sequence[int], affine: np.ndarray) -> str:
    """Why a volume does not lie on a grid: a clause; empty if it does. Affines may differ by rounding (1e-3 mm)."""
    own = tuple(np.asarray(one["shape"] if "shape" in one else one["values"].shape).tolist())
    if own != tuple(int(length) for length in shape):
        return f"its grid is {'x'.join(map(str, own))}, not {'x'.join(str(int(length)) for length in shape)}"
    corners = np.array([[0, 0, 0, 1], [*(np.array(own) - 1), 1]], np.float64)
    off = float(np.abs(corners @ (np.asarray(one["affine"]) - affine).T).max())
    if off > 1e-3:
        return f"its voxels lie up to {off:.2g} mm away from those of the others"
    return ""


def write(path: Path, index: np.ndarray, shape: Sequence[int], affine: np.ndarray) -> bool:
    """Write the mask of some voxels as safetensors; returns False if the file already had this content."""
    from safetensors.numpy import save

    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {
        "index": np.ascontiguousarray(index, np.int32), "shape": np.array(shape, np.int32),
        "affine": np.ascontiguousarray(affine, np.float64),
    }  # fmt: skip
    return write_atomic(path, save(arrays))


def decode_own(path: Path) -> dict[str, np.ndarray]:
    """The arrays of `write`. Raises ValueError if it is no such file."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(path.read_bytes())
    except SafetensorError as error:
        raise ValueError(f"is no mask of prepare: {error}. Run prepare again") from None
    if set(arrays) != {"index", "shape", "affine"}:
        raise ValueError("is no mask of prepare. Run prepare again")
    return arrays


GIVEN = Encoder("mask", "mask 1", decode, megabytes=2048, imports=("nibabel",))
OWN = Encoder("voxels", "voxels 1", decode_own, imports=("safetensors.numpy",))
