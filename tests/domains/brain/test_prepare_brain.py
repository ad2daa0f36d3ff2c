"""Prepare: from files of a laboratory to manifests, with every fault named."""

from __future__ import annotations

import json
import shutil

import nibabel
import numpy as np
import pytest

from tests.domains.brain.conftest import SUBJECTS, VOLUMES, job_of, options_of
from training.data import manifest
from training.data.summary import summary_of
from training.domain import Request
from training.domains.brain.domain import BRAIN
from training.domains.brain.prepare import prepare
from training.errors import DataError, HostError, UsageError
from training.workspace import exclusive


def test_the_splits_are_the_same_for_all_subjects_and_cover_blocks(prepared):
    job, _ = prepared
    summary = summary_of(job.workspace)
    assert summary["synthetic"] is True and summary["subjects"] == ["01", "02", "03"]
    for split in ("train", "val", "test"):
        lines = (job.workspace.manifests / f"brain_{split}.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        by_subject = {s: [(r["begin"], r["end"]) for r in rows if r["subject"] == s] for s in summary["subjects"]}
        assert len(rows) == SUBJECTS * len(by_subject["01"]) and len({tuple(v) for v in by_subject.values()}) == 1
        assert sum(end - begin for begin, end in by_subject["01"]) == summary["splits"][split]["volumes"]


def test_an_aligned_laboratory_raises_no_alarm(prepared):
    job, lines = prepared
    summary = summary_of(job.workspace)
    assert summary["alarms"] == []
    assert summary["scans"]["1"]["lag"]["aligned"]
    assert any("synthetic: true" in line for line in lines)


def test_a_second_call_changes_no_file(prepared, laboratory):
    job, _ = prepared
    before = {path: path.stat().st_mtime_ns for path in job.workspace.root.rglob("*.jsonl")}
    again, lines = job_of(laboratory, **options_of(laboratory))
    prepare(again)
    assert {path: path.stat().st_mtime_ns for path in job.workspace.root.rglob("*.jsonl")} == before
    assert any("nothing has changed" in line for line in lines)


def test_two_processes_do_not_prepare_in_one_workspace_at_once(tmp_path):
    job, _ = job_of(tmp_path)
    with exclusive(job.workspace.manifests, "another"), pytest.raises(HostError, match="in use"):
        prepare(job)


@pytest.fixture
def copy(laboratory, prepared, tmp_path):
    """The laboratory's files, to be changed, with what was decoded of them, so that the film is not decoded again."""
    (tmp_path / "bold").mkdir()
    for path in (laboratory / "bold").iterdir():
        shutil.copy(path, tmp_path / "bold")
    for name in ("film.mp4", "words.tsv", "mask.nii.gz"):
        shutil.copy(laboratory / name, tmp_path)
    shutil.copytree(prepared[0].workspace.cache, tmp_path / "work" / "cache")
    return tmp_path


def rewrite(path, change, affine=None):
    image = nibabel.load(path)
    data = change(np.asarray(image.dataobj))
    new = nibabel.Nifti1Image(data, image.affine if affine is None else affine, image.header)
    new.header["pixdim"][4] = image.header["pixdim"][4]
    new.to_filename(str(path))


def prepared_of(folder, **more):
    job, lines = job_of(folder, **(options_of(folder) | more))
    prepare(job)
    return summary_of(job.workspace), lines


def test_a_bad_file_is_quarantined_with_its_reason_and_the_rest_is_used(copy):
    content = (copy / "bold" / "sub-02_bold.nii.gz").read_bytes()
    (copy / "bold" / "sub-02_bold.nii.gz").write_bytes(content[: len(content) // 2])
    moved = np.diag([3.0, 3, 3, 1])
    rewrite(copy / "bold" / "sub-03_bold.nii.gz", lambda data: data[:-1], affine=moved)
    shutil.copy(copy / "bold" / "sub-01_bold.nii.gz", copy / "bold" / "sub-04_bold.nii.gz")
    summary, _ = prepared_of(copy)
    assert summary["subjects"] == ["01", "04"]
    reasons = {item["path"][-18:]: item["reason"] for item in summary["quarantined"]}
    assert "cut off or damaged" in reasons["sub-02_bold.nii.gz"]
    assert "its grid is" in reasons["sub-03_bold.nii.gz"] and "resample" in reasons["sub-03_bold.nii.gz"]


def test_unequal_lengths_are_trimmed_and_never_stretched(copy):
    rewrite(copy / "bold" / "sub-02_bold.nii.gz", lambda data: data[..., :-4])
    summary, _ = prepared_of(copy)
    assert summary["volumes"] == {"1": VOLUMES - 4}
    assert any(f"{VOLUMES - 4} to {VOLUMES} volumes; all are trimmed" in note for note in summary["notes"])


def test_more_than_5_percent_needs_an_onset(copy):
    for path in (copy / "bold").iterdir():
        rewrite(path, lambda data: data[..., :-20])
    with pytest.raises(DataError, match=r"280 volumes .* 420 s, the film lasts 450 s.*--onset"):
        prepared_of(copy)
    summary, _ = prepared_of(copy, onset="0")
    assert summary["volumes"] == {"1": 280}


def test_files_of_which_no_length_is_that_of_most_are_refused_with_their_volumes(copy):
    rewrite(copy / "bold" / "sub-02_bold.nii.gz", lambda data: data[..., :-100])
    (copy / "bold" / "sub-03_bold.nii.gz").unlink()
    with pytest.raises(DataError, match=r"run 1: .* sub-01_bold.nii.gz 300, sub-02_bold.nii.gz 200. Leave out"):
        prepared_of(copy)


def test_a_subject_without_a_run_is_noted(copy):
    for number in (1, 2):
        shutil.copy(copy / "bold" / f"sub-0{number}_bold.nii.gz", copy / "bold" / f"sub-0{number}_run-2_bold.nii.gz")
    summary, _ = prepared_of(copy, onset="0,0")
    assert any("subject 03 has no run 2" in note for note in summary["notes"])


def test_bids_files_of_the_scanner_are_noted_as_not_aligned(copy):
    for path in (copy / "bold").iterdir():
        folder = copy / "ds" / path.name[:6] / "func"
        folder.mkdir(parents=True)
        path.rename(folder / path.name.replace("_bold", "_task-movie_bold"))
    summary, _ = prepared_of(copy, fmri=None, bids=copy / "ds")
    assert any("no space- in their names" in note and "--space" in note for note in summary["notes"])


def test_annotations_in_milliseconds_are_refused_and_a_few_words_too_late_are_noted(copy):
    lines = (copy / "words.tsv").read_text().splitlines()
    table = [line.split("\t") for line in lines[1:]]
    (copy / "ms.tsv").write_text("\n".join([lines[0], *(f"{1000 * float(at)}\t300\t{word}" for at, _, word in table)]))
    with pytest.raises(DataError, match=r"ms.tsv: .* words begin after the end of the film \(450 s\).*milliseconds"):
        prepared_of(copy, annotations=copy / "ms.tsv")
    (copy / "late.tsv").write_text("\n".join([*lines, "999\t1\tsea\n"]))
    summary, _ = prepared_of(copy, annotations=copy / "late.tsv")
    assert any("late.tsv: 1 of" in note and "not used" in note for note in summary["notes"])


def test_a_planted_shift_is_named_before_training(copy):
    """The first ten volumes are missing, and no one has noticed: BOLD is 15 s early."""
    for path in (copy / "bold").iterdir():
        rewrite(path, lambda data: data[..., 10:])
    summary, lines = prepared_of(copy)
    assert any("misaligned by" in alarm and "earlier" in alarm for alarm in summary["alarms"])
    assert abs(summary["scans"]["1"]["lag"]["best"] + 10) <= 1
    assert any(line.strip().startswith("ALARM") for line in lines)


def test_a_given_mask_chooses_the_voxels_and_must_lie_on_the_grid(copy, world):
    half = nibabel.load(copy / "mask.nii.gz")
    data = np.asarray(half.dataobj).copy()
    data[data.shape[0] // 2 :] = 0
    nibabel.Nifti1Image(data, half.affine).to_filename(str(copy / "half.nii.gz"))
    summary, _ = prepared_of(copy, mask=copy / "half.nii.gz")
    assert (summary["voxels"], summary["mask"]) == (int(data.sum()), "given")
    nibabel.Nifti1Image(data, np.eye(4)).to_filename(str(copy / "moved.nii.gz"))
    with pytest.raises(DataError, match=r"moved.nii.gz: its voxels lie up to .* mm away.*nearest-neighbour"):
        prepared_of(copy, mask=copy / "moved.nii.gz")


def test_options_that_do_not_fit_together_are_refused(copy):
    for options, message in (
        ({"movie": "a.mp4"}, "--movie needs the BOLD"),
        ({"fmri": "x"}, "--fmri needs what was shown"),
        ({"fmri": "x", "bids": "y", "movie": "a"}, "either --fmri or --bids"),
    ):
        with pytest.raises(UsageError, match=message):
            BRAIN.arrange(Request(options, ()))
    with pytest.raises(UsageError, match="--onset has 2 numbers, and there are 1 runs"):
        prepared_of(copy, onset="0,3")
    with pytest.raises(UsageError, match="--tr 1500"):
        prepared_of(copy, tr="1500")


def test_rows_of_a_manifest_are_read_by_the_core(prepared):
    job, _ = prepared
    keys = [key.name for key in BRAIN.schema().paths]
    rows = manifest.load(job.workspace.manifests / "brain_val.jsonl", BRAIN.schema(), path_keys=keys)
    assert len(rows) and rows[0].values["tr"] == 1.5
