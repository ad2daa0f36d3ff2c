"""Music's checks for `doctor`: ffmpeg if recordings need it, and the expected size of the stores."""

from __future__ import annotations

import pytest

from training.domain import Job
from training.domains.music import checks
from training.domains.music.domain import MUSIC
from training.errors import HostError
from training.stages.doctor import doctor
from training.workspace import Workspace

GIB = 2**30


def job(tmp_path, **options) -> Job:
    return Job(Workspace(tmp_path / "out"), options)


def sparse(path, size: int) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)


def test_the_size_of_the_stores_is_estimated_from_the_files(tmp_path):
    for number in range(5):
        sparse(tmp_path / "songs" / f"{number}.mp3", 2 * GIB)
    sparse(tmp_path / "songs" / "too large.mp3", 10 * GIB)  # which `prepare` refuses
    assert MUSIC.store_bytes(job(tmp_path, audio_root=tmp_path / "songs")) == pytest.approx(7 * GIB)
    sparse(tmp_path / "scores" / "a.MID", 100)
    sparse(tmp_path / "scores" / "a.txt", GIB)
    (tmp_path / "scores" / "gone.mid").symlink_to("/nowhere/gone.mid")
    assert MUSIC.store_bytes(job(tmp_path, midi_root=tmp_path / "scores")) == 400
    assert MUSIC.store_bytes(job(tmp_path)) == 0


def test_ffmpeg_is_required_if_files_need_it(tmp_path, monkeypatch):
    which = checks.shutil.which
    monkeypatch.setattr(checks.shutil, "which", lambda name: None if name == "ffmpeg" else which(name))
    assert [finding.state for finding in MUSIC.checks(job(tmp_path))] == ["note"]
    sparse(tmp_path / "songs" / "x.M4A", 1)
    with pytest.raises(HostError, match="ffmpeg"):
        doctor(Workspace(tmp_path / "out"), MUSIC, {"audio_root": tmp_path / "songs"}, device="cpu")
    monkeypatch.setattr(checks.shutil, "which", lambda name: f"/bin/{name}")
    assert [finding.state for finding in MUSIC.checks(job(tmp_path, audio_root=tmp_path / "songs"))] == ["ok"]


def test_checkpoints_and_exports_are_those_of_the_full_preset():
    """Six checkpoints of 16 bytes per parameter (5.8 and 16.32 million parameters), and half a GiB of exports."""
    assert 6 * sum(facts.checkpoint_bytes for facts in MUSIC.families) == 6 * 16 * (5_800_000 + 16_320_000)
    assert sum(facts.export_bytes for facts in MUSIC.families) == GIB // 2
