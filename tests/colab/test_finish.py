"""finish(): "safe" is printed only after an upload that was compared, and the session ends only then."""

from __future__ import annotations

import json

import pytest

from training.colab.drive import mount_google_drive
from training.colab.jobs import TrainingJob, finish_job
from training.colab.surroundings import ColabError


@pytest.fixture
def job(drive):
    """A job that has ended, with an export and a log that were not copied yet."""
    mount_google_drive(drive.settings())
    made = TrainingJob(drive.content / "job", drive.settings(), drive.mount, str(drive.place))
    for name in ("exports/a.onnx", "runs/r/metrics.jsonl"):
        (made.out / name).parent.mkdir(parents=True, exist_ok=True)
        (made.out / name).write_text(name)
    made.state_file.parent.mkdir()
    made.state_file.write_text(json.dumps({"pid": 1, "code": 0, "command": []}))
    return made


def test_what_was_uploaded_is_compared_called_safe_and_the_session_ended(drive, job, capsys):
    assert finish_job(job, unassign=True) == 0
    assert f"safe: everything in {job.out} that matters is in {drive.place}" in capsys.readouterr().out
    assert (drive.cloud / "MyDrive/athanor/exports/a.onnx").read_text() == "exports/a.onnx"
    assert (drive.control / "unassigned").exists() and drive.mounts == 2


def test_a_file_that_no_upload_reached_is_named_and_the_session_kept(drive, job, capsys):
    (drive.control / "loses").write_text("a.onnx")
    with pytest.raises(ColabError, match=r"NOT safe: 1 files are not on the drive.*\n  exports/a\.onnx: missing"):
        finish_job(job, unassign=True)
    assert "safe: everything" not in capsys.readouterr().out and not (drive.control / "unassigned").exists()


def test_without_a_second_place_the_loss_is_foreseen(job, capsys):
    job.persist = ""
    assert finish_job(job) == 0
    assert "are lost with this session. Download them." in capsys.readouterr().out
