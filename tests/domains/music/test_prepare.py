"""`prepare` on real files: manifests, stores, quarantine, refusals, and repeated runs."""

import json
import os
import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.domains.music.corpora import (
    EMOTIONS,
    rows,
    run,
    write_mid,
    write_wav,
)
from tests.domains.music.midi_bytes import metre, off, on, song, track
from training.data import encode
from training.domains.music.audio import HOP, SAMPLE_RATE
from training.domains.music.clouds.cloud import render
from training.domains.music.clouds.precomputed import fullest_window
from training.domains.music.midi.notes import NOTE
from training.domains.music.midi.reader import NOTES


@pytest.mark.parametrize(("suffix", "options"), [
    (".opus", {"format": "OGG", "subtype": "OPUS"}), (".aiff", {}), (".AIF", {"format": "AIFF"}), (".au", {}),
    (".caf", {}), (".w64", {}),
])  # fmt: skip
def test_recordings_of_every_kind_are_found_and_used(root, suffix, options):
    rate = 48000 if suffix == ".opus" else 44100
    wave = 0.3 * np.sin(2 * np.pi * 330 * np.arange(2 * rate) / rate)
    soundfile.write(root / "audio" / "sad" / f"kind{suffix}", wave, rate, **options)
    write_mid(root / "midi" / "sad" / "kind.mid", 5)
    run(root)
    assert "sad/kind" in {row["id"] for side in ("train", "val") for row in rows(root, f"spectocloud_{side}")}


def test_folders_become_manifests_stores_and_a_summary(root):
    """With extensions in any case."""
    summary = run(root)
    assert (summary.pairs, summary.audio_files, summary.midi_files) == (9, 9, 9)
    assert summary.songs == {"midi": {"train": 7, "val": 2}, "spectocloud": {"train": 7, "val": 2}}
    assert summary.notes == 72
    assert summary.hours == pytest.approx(9 * 2 / 3600, abs=0.0005)
    assert summary.emotions == {"calm": 3, "happy": 3, "sad": 3}
    row = rows(root, "spectocloud_train")[0]
    assert list(row) == ["audio_path", "midi_path", "emotion", "id", "label_source"]
    assert list(rows(root, "midi_val")[0]) == ["midi_path", "emotion", "id", "label_source"]
    content = json.loads((root / "out/data/manifests/summary.json").read_text())
    assert (content["synthetic"], content["pairs"], content["digest"]) == (False, 9, summary.digest)
    assert "9 pairs" in summary.output


def test_what_the_reader_changes_in_scores_is_counted_in_the_summary(root):
    """And printed, with the score that has most of it; a second run has the same counts."""
    bars_of_half_a_second = [(0, metre(1, 2)), *[event for _ in range(8) for event in ((0, on(60)), (480, off(60)))]]
    endless = [(0, on(50)), (0, on(36, channel=9)), (960, on(52)), (480, off(52))]
    (root / "midi/happy/short bars.mid").write_bytes(song(track(bars_of_half_a_second)))
    (root / "midi/happy/endless.mid").write_bytes(song(track(endless)) + b"more")
    summary = run(root)
    assert summary.score_changes == {
        "endless": {"count": 1, "files": 1, "most": ["happy/endless.mid: 1"]},
        "strokes": {"count": 1, "files": 1, "most": ["happy/endless.mid: 1"]},
        "bars": {"count": 4, "files": 1, "most": ["happy/short bars.mid: 4"]},
        "unread": {"count": 4, "files": 1, "most": ["happy/endless.mid: 4"]},
    }
    assert "4 bars joined or divided" in summary.output and "most in happy/short bars.mid: 4" in summary.output
    assert run(root).score_changes == summary.score_changes


def test_both_manifests_share_one_split(root):
    write_mid(root / "midi/happy/alone.mid", 20)
    run(root)
    for side, other in (("train", "val"), ("val", "train")):
        ids = {row["id"] for row in rows(root, f"spectocloud_{side}")}
        assert ids <= {row["id"] for row in rows(root, f"midi_{side}")}
        assert not ids & {row["id"] for row in rows(root, f"midi_{other}")}


def test_a_second_run_changes_nothing_and_reports_it(root, monkeypatch):
    """With unchanged inputs nothing is decoded, and all bytes are the same."""
    run(root, generate_clouds=True)
    folder = root / "out/data"
    before = {p: (p.read_bytes(), p.stat().st_ino) for p in folder.rglob("*") if p.is_file()}
    monkeypatch.setattr(encode.sandbox, "run", lambda *a, **k: pytest.fail("decoded again"))
    summary = run(root, generate_clouds=True)
    assert summary.up_to_date
    assert "up to date" in summary.output
    assert {p: (p.read_bytes(), p.stat().st_ino) for p in folder.rglob("*") if p.is_file()} == before


def test_the_split_and_the_data_digest_do_not_depend_on_the_absolute_path(root, tmp_path_factory):
    first = run(root)
    there = tmp_path_factory.mktemp("other") / "mount point"
    shutil.copytree(root, there)
    shutil.rmtree(there / "out/data")
    second = run(there)
    assert second.digest == first.digest
    for name in ("spectocloud_val", "midi_val"):
        assert [row["id"] for row in rows(there, name)] == [row["id"] for row in rows(root, name)]
    assert run(root, seed=7).digest != first.digest


def test_unreadable_files_are_quarantined_with_reasons(root):
    """Damaged audio, damaged scores, time base 0, 2^28-tick deltas, FIFOs; every readable song is kept."""
    for n in range(9, 40):
        write_mid(root / f"midi/more/t{n}.mid", n)
    (root / "audio/happy/broken.wav").write_bytes(b"RIFF\0\0\0\0WAVEfmt nonsense")
    write_mid(root / "midi/happy/broken.mid", 41)
    (root / "midi/sad/noise.mid").write_bytes(os.urandom(500))
    (root / "midi/sad/cut.mid").write_bytes((root / "midi/sad/t1.Mid").read_bytes()[:30])
    write_mid(root / "midi/sad/far.mid", 1, delay=(1 << 28) - 1)
    write_mid(root / "midi/sad/none.mid", 1, notes=0)
    (root / "midi/sad/empty.mid").write_bytes(b"")
    os.mkfifo(root / "midi/sad/pipe.mid")
    (root / "audio/sad/link.wav").symlink_to(root / "midi/sad/pipe.mid")
    summary = run(root)
    reasons = {Path(item["path"]).name: item["reason"] for item in summary.quarantined}
    names = {"broken.wav", "noise.mid", "cut.mid", "far.mid", "none.mid", "empty.mid", "pipe.mid", "link.wav"}
    assert set(reasons) == names
    assert all(reasons.values())
    assert summary.pairs == 9
    assert "happy/broken" in {row["id"] for side in ("train", "val") for row in rows(root, f"midi_{side}")}
    listed = (root / "out/data/manifests/quarantine.jsonl").read_text().splitlines()
    assert {Path(json.loads(line)["path"]).name for line in listed} == names
    for name in names:
        assert name in summary.output or "more (see summary.json)" in summary.output


def test_a_damaged_file_does_not_make_another_name_unique(root):
    """Without the damaged score, the recording would be paired with the only other one of that name."""
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
    assert "happy/alone.wav" in summary.output
    assert "x/t1.wav | y/t1.mid" in summary.output


def test_copies_and_formats_stay_on_one_side(root):
    """Identical copies, and a second format."""
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


def test_precomputed_clouds_equal_rendered_ones(root):
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


def test_labels_of_the_user_have_priority_and_unused_ones_are_reported(root):
    (root / "labels.csv").write_text("path,emotion\nhappy/t0.WAV,angry\nhappy/t3,fear\nnowhere,sad\n")
    summary = run(root, labels=root / "labels.csv")
    by_id = {row["id"]: row for side in ("train", "val") for row in rows(root, f"spectocloud_{side}")}
    assert by_id["happy/t0"]["label_source"] == "labels"
    assert (summary.emotions["angry"], summary.emotions["fear"]) == (1, 1)
    assert summary.unused_labels == ["nowhere"]


def test_folders_that_disagree_and_copies_with_two_emotions_are_reported(root):
    for folder in ("sad/Joy Division", "Joy Division"):
        write_mid(root / f"midi/{folder}/x.mid", 21 + len(folder))
    shutil.copy(root / "midi/happy/t0.Mid", root / "midi/sad/again.mid")
    summary = run(root)
    assert summary.folders_disagree == [
        "sad/Joy Division (1 song): sad, by folder 'sad'; folder 'Joy Division' names happy"
    ]
    assert summary.unsure_labels == ["Joy Division (1 song): happy, by folder 'Joy Division'"]
    assert summary.contradicted == ["happy/t0.Mid (happy), sad/again.mid (sad): none is used"]
    for line in (*summary.folders_disagree, *summary.unsure_labels, *summary.contradicted):
        assert line in summary.output
    by_content = defaultdict(set)
    for row in (row for side in ("train", "val") for row in rows(root, f"midi_{side}")):
        by_content[Path(row["midi_path"]).read_bytes()].add(tuple(row["emotion"]))
    assert all(len(emotions) == 1 for emotions in by_content.values())
    content = json.loads((root / "out/data/manifests/summary.json").read_text())
    assert content["contradicted"] == summary.contradicted


def test_songs_whose_channels_cancel_are_counted(root):
    wave, rate = soundfile.read(root / "audio/happy/t0.WAV")
    soundfile.write(root / "audio/happy/t0.WAV", np.stack([wave, -wave], axis=1), rate)
    summary = run(root)
    assert (summary.pairs, summary.channels_cancel) == (9, ["happy/t0"])
    assert "(mixed as half of their difference, or the loudest one): 1" in summary.output
    again = run(root)
    assert again.channels_cancel == ["happy/t0"]


def test_recordings_and_scores_of_kinds_that_are_not_read_are_named(root):
    for name in ("audio/happy/more.wma", "midi/happy/more.musicxml"):
        (root / name).write_bytes(b"any")
    (root / "midi/happy/t0.Mid").rename(root / "midi/happy/t0.kar")  # karaoke: a MIDI file by another name
    summary = run(root)
    assert summary.pairs == 9
    listed = {Path(item["path"]).name: item["reason"] for item in summary.quarantined}
    assert set(listed) == {"more.wma", "more.musicxml"}
    assert "ffmpeg -i FILE FILE.flac" in listed["more.wma"] and "export it as a MIDI file" in listed["more.musicxml"]
    assert "quarantined: 2" in summary.output


def test_songs_without_an_emotion_word_are_neutral_counted_and_reported(root):
    write_mid(root / "midi/garage/crusader.mid", 33)
    summary = run(root)
    assert summary.label_sources == {"none": 1, "path": 9}
    assert "1 song without an emotion word" in summary.output
    row = next(r for s in ("train", "val") for r in rows(root, f"midi_{s}") if r["id"] == "garage/crusader")
    assert (row["emotion"], row["label_source"]) == ([0.0, 0.0, 0.5], "none")


def test_a_demo_corpus_is_reported_as_synthetic(root):
    (root / "synthetic.json").write_text("{}")
    summary = run(root)
    assert summary.synthetic
    assert "synthetic: true" in summary.output
    assert json.loads((root / "out/data/manifests/summary.json").read_text())["synthetic"] is True


def test_without_recordings_only_the_midi_manifests_are_written(root):
    summary = run(root, audio_root=None)
    assert summary.manifests == ["midi_train.jsonl", "midi_val.jsonl"]
    assert not (root / "out/data/manifests/spectocloud_train.jsonl").exists()
    assert "only the MIDI manifests" in summary.output


def test_pairs_of_different_length_are_reported(root):
    write_mid(root / "midi/happy/t0.Mid", 1, notes=80)
    assert run(root).lengths_differ == ["happy/t0: 2 s recorded, 20 s written"]


def test_any_file_name_is_accepted(root):
    """With spaces, quotes, a newline, a leading dash, $(..)."""
    odd = ["a b", "it's", 'q"q', "new\nline", "-rf", "$(touch pwned)", "é"]
    for n, name in enumerate(odd):
        write_wav(root / "audio/happy" / f"{name}.wav", 20 + n)
        write_mid(root / "midi/happy" / f"{name}.mid", 20 + n)
    summary = run(root)
    assert summary.pairs == 9 + len(odd)
    assert not summary.quarantined
    assert not Path("pwned").exists()
