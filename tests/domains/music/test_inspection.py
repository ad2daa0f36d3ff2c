"""`inspect music` shows what is read from scores and recordings, as a table and as JSON."""

from __future__ import annotations

import json

import mido
import numpy as np
import pytest
import soundfile

from training import cli


@pytest.fixture
def shown(capsys):
    """shown(*words) -> what `inspect music --json` prints, by path."""

    def call(*words, code=0):
        assert cli.main(["inspect", "music", "--json", *map(str, words)]) == code
        return {one["path"]: one for one in json.loads(capsys.readouterr().out)}

    return call


def score(path, *tracks):
    """(channel, program, pitches) -> a track of quarter notes at 100 a minute."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = mido.MidiFile(ticks_per_beat=480)
    tempo = mido.MetaMessage("set_tempo", tempo=600_000)
    file.tracks.append(mido.MidiTrack([tempo, mido.MetaMessage("time_signature", numerator=3, denominator=4)]))
    for channel, program, pitches in tracks:
        track = mido.MidiTrack([mido.Message("program_change", channel=channel, program=program)])
        for pitch in pitches:
            track.append(mido.Message("note_on", channel=channel, note=pitch, velocity=80))
            track.append(mido.Message("note_off", channel=channel, note=pitch, time=480))
        file.tracks.append(track)
    file.save(path)
    return path


def test_a_score_is_shown_with_its_notes_by_track_and_program(shown, tmp_path):
    path = score(tmp_path / "sad" / "a.mid", (0, 33, [40, 43, 45, 47]), (9, 0, [36, 38]))
    one = shown("--midi-root", tmp_path, path)[str(path)]
    facts = one["facts"]
    assert (one["kind"], facts["notes"], facts["drum strokes"]) == ("score", 6, 2)
    assert facts["last onset (s)"] == pytest.approx(1.8) and facts["end (s)"] == pytest.approx(2.4)
    assert facts["tempo (quarters a minute)"] == "100" and facts["metre"] == "3/4"
    assert (facts["bars (as tokens have them)"], facts["a bar lasts (s)"]) == (2, "1.8")
    assert facts["emotion"].startswith("sad") and "folder 'sad'" in facts["labelled by"]
    rows = one["tables"]["notes by track and program"]
    assert [(row["track"], row["channel"], row["program"], row["instrument"], row["notes"]) for row in rows] == [
        (2, 1, 33, "bass", 4), (3, 10, None, "drums", 2),
    ]  # fmt: skip
    assert (rows[0]["lowest"], rows[0]["highest"]) == (40, 47) and one["remarks"] == []


def test_what_is_changed_in_a_score_and_what_mido_reads_otherwise_are_remarks(shown, tmp_path, monkeypatch):
    path = tmp_path / "b.mid"
    track = mido.MidiTrack([mido.Message("note_on", note=60, velocity=80), mido.Message("note_on", note=62, time=480)])
    file = mido.MidiFile()
    file.tracks.append(track)
    file.save(path)
    assert any("2 notes without an end" in remark for remark in shown(path)[str(path)]["remarks"])
    real = mido.MidiFile

    def without_the_last(*args, **options):
        read = real(*args, **options)
        read.tracks[0].pop(1)
        return read

    monkeypatch.setattr(mido, "MidiFile", without_the_last)
    assert "mido reads 1 notes, the last at 0.000 s" in shown(path)[str(path)]["remarks"]


def test_a_recording_is_shown_with_its_level_and_how_its_channels_are_mixed(shown, tmp_path):
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(3 * 22050) / 22050)
    for name, right in (("plain", wave), ("opposite", -wave)):
        soundfile.write(tmp_path / f"{name}.wav", np.stack([wave, right], axis=1), 22050, subtype="PCM_16")
    found = shown(*(tmp_path / f"{name}.wav" for name in ("plain", "opposite")))
    plain, opposite = (found[str(tmp_path / f"{name}.wav")]["facts"] for name in ("plain", "opposite"))
    assert (plain["seconds"], plain["sample rate (Hz)"], plain["channels"]) == (3.0, 22050, 2)
    assert plain["peak (dB of full scale)"] == pytest.approx(-6, abs=0.1)
    assert plain["level (dB of full scale)"] == pytest.approx(-9, abs=0.1)
    assert plain["mixed to one channel as"] == "their mean"
    assert opposite["mixed to one channel as"].startswith("half of their difference")


def test_labels_of_the_user_are_used(shown, tmp_path):
    path = score(tmp_path / "midi" / "sad" / "a.mid", (0, 0, [60]))
    labels = tmp_path / "labels.csv"
    labels.write_text("path,emotion\nsad/a.mid,happy\n")
    facts = shown("--midi-root", tmp_path / "midi", "--labels", labels, path)[str(path)]["facts"]
    assert facts["emotion"].startswith("happy") and facts["labelled by"] == "--labels"


def test_what_prepare_would_refuse_is_refused_with_the_reason(shown, tmp_path):
    (tmp_path / "a.mid").write_bytes(b"RIFF")
    (tmp_path / "a.txt").write_text("notes")
    soundfile.write(tmp_path / "a.wav", np.zeros(3 * 22050), 22050)
    found = shown(*(tmp_path / name for name in ("a.mid", "a.txt", "a.wav")), code=3)
    reasons = [one["refused"] for one in found.values()]
    assert reasons[0].startswith("not a MIDI file") and "extension" in reasons[1] and "silent" in reasons[2]
