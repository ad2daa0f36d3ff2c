"""Results by region of an atlas."""

from __future__ import annotations

import csv
import json

import nibabel
import numpy as np
import pytest

from tests.domains.brain.conftest import job_of, options_of
from training.data.summary import summary_of
from training.domains.brain import places
from training.domains.brain.bold import atlas
from training.domains.brain.bold.atlas import Regions
from training.domains.brain.encoding import maps
from training.domains.brain.encoding.maps import Grid
from training.domains.brain.evaluation.judging import Held
from training.domains.brain.evaluation.measures import Moments
from training.domains.brain.evaluation.regions import by_region
from training.domains.brain.prepare import prepare
from training.domains.brain.rows import REGIONS
from training.errors import DataError

SHAPE, AFFINE = (6, 5, 4), np.diag([3.0, 3, 3, 1])
VOXELS = np.arange(120, dtype=np.int32)


def halves(scale: int = 1) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """An atlas of two halves along x, in voxels of 3 / scale mm, and the expected number of each voxel of BOLD."""
    values = np.zeros((6 * scale, 5 * scale, 4 * scale), np.int32)
    values[: 3 * scale], values[3 * scale :] = 1, 7
    affine = np.diag([3.0 / scale] * 3 + [1])
    affine[:3, 3] = 3.0 / scale / 2 - 1.5  # the corner of the grid stays where it is
    expected = np.where(np.unravel_index(VOXELS, SHAPE)[0] < 3, 1, 7)
    return {"values": values, "affine": affine}, expected


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_voxels_take_the_region_in_which_they_lie(tmp_path, scale):
    given, expected = halves(scale)
    found, notes = atlas.regions_of(tmp_path / "rois.nii.gz", given, VOXELS, SHAPE, AFFINE)
    assert found.numbers == (1, 7) and found.names == ("region 1", "region 7")
    assert np.array_equal(np.array(found.numbers)[found.of], expected)
    assert any("6x5x4" in note and "nearest" in note for note in notes) == (scale > 1)


def test_an_atlas_of_another_place_is_refused_with_both_grids(tmp_path):
    given, _ = halves()
    given["affine"] = given["affine"] + np.array([[0, 0, 0, 500], [0] * 4, [0] * 4, [0] * 4])
    with pytest.raises(DataError, match=r"rois.nii.gz: no region .* 6x5x4 .* x 500 to 515.* 6x5x4 at x 0 to 15"):
        atlas.regions_of(tmp_path / "rois.nii.gz", given, VOXELS, SHAPE, AFFINE)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tpl-X_res-02_atlas-Y_dseg.tsv", "index\tname\tcolor\n1\tV1\t#000\n7\tfront, left\t#fff\n"),
        ("atlas-Y_dseg.tsv", "name\tindex\nV1\t1\nfront, left\t7\n"),
        ("tpl-X_res-02_atlas-Y_dseg.csv", 'Label,Region\n1,V1\n7,"front, left"\n'),
        ("tpl-X_res-02_atlas-Y_dseg.txt", "# of FreeSurfer\n1\tV1\t0\n7\tfront, left\t0\n"),
        ("tpl-X_res-02_atlas-Y_dseg.json", '{"1": "V1", "7": "front, left"}'),
        ("tpl-X_res-02_atlas-Y_dseg.json", '{"V1": 1, "front, left": 7}'),
    ],
)
def test_names_come_from_the_table_beside_the_atlas(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    names, table = atlas.names_of(tmp_path / "tpl-X_res-02_atlas-Y_dseg.nii.gz")
    assert names == {1: "V1", 7: "front, left"} and table == tmp_path / name


@pytest.mark.parametrize(
    ("content", "message"),
    [("index\tname\n1\tV1\n\nx\tV2\n", "line 4 has no number"), ("colour\tsize\n1\t2\n", "column `index`")],
)
def test_a_table_of_names_that_cannot_be_read_is_named(tmp_path, content, message):
    (tmp_path / "rois.tsv").write_text(content)
    with pytest.raises(DataError, match=rf"rois.tsv names the regions of rois.nii.gz.*{message}"):
        atlas.names_of(tmp_path / "rois.nii.gz")


def test_a_region_that_is_predicted_is_found_and_one_of_noise_is_not():
    random = np.random.default_rng(0)
    regions = Regions(np.repeat([0, 1, -1], 20).astype(np.int32), ("seen", "noise"), (3, 4))
    measured = [[random.standard_normal((30, 60)).astype(np.float32) for _ in range(6)] for _ in range(2)]
    predicted = [[random.standard_normal((30, 60)).astype(np.float32) for _ in of] for of in measured]
    for own, of in zip(predicted, measured, strict=True):
        for part, true in zip(own, of, strict=True):
            part[:, :20] = true[:, :20] + random.standard_normal((30, 20))
    names = ("a", "b")
    held = Held([("1", at, at + 30) for at in range(0, 360, 60)], names, dict(zip(names, measured, strict=True)))
    own = dict(zip(names, predicted, strict=True))
    moments: Moments = held.moments(own)
    ceiling = np.full((2, 60), 0.8)
    seen, noise = by_region(regions, moments, moments, ceiling, held.shifted(own))
    assert seen["r"] == pytest.approx(0.7, abs=0.05) and seen["low"] < seen["r"] < seen["high"]
    assert seen["share"] == pytest.approx(seen["r"] / 0.8) and seen["banded_ridge"] == pytest.approx(seen["r"])
    assert seen["q"] < 0.05 < noise["q"] and abs(noise["r"]) < 0.1
    assert (seen["number"], noise["voxels"]) == (3, 20)


def test_a_table_and_a_map_of_regions_are_written(tmp_path):
    regions = Regions(np.repeat([0, -1], 60).astype(np.int32), ("V1, left",), (3,))
    row = {"number": 3, "name": "V1, left", "voxels": 60, "r": 0.25, "low": 0.2, "high": 0.3, "ceiling": None,
           "share": None, "q": 0.01}  # fmt: skip
    maps.write_regions(tmp_path, [row], regions, Grid(VOXELS, SHAPE, AFFINE, 4))
    (line,) = csv.DictReader((tmp_path / "regions.csv").read_text().splitlines())
    assert (line["name"], line["r"], line["ceiling"], line["split"]) == ("V1, left", "0.25", "", "validation")
    image = nibabel.load(tmp_path / "r_by_region.nii.gz")
    assert image.get_fdata().ravel()[:60] == pytest.approx(0.25) and not image.get_fdata().ravel()[60:].any()
    assert int(image.header["sform_code"]) == 4


def test_rows_name_the_regions_and_no_model_depends_on_them(laboratory, prepared, world, tmp_path):
    job, _ = job_of(tmp_path, **options_of(laboratory))
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "cache").symlink_to(prepared[0].workspace.cache)
    values = np.where(world.mask, 1 + (np.indices(world.mask.shape)[2] > 5), 0).astype(np.int16)
    source = nibabel.load(laboratory / "mask.nii.gz")
    nibabel.Nifti1Image(values, source.affine).to_filename(str(tmp_path / "rois.nii.gz"))
    (tmp_path / "rois.tsv").write_text("index\tname\n1\tlow\n2\thigh\n")
    prepare(job_of(tmp_path, **options_of(laboratory), atlas=tmp_path / "rois.nii.gz")[0])
    mask = places.mask_path(job.workspace)
    found = atlas.read(places.regions_path(mask))
    assert found.names == ("low", "high") and (found.of >= 0).all()
    row = json.loads((job.workspace.manifests / "brain_val.jsonl").read_text().splitlines()[0])
    assert len(row[REGIONS]) == 64
    notes = summary_of(job.workspace)["notes"]
    assert any("2 regions with 100% of the voxels, named by rois.tsv" in note for note in notes)
    prepare(job)  # without --atlas
    row = json.loads((job.workspace.manifests / "brain_val.jsonl").read_text().splitlines()[0])
    assert REGIONS not in row and not places.regions_path(mask).exists()
