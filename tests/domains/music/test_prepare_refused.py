"""`prepare` on data that it refuses, on folders that it cannot read, and as a script: reasons and exit codes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.users import mode, public_folder, without_rights
from tests.domains.music.corpora import (
    EMOTIONS,
    make_corpus,
    run,
    write_mid,
    write_wav,
)
from training.data.files import scan
from training.domains.music.corpora import corpus
from training.errors import DataError, HostError, UsageError
from training.workspace import PROJECT, exclusive


def refusal(root: Path, kind=DataError, **options) -> str:
    with pytest.raises(kind) as error:
        run(root, **options)
    return str(error.value)


def test_labels_of_which_none_is_of_a_file_are_refused(root):
    """The paths may begin with a folder too many."""
    (root / "labels.csv").write_text("path,emotion\naudio/happy/t0.WAV,angry\naudio/happy/t3.WAV,fear\n")
    message = refusal(root, labels=root / "labels.csv")
    assert "none of its 2 paths is a file under --audio-root" in message
    assert "audio/happy/t0.WAV" in message
    (root / "labels.csv").write_text("happy/t0,angry\naudio/happy/t3.WAV,fear\n")
    assert run(root, labels=root / "labels.csv").unused_labels == ["audio/happy/t3.WAV"]


@pytest.fixture
def public(root, monkeypatch):
    """The corpus in a folder that any user may enter; it is scanned by a user without rights."""

    def scan_without_rights(*arguments):
        with without_rights():
            return scan(*arguments)

    monkeypatch.setattr(corpus, "scan", scan_without_rights)
    with public_folder() as place:
        corpus_there = Path(shutil.copytree(root, place / "corpus"))
        corpus_there.chmod(0o755)
        yield corpus_there


@pytest.mark.parametrize("bits", [0o000, 0o644, 0o311])
def test_all_files_below_a_folder_that_cannot_be_entered_count_as_lost(public, bits):
    """Three of nine recordings: as for unreadable files, more than a fifth is refused."""
    for n in range(3):
        for kind, suffix in (("audio", "WAV"), ("midi", "Mid")):
            (public / f"{kind}/happy/album{n}").mkdir()
            (public / f"{kind}/happy/t{3 * n}.{suffix}").rename(public / f"{kind}/happy/album{n}/t{3 * n}.{suffix}")
    with mode(public / "audio/happy", bits):
        message = refusal(public)
    assert "3 of 9 files could not be decoded (scan)" in message
    assert "audio/happy" in message and "the folder cannot be read: Permission denied" in message
    assert "audio/happy" in (public / "out/data/manifests/quarantine.jsonl").read_text()


def test_a_small_folder_that_cannot_be_entered_is_listed(public):
    (public / "audio/more").mkdir()
    with mode(public / "audio/more", 0o000):
        summary = run(public)
    assert [item["path"] for item in summary.quarantined] == [str(public / "audio/more")]
    assert "audio/more: the folder cannot be read" in summary.output
    with mode(public / "audio", 0o644):
        assert "cannot be read by uid" in refusal(public, HostError)


def test_an_empty_folder_is_refused(root):
    (root / "nothing").mkdir()
    assert "holds no usable file" in refusal(root, audio_root=root / "nothing")


def test_a_missing_folder_is_wrong_usage(root):
    assert "No such file" in refusal(root, UsageError, audio_root=root / "nowhere")
    assert "Not a directory" in refusal(root, UsageError, audio_root=root / "audio/happy/t0.WAV")


def test_a_corpus_without_pairs_is_refused_with_examples(root):
    shutil.rmtree(root / "midi")
    write_mid(root / "midi/x/other.mid", 1)
    write_mid(root / "midi/x/another.mid", 2)
    message = refusal(root)
    assert "No recording could be paired" in message
    assert "recording calm/t2.WAV" in message
    assert "score x/another.mid" in message


def test_a_folder_of_damaged_files_is_refused_and_listed(root):
    for n in range(9):
        (root / f"audio/{EMOTIONS[n % 3]}/t{n}.WAV").write_bytes(b"junk %d" % n)
    message = refusal(root)
    assert "9 of 9 files could not be decoded" in message
    assert "t0.WAV" in message
    assert len((root / "out/data/manifests/quarantine.jsonl").read_text().splitlines()) == 9
    assert not (root / "out/data/manifests/spectocloud_train.jsonl").exists()


def test_one_song_is_refused(tmp_path):
    """None would be left for validation; a copy is not a second song."""
    write_wav(tmp_path / "audio/a.wav", 1)
    write_mid(tmp_path / "midi/a.mid", 1)
    assert "only one song" in refusal(tmp_path)
    shutil.copy(tmp_path / "midi/a.mid", tmp_path / "midi/b.mid")
    assert "only one song" in refusal(tmp_path, audio_root=None)


def test_two_songs_are_enough(tmp_path):
    summary = run(make_corpus(tmp_path, 2), val_split=0.05)
    assert summary.songs == {"midi": {"train": 1, "val": 1}, "spectocloud": {"train": 1, "val": 1}}


@pytest.mark.parametrize("share", [0, 1, -0.1, float("nan")])
def test_an_invalid_share_is_wrong_usage(root, share):
    assert "--val-split" in refusal(root, UsageError, val_split=share)


def test_two_runs_cannot_write_the_same_folder(root):
    with exclusive(root / "out/data/manifests", "another"), pytest.raises(HostError, match="in use"):
        run(root)


# -- the script ----------------------------------------------------------------------------------------------------


def script(*arguments, cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, str(PROJECT / "scripts/build_manifests.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_the_script_works_from_any_folder_with_the_guides_flags(root):
    """Relative paths are relative to the current folder."""
    flags = ["--val-split", "0.3", "--seed", "42", "--generate-clouds", "--clouds-dir", "clouds", "--out-dir", "m"]
    flags += ["--out", "out"]
    (root / "l.csv").write_text("happy/t0,sad\n")
    done = script("--audio-root", "audio", "--midi-root", "midi", "--labels", "l.csv", *flags, cwd=root)
    assert done.returncode == 0, done.stderr
    made = sorted(path.name for path in (root / "m").glob("*.jsonl"))
    assert made[:3] == ["midi_train.jsonl", "midi_val.jsonl", "quarantine.jsonl"]
    row = json.loads((root / "m/spectocloud_train.jsonl").read_text().splitlines()[0])
    assert all(Path(row[key]).is_absolute() for key in ("audio_path", "midi_path", "target_pointcloud_path"))
    assert len(list((root / "clouds").glob("*.npy"))) == 9


def test_the_script_ends_with_the_right_code_and_no_traceback(root):
    (root / "nothing").mkdir()
    for arguments, code in [
        (["--audio-root", "nothing", "--midi-root", "midi"], 3),
        (["--audio-root", "nowhere", "--midi-root", "midi"], 2),
        (["--audio-root", "audio"], 2),
        (["--no-such-flag"], 2),
        (["--help"], 0),
    ]:
        done = script(*arguments, "--out", "out", cwd=root)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        assert done.stderr or code == 0
