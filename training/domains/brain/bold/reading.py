"""Decodes a NIfTI file of BOLD volumes in one forward pass. Runs in the sandbox.

A gzip file can only be read from its beginning, so taking it slice by slice through an image object would decompress it
again for each slice. Here one block of volumes after another is decompressed, reduced to the voxels that hold any
signal, and stored as int16 with a scale and an offset for each voxel and block: a quarter of the memory of float64.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from training.data.encode import Encoder

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

BLOCK = 64  # volumes that share a scale and an offset
LEVELS = 32_000  # of a voxel's range in a block: an error of at most 1 / 64,000 of the range
SUFFIXES = (".nii", ".nii.gz")
_BORDER = 0.15  # of the 98th percentile of the mean: what is below is outside of the head
_CENTRED = 0.1  # |median of means| / median size below this: the mean was removed
_TO_SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}


def decode(path: Path) -> dict[str, np.ndarray]:
    """The volumes of a run, in the voxels that hold any signal.

    data: int16 [T, n]; the values are data * scale[t // BLOCK] + offset[t // BLOCK], scale and offset float32 [B, n].
    codes: int16 [2], qform_code and sform_code of the header: the space of the affine.
    index: int32 [n], of the voxels in the flattened grid (C order). shape: int32 [3]; affine: float64 [4, 4].
    tr: float64 [1], seconds of the header, nan where its unit is unknown; unit_value: float64 [1], as it is written.
    constant: int64 [1], voxels inside the head that never change; nonfinite: int64 [1], voxels with NaN or infinity.
    mean_size, mean_spread: float64 [1], median of |mean| and of the standard deviation: 0 and 1 if already z-scored.

    Raises ValueError, with the reason and the remedy, for a file that is no run.
    """
    try:
        with _opened(path) as stream:
            header, affine = _header(stream, path)
            return _volumes(stream, header, affine)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"is cut off or damaged: {error}. Copy it again, and check it with `gzip -t`") from None


def _opened(path: Path) -> BinaryIO:
    with path.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if packed else path.open("rb")


def _header(stream: BinaryIO, path: Path) -> tuple[Nifti1Header, np.ndarray]:
    """The header of a single-file NIfTI-1 or NIfTI-2, with the stream at the first byte of the data."""
    from nibabel import Nifti1Header, Nifti2Header
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    start = stream.read(Nifti1Header.template_dtype.itemsize)
    sizes = {int.from_bytes(start[:4], order) for order in ("little", "big")}
    kind = Nifti2Header if 540 in sizes else Nifti1Header
    if not sizes & {348, 540}:
        raise ValueError("is no NIfTI file: convert it to .nii.gz, for example with dcm2niix or mri_convert")
    start += stream.read(kind.template_dtype.itemsize - len(start))
    try:
        header = kind(start)  # checks the fields
        affine = header.get_best_affine()
        header.get_slope_inter()  # raises if they are infinite
    except (HeaderDataError, WrapStructError) as error:
        raise ValueError(f"has a damaged header: {error}") from None
    if header["magic"].item() not in (b"n+1", b"n+2\x00\r\n\x1a\n", b"n+2"):
        raise ValueError("is the header of a pair (.hdr and .img): convert it to a single .nii.gz")
    shape = header.get_data_shape()
    if len(shape) != 4 or shape[3] < 2:
        raise ValueError(f"has the shape {'x'.join(map(str, shape))}: a run has four dimensions, the last one is time")
    if header.get_data_dtype().kind not in "iuf":
        raise ValueError(f"holds {header.get_data_dtype()} values: real numbers are expected")
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        raise ValueError("has an affine that cannot be inverted: its voxels have no place in space; export it again")
    skip = int(header["vox_offset"]) - kind.template_dtype.itemsize
    if skip < 0 or len(stream.read(skip)) < skip:
        raise ValueError("has a damaged header: its data would begin outside of the file")
    return header, np.asarray(affine, np.float64)


def _blocks(stream: BinaryIO, header: Nifti1Header) -> Iterator[np.ndarray]:
    """Blocks of volumes, float32 [t, X * Y * Z] in C order of the grid. Raises ValueError where volumes are missing."""
    shape, dtype = header.get_data_shape(), header.get_data_dtype()
    slope, intercept = header.get_slope_inter()
    size = int(np.prod(shape[:3])) * dtype.itemsize
    for begin in range(0, shape[3], BLOCK):
        count = min(BLOCK, shape[3] - begin)
        content = _read(stream, count * size)
        if len(content) < count * size:
            found = begin + len(content) // size
            raise ValueError(f"ends after {found} of {shape[3]} volumes. Copy or export it again")
        raw = np.frombuffer(content, dtype).reshape(count, *shape[2::-1])  # the first axis changes fastest
        values = raw.transpose(0, 3, 2, 1).astype(np.float32)
        if slope is not None and (slope, intercept) != (1.0, 0.0):
            values = values * np.float32(slope) + np.float32(intercept)
        yield values.reshape(count, -1)


def _read(stream: BinaryIO, size: int) -> bytes:
    """As many bytes as there are, up to `size`."""
    out = io.BytesIO()
    while out.tell() < size:
        part = stream.read(size - out.tell())
        if not part:
            break
        out.write(part)
    return out.getvalue()


def _volumes(stream: BinaryIO, header: Nifti1Header, affine: np.ndarray) -> dict[str, np.ndarray]:
    inside: np.ndarray | None = None
    parts, scales, offsets = [], [], []
    low = high = total = squares = finite = None
    for block in _blocks(stream, header):
        if inside is None:
            inside = _inside(block)
            finite = np.ones(len(inside), bool)
            low, high = np.full(len(inside), np.inf, np.float32), np.full(len(inside), -np.inf, np.float32)
            total, squares = np.zeros(len(inside)), np.zeros(len(inside))
        values = block[:, inside]
        good = np.isfinite(values).all(0)
        finite &= good
        values = np.where(good, values, 0)
        least, most = values.min(0), values.max(0)
        low, high = np.minimum(low, least), np.maximum(high, most)
        total += values.sum(0, dtype=np.float64)
        squares += np.einsum("tv,tv->v", values, values, dtype=np.float64)
        offset = (least + most) / 2
        scale = np.maximum((most - least) / (2 * LEVELS), np.finfo(np.float32).tiny)
        parts.append(np.rint((values - offset) / scale).astype(np.int16))
        scales.append(scale.astype(np.float32))
        offsets.append(offset.astype(np.float32))
    volumes = header.get_data_shape()[3]
    varies = high > low
    kept = finite & varies
    if not finite.any():
        raise ValueError(
            "every voxel holds NaN or infinity at some time, as after a step that failed for a volume: repeat the step "
            "of preprocessing, or leave the run out"
        )
    if not kept.any():
        raise ValueError("no voxel changes over time and is finite everywhere: it is empty, or no BOLD run")
    mean = total / volumes
    spread = np.sqrt(np.maximum(squares / volumes - mean**2, 0))
    value, seconds = _repetition(header)
    return {
        "data": np.concatenate(parts)[:, kept],
        "scale": np.stack(scales)[:, kept], "offset": np.stack(offsets)[:, kept],
        "index": inside[kept].astype(np.int32), "shape": np.array(header.get_data_shape()[:3], np.int32),
        "affine": affine, "codes": np.array([header["qform_code"], header["sform_code"]], np.int16),
        "tr": np.array([seconds]), "unit_value": np.array([value]),
        "constant": np.array([(finite & ~varies).sum()]), "nonfinite": np.array([(~finite).sum()]),
        "mean_size": np.array([np.median(np.abs(mean[kept]))]), "mean_spread": np.array([np.median(spread[kept])]),
    }  # fmt: skip


def _inside(block: np.ndarray) -> np.ndarray:
    """Indices of the voxels that may be of the head, from the first block of volumes: those whose mean is not far below
    the brightest ones, or all that are not 0 if the data was centred. Voxels that are NaN here are kept, and counted
    later."""
    with np.errstate(invalid="ignore", over="ignore"):
        size, mean = np.abs(block).mean(0), block.mean(0)
    filled = np.isfinite(size) & (size > 0)
    border = 0.0
    if filled.any() and abs(np.median(mean[filled])) > _CENTRED * np.median(size[filled]):
        border = _BORDER * np.percentile(size[filled], 98)
    return np.flatnonzero((size > border) | ~np.isfinite(size))


def _repetition(header: Any) -> tuple[float, float]:
    """The header's time between volumes as it is written, and in seconds: nan without a unit of time."""
    value = float(header["pixdim"][4])
    unit = header.get_xyzt_units()[1]
    return value, value * _TO_SECONDS[unit] if unit in _TO_SECONDS else float("nan")


ENCODER = Encoder("bold", "bold 2", decode, seconds=600.0, processor=30.0, bytes_per_second=2e6, megabytes=8192,
                  imports=("nibabel",))  # fmt: skip
