"""training/colab/drive.py on a FUSE file system: mounted, refused, lost, hanging, mounted again, uploaded."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from training.colab.drive import differences, flush_and_mount_again, is_mounted, mount_google_drive, probe, remount
from training.colab.surroundings import ColabError


def test_a_drive_is_mounted_written_to_and_read_back(drive, capsys):
    place = mount_google_drive(drive.settings())
    assert place.folder == drive.place and drive.place.is_dir() and place.free_gb > 0
    assert [path.name for path in drive.place.iterdir()] == []
    mount_google_drive(drive.settings())
    assert drive.mounts == 1, "what is mounted is not mounted again"


def test_refused_access_and_files_in_the_way_are_reported_with_a_remedy(drive):
    (drive.control / "refuse").touch()
    with pytest.raises(ColabError, match=r"was not mounted: mount failed.*allow access.*persist='none'"):
        mount_google_drive(drive.settings())
    (drive.control / "refuse").unlink()
    drive.mount.mkdir(parents=True)
    (drive.mount / "a.pt").touch()
    with pytest.raises(ColabError, match=r"has files in it \(a\.pt\) though no drive is mounted.*mv "):
        mount_google_drive(drive.settings())


@pytest.mark.parametrize(("fault", "number"), [("errno 5", 5), ("errno 107", 107), ("full", 28), ("hang", 110)])
def test_a_drive_that_fails_fills_up_or_hangs_is_noticed(drive, fault, number):
    mount_google_drive(drive.settings())
    drive.fault(fault)
    with pytest.raises(OSError) as found:
        probe(drive.place, 0.5 if fault == "hang" else 60.0)
    drive.fault("")
    assert found.value.errno == number
    probe(drive.place)


def test_a_probe_that_timed_out_does_not_delete_the_file_of_the_next_one(tmp_path, monkeypatch):
    unlink, read, answers, late = Path.unlink, Path.read_bytes, threading.Event(), []

    def unlink_hangs_once(path):
        if not late:
            late.append(threading.current_thread())
            assert answers.wait(60)
        unlink(path)

    def read_once_the_first_has_ended(path):
        if late:
            answers.set()
            late[0].join(60)
        return read(path)

    monkeypatch.setattr(Path, "unlink", unlink_hangs_once)
    monkeypatch.setattr(Path, "read_bytes", read_once_the_first_has_ended)
    with pytest.raises(OSError, match="has not answered"):
        probe(tmp_path, 0.2)
    probe(tmp_path)
    assert not late[0].is_alive() and list(tmp_path.iterdir()) == []


def test_a_drive_whose_process_died_is_mounted_again_with_what_was_written(drive):
    mount_google_drive(drive.settings())
    (drive.place / "a").write_text("1")
    drive.detach()
    with pytest.raises(OSError) as found:
        probe(drive.place)
    assert found.value.errno in (103, 107), "the second, once no call was under way when it died"
    remount(drive.mount)
    assert (drive.place / "a").read_text() == "1" and drive.mounts == 2
    drive.detach()
    assert mount_google_drive(drive.settings()).folder == drive.place, "mounting it as at the start mends it too"


def test_after_an_upload_the_drive_shows_what_google_has(drive):
    mount_google_drive(drive.settings())
    out = drive.content / "job"
    (out / "exports").mkdir(parents=True)
    for name in ("a", "b"):
        (out / "exports" / name).write_text(name)
    (drive.place / "exports").mkdir()
    for name in ("a", "b"):
        (drive.place / "exports" / name).write_text(name)
    assert differences(out, drive.place) == []
    (drive.control / "loses").write_text("b")
    flush_and_mount_again(drive.settings(), drive.mount)
    assert is_mounted(drive.mount) and differences(out, drive.place) == ["exports/b: missing"]
    (drive.control / "upload_fails").touch()
    with pytest.raises(ColabError, match=r"not uploaded within 15 minutes.*NOT safe"):
        flush_and_mount_again(drive.settings(), drive.mount)


def test_what_lies_on_the_drive_outlives_the_session_only_if_it_was_uploaded(drive, monkeypatch):
    mount_google_drive(drive.settings())
    (drive.place / "late").write_text("1")
    drive.lost()
    for name, value in drive.environment.items():
        monkeypatch.setenv(name, value)
    mount_google_drive(drive.settings())
    assert not (drive.place / "late").exists()


def test_colab_enterprise_has_no_drive(session, monkeypatch):
    monkeypatch.setenv("VERTEX_PRODUCT", "COLAB_ENTERPRISE")
    with pytest.raises(ColabError, match=r"Enterprise has no Google Drive.*gs://"):
        mount_google_drive(session.settings())
