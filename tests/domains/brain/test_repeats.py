"""Runs that repeat the film: the same blocks, a ceiling from repeats, and no part of the film counted twice."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest

from tests.domains.brain.conftest import SETTINGS, SUBJECTS, VOLUMES, job_of, options_of
from training.data.summary import summary_of
from training.domains.brain.domain import BRAIN
from training.domains.brain.encoding.recipe import EncodingRecipe
from training.domains.brain.evaluation.judging import Fitting, Held, held_of, judge
from training.domains.brain.material import Material, Rows
from training.domains.brain.prepare import prepare
from training.domains.brain.regression.baselines import BANDED, REDUCED, RIDGE, ROLLED
from training.errors import DataError
from training.stages.splits import load_split


@pytest.fixture(scope="module")
def twice(laboratory, prepared, tmp_path_factory):
    """The laboratory with a second run of each subject, which is the first with more noise."""
    folder = tmp_path_factory.mktemp("twice")
    (folder / "bold").mkdir()
    (folder / "work").mkdir()
    (folder / "work" / "cache").symlink_to(prepared[0].workspace.cache)
    random = np.random.default_rng(0)
    for path in (laboratory / "bold").iterdir():
        image = nibabel.load(path)
        data = np.asarray(image.dataobj)
        for run, volumes in ((1, VOLUMES), (2, VOLUMES - 2)):
            noise = 5 * random.standard_normal(data.shape) * (data > 0) * (run - 1)
            new = nibabel.Nifti1Image((data + noise).astype(np.int16)[..., :volumes], image.affine, image.header)
            new.to_filename(str(folder / "bold" / path.name.replace("_bold", f"_run-{run}_bold")))
    options = options_of(laboratory) | {"fmri": folder / "bold"}
    job, _ = job_of(folder, **options, onset="0,0")
    prepare(job)
    return folder, options, job


def test_repeats_have_the_same_blocks_and_the_same_stimulus(twice):
    summary = summary_of(twice[2].workspace)
    assert summary["volumes"] == {"1": VOLUMES - 2, "2": VOLUMES - 2}
    assert summary["blocks"]["1"] == summary["blocks"]["2"]
    assert any("runs 1, 2 begin at second 0 of the film: they are repeats" in note for note in summary["notes"])


def test_runs_that_share_a_part_of_the_film_otherwise_are_refused(twice):
    folder, options, _ = twice
    with pytest.raises(DataError, match=r"run 2 begins 90 s into the film, which run 1 shows from 0 to 450 s"):
        prepare(job_of(folder, **options, onset="0,90")[0])
    with pytest.raises(DataError, match=r"run 2 would begin 450 s into a film .*0,0 if both"):
        prepare(job_of(folder, **options)[0])


def test_the_ceiling_is_that_of_repeats_beside_that_between_subjects(twice):
    folder, options, _ = twice
    job, _ = job_of(folder, **options, onset="0,0")
    prepare(job)
    rows = {
        split: load_split(EncodingRecipe(SETTINGS), job.workspace, split, schema=BRAIN.schema(), workers=1, say=str)
        for split in ("train", "val")
    }  # the core refuses held-out rows that overlap training rows of the same film
    material, held_rows = Material.of(rows["train"]), Rows.of(rows["val"])
    held = held_of(material, held_rows)
    assert [len(of) for of in held.units] == [2] * (len(held.blocks) // 2)

    def predict(subject, run, begin, end):
        return material.bold(held_rows, subject, "1", begin, end)  # the measured BOLD of the other run is a prediction

    def noise(subject, run, begin, end):
        return np.random.default_rng(begin).standard_normal((end - begin, len(held_rows.voxels)))

    baselines = dict.fromkeys((ROLLED, RIDGE, BANDED, REDUCED), noise)
    found = judge(predict, material, rows["val"], Fitting(0), baselines).more["brain"]
    assert found["blocks"] == len(held.units)
    assert found["ceiling"]["kind"] == "repeats" and found["ceiling"]["mean"] > 0.8
    (other,) = found["other_ceilings"]
    assert other["kind"] == "between subjects" and "lower bound" in other["bound"]
    assert other["mean"] < found["ceiling"]["mean"]
    assert found["matching"]["right"] == [found["matching"]["of"]] * SUBJECTS  # each segment is there once
    assert json.dumps(found)


def test_a_part_of_the_film_that_was_seen_twice_is_one_unit_of_the_bootstrap():
    part = np.random.default_rng(0).standard_normal((20, 7)).astype(np.float32)
    held = Held([("1", 0, 20), ("1", 40, 60), ("2", 0, 20)], ("a",), {"a": [part, 2 * part, 3 * part]},
                {"1": "1", "2": "1"})  # fmt: skip
    assert held.units == [[0, 2], [1]] and held.moments(held.measured).n.tolist() == [40, 20]
    assert held.once().blocks == [("1", 0, 20), ("1", 40, 60)]
    assert np.array_equal(held.once().measured["a"][1], 2 * part)
