"""BOLD files: what is read from them, and what is refused with which reason."""

from __future__ import annotations

import gzip

import nibabel
import numpy as np
import pytest

from training.domains.brain.bold.reading import BLOCK, decode
from training.domains.brain.bold.values import columns, raw

SHAPE, VOLUMES = (5, 6, 4), 150


def values(kind: str = "float32") -> np.ndarray:
    random = np.random.default_rng(3)
    out = 800 + 20 * random.standard_normal((*SHAPE, VOLUMES))
    out[0] = 0  # outside of the head
    return out.astype(kind)


def write(path, data, tr=1.5, unit="sec", kind=nibabel.Nifti1Image):
    image = kind(data, np.diag([3.0, 3, 3, 1]))
    if data.ndim == 4:
        image.header.set_xyzt_units("mm", unit)
        image.header["pixdim"][4] = tr
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_the_values_are_those_that_nibabel_reads(tmp_path, name, kind):
    path = write(tmp_path / name, values(), kind=kind)
    record = decode(path)
    expected = nibabel.load(path).get_fdata().reshape(-1, VOLUMES).T
    index = record["index"]
    assert np.array_equal(np.unravel_index(index, SHAPE)[0] > 0, np.ones(len(index), bool))
    assert len(index) == 4 * 6 * 4
    got = raw(record, np.arange(len(index)))
    assert len(record["scale"]) == -(-VOLUMES // BLOCK)
    assert np.abs(got - expected[:, index]).max() < 0.005  # of a range of about 120
    part = raw(record, columns(record, index[3:9]), BLOCK - 5, BLOCK + 7)
    assert np.abs(part - expected[BLOCK - 5 : BLOCK + 7, index[3:9]]).max() < 0.005
    assert record["tr"][0] == pytest.approx(1.5)


def test_scaled_integers_are_scaled(tmp_path):
    image = nibabel.Nifti1Image(values(), np.eye(4))
    image.set_data_dtype(np.int16)  # nibabel then stores a slope and an intercept
    nibabel.save(image, tmp_path / "a.nii.gz")
    expected = nibabel.load(tmp_path / "a.nii.gz").get_fdata().reshape(-1, VOLUMES).T
    record = decode(tmp_path / "a.nii.gz")
    assert np.abs(raw(record, np.arange(len(record["index"]))) - expected[:, record["index"]]).max() < 0.01


def test_big_endian_files_are_read(tmp_path):
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(">f4")
    path = tmp_path / "a.nii"
    nibabel.save(nibabel.Nifti1Image(values(), np.eye(4), header), path)
    assert path.read_bytes()[:4] == b"\x00\x00\x01\x5c"
    record = decode(path)
    assert raw(record, np.arange(len(record["index"]))).mean() == pytest.approx(800, abs=2)


def test_voxels_with_nan_and_voxels_that_never_change_are_left_out_and_counted(tmp_path):
    data = values()
    data[2, 2, 2, 140] = np.nan  # in the last block
    data[3, 3, 3, 0] = np.inf
    data[4, 4, 3] = 700
    record = decode(write(tmp_path / "a.nii", data))
    assert record["nonfinite"][0] == 2 and record["constant"][0] == 1
    bad = [np.ravel_multi_index(place, SHAPE) for place in ((2, 2, 2), (3, 3, 3), (4, 4, 3))]
    assert not np.isin(bad, record["index"]).any()
    assert len(record["index"]) == 4 * 6 * 4 - 3


def test_a_volume_of_nan_is_named_as_the_cause(tmp_path):
    data = values()
    data[..., 70] = np.nan
    with pytest.raises(ValueError, match="every voxel holds NaN or infinity at some time"):
        decode(write(tmp_path / "a.nii", data))


def test_standardised_data_keeps_its_voxels_and_shows(tmp_path):
    data = values("float64")
    inside = data[1:]
    data[1:] = (inside - inside.mean(-1, keepdims=True)) / inside.std(-1, keepdims=True)
    record = decode(write(tmp_path / "a.nii", data.astype(np.float32)))
    assert len(record["index"]) == 4 * 6 * 4
    assert record["mean_size"][0] < 1e-5 and record["mean_spread"][0] == pytest.approx(1, abs=1e-3)


def cut(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path


def test_a_file_that_is_cut_off_is_refused_with_the_number_of_its_volumes(tmp_path):
    path = cut(write(tmp_path / "a.nii", values()), 0.5)
    with pytest.raises(ValueError, match=r"ends after (74|75) of 150 volumes"):
        decode(path)
    path = cut(write(tmp_path / "a.nii.gz", values()), 0.5)
    with pytest.raises(ValueError, match=r"cut off or damaged.*gzip -t"):
        decode(path)


def test_what_is_no_run_is_refused_with_the_reason(tmp_path):
    with pytest.raises(ValueError, match="5x6x4: a run has four dimensions"):
        decode(write(tmp_path / "a.nii.gz", values()[..., 0]))
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(b"no image" * 100))
    with pytest.raises(ValueError, match="no NIfTI file"):
        decode(tmp_path / "b.nii.gz")
    flat = bytearray(write(tmp_path / "c.nii", values()).read_bytes())
    flat[296:312] = bytes(16)  # srow_y
    (tmp_path / "c.nii").write_bytes(flat)
    with pytest.raises(ValueError, match="affine that cannot be inverted"):
        decode(tmp_path / "c.nii")
    with pytest.raises(ValueError, match="no voxel changes"):
        decode(write(tmp_path / "d.nii", np.full((*SHAPE, 20), 7, np.float32)))
    with pytest.raises(ValueError, match="complex64"):
        decode(write(tmp_path / "e.nii", values().astype(np.complex64)))


def test_memory_is_that_of_a_block_not_of_the_run(tmp_path):
    """Only the reduced volumes of int16 stay; get_fdata would hold eight bytes for every voxel of the grid."""
    import tracemalloc

    data = np.zeros((30, 30, 30, 400), np.int16)
    data[5:10, 5:10, 5:10] = np.random.default_rng(0).integers(500, 900, (5, 5, 5, 400))
    path = write(tmp_path / "a.nii.gz", data)
    tracemalloc.start()
    decode(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < data.size * 8 / 3
