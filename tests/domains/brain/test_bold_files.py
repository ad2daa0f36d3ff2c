"""Which files are the runs of which subjects."""

from __future__ import annotations

import json

import pytest

from training.domains.brain.bold.files import in_bids, in_folder
from training.errors import DataError, UsageError


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_sherlocks_folder_is_in_the_order_of_its_numbers(tmp_path):
    touch(tmp_path, "sherlock_movie_s10.nii.gz", "sherlock_movie_s2.nii.gz", "._sherlock_movie_s2.nii.gz", "notes.txt")
    assert [run.subject for run in in_folder(tmp_path)] == ["2", "10"]


def test_two_files_of_one_subject_and_run_are_refused(tmp_path):
    touch(tmp_path, "a_s1.nii.gz", "b_s1.nii.gz")
    with pytest.raises(DataError, match=r"a_s1.nii.gz and .*b_s1.nii.gz are both run 1 of subject 1"):
        in_folder(tmp_path)


def test_an_empty_folder_names_the_option(tmp_path):
    with pytest.raises(UsageError, match="--fmri"):
        in_folder(tmp_path)


@pytest.fixture
def dataset(tmp_path):
    func = "sub-{s}/func/sub-{s}_task-{t}_bold.nii.gz"
    touch(tmp_path, *(func.format(s=s, t=t) for s in ("01", "02") for t in ("movie", "rest")))
    derived = "derivatives/fmriprep/sub-{s}/func/sub-{s}_task-movie_space-{p}_desc-preproc_bold.nii.gz"
    touch(tmp_path, *(derived.format(s=s, p=p) for s in ("01", "02") for p in ("MNI", "T1w")))
    touch(tmp_path, "derivatives/fmriprep/sub-01/func/sub-01_task-movie_space-MNI_desc-brain_mask.nii.gz")
    (tmp_path / "task-movie_bold.json").write_text(json.dumps({"RepetitionTime": 1.5}))
    return tmp_path


def test_a_task_of_a_bids_data_set_without_its_derivatives(dataset):
    runs = in_bids(dataset, "movie", None)
    assert [(run.subject, run.run) for run in runs] == [("01", "1"), ("02", "1")]
    assert all("derivatives" not in run.path.parts for run in runs)


def test_a_sidecar_is_inherited_from_the_folder_above(dataset):
    assert in_bids(dataset, "movie", None)[0].sidecar == dataset / "task-movie_bold.json"
    assert in_bids(dataset, "rest", None)[0].sidecar is None


def test_a_space_selects_the_derivatives(dataset):
    runs = in_bids(dataset, "movie", "MNI")
    assert [run.path.name for run in runs] == [
        f"sub-{s}_task-movie_space-MNI_desc-preproc_bold.nii.gz" for s in ("01", "02")
    ]
    assert runs[0].mask is not None and runs[1].mask is None


def test_a_folder_of_derivatives_needs_no_raw_data(dataset):
    assert len(in_bids(dataset / "derivatives" / "fmriprep", "movie", "T1w")) == 2


def test_what_is_not_there_is_answered_with_what_is(dataset):
    with pytest.raises(UsageError, match="--task is needed: the data set has movie, rest"):
        in_bids(dataset, None, None)
    with pytest.raises(UsageError, match="--space MNI305 is not there: the data set has MNI, T1w"):
        in_bids(dataset, "movie", "MNI305")
    with pytest.raises(UsageError, match="holds no"):
        in_bids(dataset / "sub-01", "movie", None)
