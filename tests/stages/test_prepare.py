"""Prepare, on real files: what is found, refused, written, and found again. P3, P4, P5, P9, P10, P11, P12, P16, P17."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import mido
import numpy as np
import pytest
import soundfile

from training.data import encode
from training.errors import DataError, HostError, UsageError
from training.music.audio import HOP, LOGMEL, SAMPLE_RATE
from training.music.clouds.cloud import render
from training.music.clouds.precomputed import fullest_window
from training.music.midi.notes import NOTE
from training.music.midi.reader import NOTES
from training.music.midi.tokens import TOKENS
from training.recipe import Recipe
from training.settings import Data, RunSettings
from training.stages.prepare import prepare
from training.stages.splits import load_split
from training.workspace import Workspace, exclusive

PROJECT = Path(__file__).resolve().parents[2]
EMOTIONS = ("happy", "sad", "calm")


def write_wav(path: Path, pitch: int, seconds: float = 2.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.3 * np.sin(2 * np.pi * 55 * 2 ** (pitch / 12) * np.arange(int(seconds * 44100)) / 44100)
    soundfile.write(path, wave, 44100, format="WAV", subtype="PCM_16")


def write_mid(path: Path, pitch: int, notes: int = 8, ticks_per_beat: int = 480, delay: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = mido.MidiFile(ticks_per_beat=ticks_per_beat)
    track = mido.MidiTrack()
    file.tracks.append(track)
    for n in range(notes):
        track.append(mido.Message("note_on", note=40 + pitch + n, velocity=80, time=delay))
        track.append(mido.Message("note_off", note=40 + pitch + n, velocity=0, time=240))
    file.save(path)


def make_corpus(root: Path, songs: int = 9) -> Path:
    for n in range(songs):
        folder = EMOTIONS[n % 3]
        write_wav(root / "audio" / folder / f"t{n}.WAV", n)
        write_mid(root / "midi" / folder / f"t{n}.Mid", n)
    return root


@pytest.fixture(scope="module")
def encoded(tmp_path_factory) -> Path:
    """A corpus of nine songs and a cache in which they are decoded; copied by every test that needs them."""
    root = make_corpus(tmp_path_factory.mktemp("corpus"))
    run(root)
    return root


@pytest.fixture
def root(encoded, tmp_path) -> Path:
    shutil.copytree(encoded / "audio", tmp_path / "audio")
    shutil.copytree(encoded / "midi", tmp_path / "midi")
    shutil.copytree(encoded / "out" / "cache", tmp_path / "out" / "cache")
    return tmp_path


def run(root: Path, **options):
    said = []
    options = {"val_split": 0.2, "say": said.append, **options}
    audio = options.pop("audio", root / "audio")
    summary = prepare(Workspace(root / "out"), audio, root / "midi", workers=2, **options)
    summary.said = "\n".join(said)
    return summary


def rows(root: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (root / "out/data/manifests" / f"{name}.jsonl").read_text().splitlines()]


def test_folders_become_manifests_stores_and_a_summary(root):
    """P11: extensions of any case."""
    summary = run(root)
    assert (summary.pairs, summary.audio_files, summary.midi_files) == (9, 9, 9)
    assert summary.songs == {"midi": {"train": 7, "val": 2}, "spectocloud": {"train": 7, "val": 2}}
    assert summary.notes == 72
    assert summary.hours == pytest.approx(9 * 2 / 3600, abs=0.0005)
    assert summary.emotions == {"calm": 3, "happy": 3, "sad": 3}
    row = rows(root, "spectocloud_train")[0]
    assert list(row) == ["audio_path", "midi_path", "emotion", "id", "label_source"]
    assert list(rows(root, "midi_val")[0]) == ["midi_path", "emotion", "id", "label_source"]
    told = json.loads((root / "out/data/manifests/summary.json").read_text())
    assert (told["synthetic"], told["pairs"], told["digest"]) == (False, 9, summary.digest)
    assert "9 pairs" in summary.said


def test_both_manifests_share_one_split(root):
    """P10."""
    write_mid(root / "midi/happy/alone.mid", 20)
    run(root)
    for side, other in (("train", "val"), ("val", "train")):
        ids = {row["id"] for row in rows(root, f"spectocloud_{side}")}
        assert ids <= {row["id"] for row in rows(root, f"midi_{side}")}
        assert not ids & {row["id"] for row in rows(root, f"midi_{other}")}


def test_a_second_run_changes_nothing_and_says_so(root, monkeypatch):
    """P5: unchanged inputs, identical bytes, nothing decoded."""
    run(root, generate_clouds=True)
    folder = root / "out/data"
    before = {p: (p.read_bytes(), p.stat().st_ino) for p in folder.rglob("*") if p.is_file()}
    monkeypatch.setattr(encode.sandbox, "run", lambda *a, **k: pytest.fail("decoded again"))
    summary = run(root, generate_clouds=True)
    assert summary.up_to_date
    assert "up to date" in summary.said
    assert {p: (p.read_bytes(), p.stat().st_ino) for p in folder.rglob("*") if p.is_file()} == before


def test_the_split_and_the_data_digest_are_those_of_another_mount(root, tmp_path_factory):
    """P10: the split hashed the absolute path."""
    first = run(root)
    there = tmp_path_factory.mktemp("other") / "mount point"
    shutil.copytree(root, there)
    shutil.rmtree(there / "out/data")
    second = run(there)
    assert second.digest == first.digest
    for name in ("spectocloud_val", "midi_val"):
        assert [row["id"] for row in rows(there, name)] == [row["id"] for row in rows(root, name)]
    assert run(root, seed=7).digest != first.digest


def test_unreadable_files_are_quarantined_with_reasons_and_never_replaced(root):
    """P3, P17: broken audio, broken scores, time base 0, 2^28-tick deltas, FIFOs; every good song is kept."""
    for n in range(9, 40):
        write_mid(root / f"midi/more/t{n}.mid", n % 30)
    (root / "audio/happy/broken.wav").write_bytes(b"RIFF\0\0\0\0WAVEfmt nonsense")
    write_mid(root / "midi/happy/broken.mid", 1)
    (root / "midi/sad/noise.mid").write_bytes(os.urandom(500))
    (root / "midi/sad/cut.mid").write_bytes((root / "midi/sad/t1.Mid").read_bytes()[:30])
    write_mid(root / "midi/sad/far.mid", 1, delay=(1 << 28) - 1)
    write_mid(root / "midi/sad/none.mid", 1, notes=0)
    (root / "midi/sad/empty.mid").write_bytes(b"")
    os.mkfifo(root / "midi/sad/pipe.mid")
    (root / "audio/sad/link.wav").symlink_to(root / "midi/sad/pipe.mid")
    summary = run(root)
    told = {Path(item["path"]).name: item["reason"] for item in summary.quarantined}
    names = {"broken.wav", "noise.mid", "cut.mid", "far.mid", "none.mid", "empty.mid", "pipe.mid", "link.wav"}
    assert set(told) == names
    assert all(told.values())
    assert summary.pairs == 9
    assert "happy/broken" in {row["id"] for side in ("train", "val") for row in rows(root, f"midi_{side}")}
    listed = (root / "out/data/manifests/quarantine.jsonl").read_text().splitlines()
    assert {Path(json.loads(line)["path"]).name for line in listed} == names
    for name in names:
        assert name in summary.said or "more (see summary.json)" in summary.said


def test_a_broken_file_does_not_make_another_name_unique(root):
    """P9: with the broken score gone, the recording would have met the only one left of that name."""
    write_wav(root / "audio/x/take.wav", 3)
    write_mid(root / "midi/a/take.mid", 3)
    (root / "midi/b").mkdir()
    (root / "midi/b/take.mid").write_bytes(b"MThd broken")
    summary = run(root)
    assert summary.pairs == 9
    assert summary.ambiguous[0]["midi"] == ["a/take.mid", "b/take.mid"]


def test_ambiguous_and_unmatched_files_are_listed(root):
    write_wav(root / "audio/happy/alone.wav", 1)
    write_mid(root / "midi/sad/other.mid", 1)
    write_wav(root / "audio/x/t1.wav", 1)
    write_mid(root / "midi/y/t1.mid", 1)
    summary = run(root)
    assert summary.unmatched_audio == ["happy/alone.wav"]
    assert summary.unmatched_midi == ["sad/other.mid"]
    assert summary.ambiguous == [
        {"audio": ["x/t1.wav"], "midi": ["y/t1.mid"], "reason": "the name is in several folders"}
    ]
    assert "happy/alone.wav" in summary.said
    assert "x/t1.wav | y/t1.mid" in summary.said


def test_copies_and_formats_stay_on_one_side(root):
    """P10: byte-identical copies, and a second format."""
    for n in range(9):
        shutil.copy(root / f"audio/{EMOTIONS[n % 3]}/t{n}.WAV", root / f"audio/copy of t{n}.wav")
        shutil.copy(root / f"midi/{EMOTIONS[n % 3]}/t{n}.Mid", root / f"midi/copy of t{n}.mid")
    wave, rate = soundfile.read(root / "audio/happy/t0.WAV")
    soundfile.write(root / "audio/happy/t0.flac", wave, rate)
    for seed in range(3):
        run(root, seed=seed, val_split=0.4)
        sides = defaultdict(set)
        for name in ("spectocloud", "midi"):
            for side in ("train", "val"):
                for row in rows(root, f"{name}_{side}"):
                    sides[Path(row["midi_path"]).stem.removeprefix("copy of ")].add(side)
        assert all(len(found) == 1 for found in sides.values())
        assert len(sides) == 9


def test_clouds_made_ahead_equal_those_made_on_the_fly(root):
    summary = run(root, generate_clouds=True, clouds_dir=root / "my clouds")
    assert summary.clouds == 9
    cache = root / "out/cache"
    for row in rows(root, "spectocloud_train"):
        cloud = np.load(row["target_pointcloud_path"], allow_pickle=False)
        assert (cloud.shape, cloud.dtype) == ((1200, 3), np.float32)
        assert Path(row["target_pointcloud_path"]).parent == root / "my clouds"
        frame = row["target_pointcloud_start"] * SAMPLE_RATE / HOP
        assert frame == pytest.approx(round(frame), abs=1e-9)
        path = Path(row["midi_path"])
        notes = encode.encode_files([path], NOTES, cache)[0][path]["notes"]
        again = render(notes, row["target_pointcloud_start"], np.array(row["emotion"])).positions
        assert np.array_equal(cloud, again)


def test_the_fullest_window_is_where_most_notes_sound():
    notes = np.zeros(6, NOTE)
    notes["onset"] = [0.0, 5.0, 5.1, 5.2, 9.0, 30.0]
    notes["duration"] = 0.2
    start = fullest_window(notes, 500) * HOP / SAMPLE_RATE
    assert start <= 5.2
    assert start + 1.486 >= 5.2
    assert fullest_window(notes, 64) == 0
    assert fullest_window(notes, 10) == 0


def test_labels_of_the_user_win_and_unused_ones_are_told(root):
    (root / "labels.csv").write_text("path,emotion\nhappy/t0.WAV,angry\nhappy/t3,fear\nnowhere,sad\n")
    summary = run(root, labels_file=root / "labels.csv")
    by_id = {row["id"]: row for side in ("train", "val") for row in rows(root, f"spectocloud_{side}")}
    assert by_id["happy/t0"]["label_source"] == "labels"
    assert (summary.emotions["angry"], summary.emotions["fear"]) == (1, 1)
    assert summary.unused_labels == ["nowhere"]


def test_songs_without_a_hint_are_neutral_counted_and_said(root):
    write_mid(root / "midi/garage/crusader.mid", 3)
    summary = run(root)
    assert summary.label_sources == {"none": 1, "path": 9}
    assert "1 songs have no hint" in summary.said
    row = next(r for s in ("train", "val") for r in rows(root, f"midi_{s}") if r["id"] == "garage/crusader")
    assert (row["emotion"], row["label_source"]) == ([0.0, 0.0, 0.5], "none")


def test_a_demo_corpus_is_called_synthetic_everywhere(root):
    (root / "synthetic.json").write_text("{}")
    summary = run(root)
    assert summary.synthetic
    assert "synthetic: true" in summary.said
    assert json.loads((root / "out/data/manifests/summary.json").read_text())["synthetic"] is True


def test_scores_alone_give_midi_manifests_and_say_so(root):
    summary = run(root, audio=None)
    assert summary.manifests == ["midi_train.jsonl", "midi_val.jsonl"]
    assert not (root / "out/data/manifests/spectocloud_train.jsonl").exists()
    assert "only the MIDI manifests" in summary.said


def test_pairs_of_different_length_are_remarked_on(root):
    write_mid(root / "midi/happy/t0.Mid", 1, notes=80)
    assert run(root).lengths_differ == ["happy/t0: 2 s recorded, 20 s written"]


def test_odd_names_are_trained_on(root):
    """P16: space, quotes, newline, leading dash, $(..)."""
    odd = ["a b", "it's", 'q"q', "new\nline", "-rf", "$(touch pwned)", "é"]
    for n, name in enumerate(odd):
        write_wav(root / "audio/happy" / f"{name}.wav", n)
        write_mid(root / "midi/happy" / f"{name}.mid", n)
    summary = run(root)
    assert summary.pairs == 9 + len(odd)
    assert not summary.quarantined
    assert not Path("pwned").exists()


# -- refusals ------------------------------------------------------------------------------------------------------


def refusal(root: Path, kind=DataError, **options) -> str:
    with pytest.raises(kind) as error:
        run(root, **options)
    return str(error.value)


def test_an_empty_folder_is_refused(root):
    (root / "nothing").mkdir()
    assert "holds no usable file" in refusal(root, audio=root / "nothing")


def test_a_folder_that_is_not_there_is_wrong_usage(root):
    assert "No such file" in refusal(root, UsageError, audio=root / "nowhere")
    assert "Not a directory" in refusal(root, UsageError, audio=root / "audio/happy/t0.WAV")


def test_nothing_paired_is_refused_with_examples(root):
    shutil.rmtree(root / "midi")
    write_mid(root / "midi/x/other.mid", 1)
    write_mid(root / "midi/x/another.mid", 2)
    message = refusal(root)
    assert "No recording could be paired" in message
    assert "recording calm/t2.WAV" in message
    assert "score x/another.mid" in message


def test_a_folder_of_broken_files_is_refused_and_listed(root):
    for n in range(9):
        (root / f"audio/{EMOTIONS[n % 3]}/t{n}.WAV").write_bytes(b"junk %d" % n)
    message = refusal(root)
    assert "9 of 9 files could not be decoded" in message
    assert "t0.WAV" in message
    assert len((root / "out/data/manifests/quarantine.jsonl").read_text().splitlines()) == 9
    assert not (root / "out/data/manifests/spectocloud_train.jsonl").exists()


def test_one_song_is_refused(tmp_path):
    """P12: nothing would be left to check with; a copy is no second song."""
    write_wav(tmp_path / "audio/a.wav", 1)
    write_mid(tmp_path / "midi/a.mid", 1)
    assert "only one song" in refusal(tmp_path)
    shutil.copy(tmp_path / "midi/a.mid", tmp_path / "midi/b.mid")
    assert "only one song" in refusal(tmp_path, audio=None)


def test_two_songs_are_enough(tmp_path):
    """P12."""
    summary = run(make_corpus(tmp_path, 2), val_split=0.05)
    assert summary.songs == {"midi": {"train": 1, "val": 1}, "spectocloud": {"train": 1, "val": 1}}


@pytest.mark.parametrize("share", [0, 1, -0.1, float("nan")])
def test_a_share_that_cannot_be_meant_is_wrong_usage(root, share):
    assert "--val-split" in refusal(root, UsageError, val_split=share)


def test_two_runs_do_not_write_one_folder_together(root):
    with exclusive(root / "out/data/manifests", "another"), pytest.raises(HostError, match="in use"):
        run(root)


# -- the script ----------------------------------------------------------------------------------------------------


def script(*arguments, cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, str(PROJECT / "scripts/build_manifests.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_the_script_works_from_any_folder_with_the_guides_flags(root):
    """R5 among others: relative paths mean where the user stands."""
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


# -- the way back --------------------------------------------------------------------------------------------------


class PairRecipe(Recipe):
    """The part of a recipe that preparing needs."""

    family, title, manifest, settings_type = "spectocloud", "Spectocloud", "spectocloud", RunSettings
    build = counts = losses = validate = examples = graphs = None
    __abstractmethods__ = frozenset()

    def encoders(self):
        return {"audio_path": LOGMEL, "midi_path": NOTES}

    def check_row(self, row):
        if row["emotion"][0] == 0.123:
            raise ValueError("the family does not like it")


class ScoreRecipe(PairRecipe):
    family, title, manifest = "midi_generator", "MIDI generator", "midi"

    def encoders(self):
        return {"midi_path": TOKENS}


ScoreRecipe.__abstractmethods__ = frozenset()


def recipe(kind=PairRecipe, **data) -> Recipe:
    return kind(RunSettings(data=Data(**data)))


def split(root: Path, which="train", kind=PairRecipe, data=None, **options):
    said = []
    out = load_split(
        recipe(kind, **(data or {})), Workspace(root / "out"), which, say=said.append, workers=2, **options
    )
    return out, "\n".join(said)


def test_a_built_split_comes_back_with_its_arrays(root, monkeypatch):
    run(root)
    monkeypatch.setattr(encode.sandbox, "run", lambda *a, **k: pytest.fail("decoded again"))
    train, _ = split(root)
    val, _ = split(root, "val")
    assert (len(train), len(val)) == (7, 2)
    assert train[0].records["audio_path"]["logmel"].dtype == np.float16
    assert train[0].records["audio_path"]["logmel"].shape[1] == 128
    assert train[0].records["midi_path"]["notes"].dtype == NOTE
    scores, _ = split(root, kind=ScoreRecipe)
    assert scores[0].records["midi_path"]["ids"].dtype == np.uint16


def test_a_handwritten_manifest_trains_without_prepare(root):
    shutil.rmtree(root / "out/cache")
    lines = [
        {"audio_path": f"audio/happy/t{n}.WAV", "midi_path": f"midi/happy/t{n}.Mid", "emotion": [0.5, 0.5, 0.5]}
        for n in (0, 3)
    ]
    (root / "mine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    got, said = split(root, data={"train_manifest": str(root / "mine.jsonl"), "cache_dir": str(root / "my cache")})
    assert len(got) == 2
    assert "decoded" in said
    assert (root / "my cache/logmel").is_dir()


def test_a_missing_manifest_never_means_synthetic_data(root):
    """P4."""
    with pytest.raises(DataError, match=r"build_manifests\.py"):
        split(root)


def test_manifests_of_another_host_find_their_files(root):
    """P16."""
    run(root)
    shutil.move(root / "audio", root / "elsewhere")
    with pytest.raises(DataError, match="--audio-root"):
        split(root)
    moved, _ = split(root, audio_root=root / "elsewhere")
    assert len(moved) == 7
    assert Path(moved[0].values["audio_path"]).is_relative_to(root / "elsewhere")


def test_faulty_rows_are_refused_before_anything_is_decoded(root, monkeypatch):
    run(root)
    path = root / "out/data/manifests/spectocloud_train.jsonl"
    lines = path.read_text().splitlines()
    bad = json.loads(lines[1]) | {"emotion": [0.123, 0, 0]}
    path.write_text("\n".join([lines[0], json.dumps(bad), lines[2].replace("audio_path", "audio_paht")]))
    monkeypatch.setattr(encode, "encode_files", lambda *a, **k: pytest.fail("decoded"))
    with pytest.raises(DataError) as error:
        split(root)
    assert "spectocloud_train.jsonl:2: the family does not like it" in str(error.value)
    assert "spectocloud_train.jsonl:3: `audio_paht` is no manifest key: did you mean `audio_path`?" in str(error.value)


def test_a_song_that_broke_since_is_left_out_and_said(root):
    run(root)
    victim = Path(rows(root, "spectocloud_train")[0]["audio_path"])
    victim.write_bytes(b"broken now")
    kept, said = split(root)
    assert len(kept) == 6
    assert "1 of 7 songs" in said
    assert victim.name in said
    assert (root / "out/cache/quarantine/spectocloud_train.jsonl").read_text().count("\n") == 1


def test_prepare_needs_no_torch_and_a_known_corpus_takes_no_time(root):
    """Seconds of importing torch would be spent at every start."""
    run(root)
    code = (
        "import sys, time; from pathlib import Path; from training.stages.prepare import prepare\n"
        "from training.workspace import Workspace\n"
        "root = Path(sys.argv[1]); begin = time.process_time()\n"
        "prepare(Workspace(root / 'out'), root / 'audio', root / 'midi', val_split=0.2)\n"
        "print('torch' in sys.modules, time.process_time() - begin)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(root)], env=environment, capture_output=True, text=True, check=True
    )
    torch, seconds = done.stdout.splitlines()[-1].split()
    assert torch == "False"
    assert float(seconds) < 2.0  # of the processor: other work on the host does not count
    assert "up to date" in done.stdout


def test_a_fifo_in_the_folders_does_not_hang_the_run(root):
    """P17, end to end, linked and plain, with a circle of links."""
    os.mkfifo(root / "audio/happy/p.wav")
    (root / "midi/happy/loop").symlink_to(root / "midi")
    begin = time.monotonic()
    assert run(root).pairs == 9
    assert time.monotonic() - begin < 20
