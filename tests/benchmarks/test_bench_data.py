"""The benchmarks of data preparation and loading, on small corpora."""

import importlib.util

import mido
import numpy as np
import pytest
import soundfile

from benchmarks import __main__ as bench
from benchmarks import loading, material, scale
from benchmarks.harness import not_installed
from benchmarks.music import ingest_audio, ingest_midi
from training.domains.music.midi.tokens import encode_tokens

SUBJECTS = ("ingest_audio", "ingest_midi", "loading", "scale")


def test_the_subjects_are_registered():
    assert set(SUBJECTS) <= set(bench.SUBJECTS)
    assert all(importlib.util.find_spec(module) for module in bench.SUBJECTS.values())


def test_generated_scores_have_the_requested_notes_and_length(tmp_path):
    material.score(tmp_path / "a.mid", 1, 400, 20.0)
    file = mido.MidiFile(tmp_path / "a.mid")
    assert sum(event.type == "note_on" for track in file.tracks for event in track) == 400
    assert file.length == pytest.approx(20.0, abs=1.5)
    assert len(encode_tokens(tmp_path / "a.mid")["ids"]) > 400
    material.score(tmp_path / "b.mid", 2, 400, 20.0)
    assert (tmp_path / "a.mid").read_bytes() != (tmp_path / "b.mid").read_bytes()


def test_generated_recordings_have_the_requested_format_and_length(tmp_path):
    material.recording(tmp_path / "a.flac", 1, 2.0)
    sound, rate = soundfile.read(tmp_path / "a.flac")
    assert (rate, sound.shape) == (44100, (88200, 2))
    assert 0.01 < np.abs(sound).max() <= 1
    material.noise(tmp_path / "a.wav", 1, 2)
    assert soundfile.info(tmp_path / "a.wav").duration == 2.0


def test_every_file_is_decoded_in_every_round_of_midi():
    rows = {row.bar: row for row in ingest_midi.measure(small=True)}
    assert list(rows) == ["1a", "1b", "1c", "1d"]
    assert rows["1a"].ours == rows["1b"].reference > 0
    assert rows["1a"].reference > 0
    for bar, reference in (("1c", "pretty_midi"), ("1d", "miditok")):
        assert (rows[bar].met is None) == bool(not_installed(reference))
        assert not not_installed(reference) or "not measured" in rows[bar].note


def test_only_the_second_run_over_recordings_skips_decoding():
    rows = {row.bar: row for row in ingest_audio.measure(small=True)}
    assert list(rows) == ["2a", "2b", "2c", "2d", "2e"]
    assert rows["2e"].ours < rows["2e"].reference / 3
    assert all(row.ours > 0 and row.reference > 0 for row in rows.values())


@pytest.mark.slow
def test_loading_measures_reading_packing_and_waiting():
    reading, packing, waiting = loading.measure(small=True)
    assert reading.ratio > 1
    assert packing.ours == pytest.approx(100, abs=1)
    assert packing.reference < 30
    assert 0 <= waiting.ours <= 100


@pytest.mark.slow
def test_scale_measures_the_real_commands():
    rows = {row.bar: row for row in scale.measure(small=True)}
    assert list(rows) == ["9a", "9b", "9c", "9d", "9e", "9f", "9g"]
    assert rows["9a"].ours > 0 and 20 < rows["9b"].ours < 500
    assert rows["9d"].ours > 50 and rows["9d"].reference > 50
    assert all("exit code 0" in rows[bar].note for bar in ("9f", "9g"))


def test_a_memory_limit_is_enforced(tmp_path):
    """Otherwise a corpus larger than the limit would show nothing."""
    material.score(tmp_path / "midi/a.mid", 1, 40, 20.0)
    material.score(tmp_path / "midi/b.mid", 2, 40, 20.0)
    command = ["prepare", "--midi-root", str(tmp_path / "midi"), "--out", str(tmp_path / "out")]
    assert scale.watched(command, scale.MemoryLimit(2, "training.cli")).code != 0
    assert scale.watched(command, scale.MemoryLimit(160, "training.cli")).code == 0
