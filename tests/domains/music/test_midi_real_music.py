"""The corpus of real music: a missing program is reported, files are reproducible, and they are made once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from training.domains.music.midi.reader import read_score

PROGRAM = Path(__file__).parents[3] / "benchmarks" / "music" / "real_music.py"
playable = pytest.mark.skipif(not shutil.which("fluidsynth"), reason="fluidsynth is not installed")


def run(*arguments, **environment):
    command = [sys.executable, str(PROGRAM), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment or None)


def test_a_missing_program_is_reported_with_the_command_that_installs_it(tmp_path):
    done = run(tmp_path / "out", PATH=str(tmp_path))
    assert done.returncode == 6
    assert "fluidsynth" in done.stderr and "apt-get install -y fluidsynth fluid-soundfont-gm" in done.stderr
    assert not (tmp_path / "out").exists()


def test_wrong_usage_is_refused(tmp_path):
    assert run(tmp_path / "out", "--count", "0").returncode == 2
    (tmp_path / "real_music.json").write_text('{"format": 1, "kind": "chorales", "count": 3, "pieces": []}')
    done = run(tmp_path, "--count", "2")
    assert done.returncode == 2 and "another selection" in done.stderr
    (tmp_path / "real_music.json").write_text("{")
    assert run(tmp_path, "--count", "2").returncode == 3


@pytest.mark.slow
@playable
def test_pairs_are_made_once_and_are_reproducible(tmp_path):
    for name in ("a b", "c"):
        done = run(tmp_path / name, "--count", "2")
        assert done.returncode == 0, done.stderr
    made = sorted(path.relative_to(tmp_path / "c") for path in (tmp_path / "c").rglob("*") if path.is_file())
    assert [str(path.parent) for path in made] == ["audio/happy", "audio/sad", "midi/happy", "midi/sad", "."]
    for path in made:
        assert (tmp_path / "a b" / path).read_bytes() == (tmp_path / "c" / path).read_bytes(), path
    for row in json.loads((tmp_path / "c" / "real_music.json").read_text())["pieces"]:
        score = read_score(tmp_path / "c" / row["midi"])
        last = (score.notes["onset"] + score.notes["duration"]).max()
        assert len(score.notes) > 100 and len(set(score.notes["program"].tolist())) == 1
        assert last < row["seconds"] < last + 10
    before = {path: (tmp_path / "c" / path).stat().st_mtime_ns for path in made}
    assert "nothing to do" in run(tmp_path / "c", "--count", "2").stdout
    assert before == {path: (tmp_path / "c" / path).stat().st_mtime_ns for path in made}


@pytest.mark.slow
@playable
def test_performed_music_has_bands_and_soloists_and_the_level_of_recordings(tmp_path):
    import soundfile

    done = run(tmp_path, "--kind", "performed", "--count", "2")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "real_music.json").read_text())["pieces"]
    assert [row["midi"].split("/")[1] for row in rows] == ["band", "solo"]
    for row in rows:
        notes = read_score(tmp_path / row["midi"]).notes
        assert len(set(notes["velocity"].tolist())) > 5  # velocities of a performance
        sound, _ = soundfile.read(tmp_path / row["audio"])
        assert abs(abs(sound).max() - 10 ** (-1 / 20)) < 1e-3
    assert len(set(read_score(tmp_path / rows[0]["midi"]).notes["program"].tolist())) > 1 or "choir" in str(rows[0])
    assert len(set(read_score(tmp_path / rows[1]["midi"]).notes["program"].tolist())) == 1
