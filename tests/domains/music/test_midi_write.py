"""Writing MIDI files: 4/4 with the right bar lengths, General MIDI, atomically."""

from __future__ import annotations

from collections import Counter

import mido
import numpy as np
import pytest

from training.domains.music.midi.reader import Score, read_score, write_midi


def score_of(rows, bars=(2.0,)):
    """(onset, length, pitch, velocity, program, drum) rows, in bars."""
    columns = [np.array(column) for column in zip(*rows, strict=True)] or [np.zeros(0)] * 6
    return Score.from_bars(np.array(bars), *columns)


def heard(path):
    """(onset s, duration s, pitch, velocity, program, channel) as in a synthesiser: programs belong to channels."""
    programs, sounding, out, now = Counter(), {}, [], 0.0
    for message in mido.MidiFile(path):
        now += message.time
        if message.type == "program_change":
            programs[message.channel] = message.program
        elif message.type == "note_on" and message.velocity:
            key = (message.channel, message.note)
            sounding.setdefault(key, []).append((now, message.velocity, programs[message.channel]))
        elif message.type in ("note_on", "note_off"):
            start, velocity, program = sounding[message.channel, message.note].pop(0)
            out.append((start, now - start, message.note, velocity, program, message.channel))
    assert not any(sounding.values()), "a stuck note"
    return sorted(out)


def test_a_file_is_in_four_four_and_its_bars_have_the_right_durations(tmp_path):
    bars = [1.75, 1.75, 3.0, 1.0]
    rows = [(bar + 0.5, 0.25, 60 + bar, 64, 0, False) for bar in range(4)]
    write_midi(score_of(rows, bars), tmp_path / "a.mid")
    file = mido.MidiFile(tmp_path / "a.mid")
    metres = [(m.numerator, m.denominator) for track in file.tracks for m in track if m.type == "time_signature"]
    assert metres == [(4, 4)]
    assert [m.tempo for track in file.tracks for m in track if m.type == "set_tempo"] == [437_500, 750_000, 250_000]
    onsets = [note[0] for note in heard(tmp_path / "a.mid")]
    np.testing.assert_allclose(onsets, [0.875, 2.625, 5.0, 7.0], atol=1e-6)
    np.testing.assert_allclose(read_score(tmp_path / "a.mid").bars[:4], bars, atol=1e-6)


def test_only_drums_are_on_channel_ten(tmp_path):
    rows = [(0.0, 0.25, 36, 90, 0, True)] + [(0.0, 0.25, 60, 64, program, False) for program in range(40)]
    write_midi(score_of(rows), tmp_path / "a.mid")
    notes = heard(tmp_path / "a.mid")
    assert [note[2] for note in notes if note[5] == 9] == [36]


def test_notes_keep_their_program_if_there_are_more_programs_than_channels(tmp_path):
    rows = [(0.1 * n, 0.05, 60, 64, program, False) for n, program in enumerate([*range(0, 128, 3)] * 2)]
    write_midi(score_of(rows), tmp_path / "a.mid")
    written = [(round(note[0] / 2.0, 4), note[4]) for note in heard(tmp_path / "a.mid")]
    assert written == [(round(0.1 * n, 4), program) for n, program in enumerate([*range(0, 128, 3)] * 2)]
    assert read_score(tmp_path / "a.mid").notes["program"].tolist() == [program for _, program in written]


def test_a_note_inside_another_of_its_pitch_keeps_its_own_end(tmp_path):
    """If note-offs ended the oldest note of one track, the two would swap their ends."""
    rows = [(0.0, 1.0, 60, 100, 0, False), (0.25, 0.25, 60, 40, 0, False), (0.25, 0.5, 60, 50, 0, False)]
    rows += [(onset, length, 38, velocity, 0, True) for onset, length, _, velocity, _, _ in rows]
    write_midi(score_of(rows), tmp_path / "a.mid")
    notes = read_score(tmp_path / "a.mid").notes
    read = [tuple(row) for row in notes[["bar", "position", "length", "pitch", "velocity", "drum"]].tolist()]
    assert sorted(read) == sorted((0, o, length, p, v, d) for o, length, p, v, _, d in rows)


def test_a_repeated_note_ends_before_it_starts_again(tmp_path):
    rows = [(0.25 * n, 0.25, 60, 64, 0, False) for n in range(4)]
    write_midi(score_of(rows), tmp_path / "a.mid")
    assert [note[:2] for note in heard(tmp_path / "a.mid")] == [(0.5 * n, 0.5) for n in range(4)]
    assert len(mido.MidiFile(tmp_path / "a.mid").tracks) == 2


def test_an_empty_score_is_a_valid_file(tmp_path):
    write_midi(score_of([]), tmp_path / "new folder" / "a.mid")
    assert mido.MidiFile(tmp_path / "new folder" / "a.mid").length == 0
    assert len(read_score(tmp_path / "new folder" / "a.mid").notes) == 0


def test_a_failed_write_leaves_the_old_file_and_no_temporary_files(tmp_path, monkeypatch):
    path = tmp_path / "a.mid"
    rows = [(0.0, 0.25, 60, 64, 0, False)]
    write_midi(score_of(rows), path)
    before = path.read_bytes()

    def full_disk(self, filename=None, file=None):
        file.write(b"MThd")
        raise OSError("No space left on device")

    monkeypatch.setattr(mido.MidiFile, "save", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_midi(score_of(rows * 2), path)
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["a.mid"]


def test_the_same_score_gives_the_same_bytes(tmp_path):
    rows = [(0.5 * n % 3, 0.25, 60 + n % 5, 64, n % 3 * 8, n % 4 == 0) for n in range(50)]
    write_midi(score_of(rows), tmp_path / "a.mid")
    write_midi(score_of(rows[::-1]), tmp_path / "b.mid")
    assert (tmp_path / "a.mid").read_bytes() == (tmp_path / "b.mid").read_bytes()
