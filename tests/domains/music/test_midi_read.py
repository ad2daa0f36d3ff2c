"""Reading MIDI files: every note in the right bar and at the right second, and refusals with their reasons."""

from __future__ import annotations

import os
import random
import time
from dataclasses import replace

import mido
import numpy as np
import pytest

from tests.domains.music.midi_reference import NOTE_BODY, random_file, raw_file, slow_read
from training.domains.music.midi import reader as midi
from training.domains.music.midi.grids import Bars, TempoMap, bar_lines
from training.domains.music.midi.notes import NOTE
from training.domains.music.midi.reader import encode_notes, parse, read_score
from training.domains.music.midi.score import MAX_BARS

Message, Meta = mido.Message, mido.MetaMessage


def save(path, *tracks, per_quarter=480):
    file = mido.MidiFile(type=1, ticks_per_beat=per_quarter)
    file.tracks.extend(mido.MidiTrack(track) for track in tracks)
    file.save(path)
    return path


def note(pitch=60, start=0, length=480, channel=0, velocity=64):
    return [
        Message("note_on", channel=channel, note=pitch, velocity=velocity, time=start),
        Message("note_off", channel=channel, note=pitch, time=length),
    ]


@pytest.mark.parametrize("seed", range(160))
def test_every_field_of_every_note_equals_the_reference_readers(tmp_path, seed):
    """The reference reader is slow and uses exact fractions. It has the bars as written, so that positions are compared
    in files whose bars are kept."""
    path = tmp_path / "random.mid"
    random_file(seed, path)
    expected, as_written = slow_read(path)
    score = read_score(path)
    notes = score.notes
    assert len(notes) == len(expected)
    for column, name in enumerate(["bar", "position", "length", "onset", "duration", "pitch", "velocity"]):
        if as_written or name in ("onset", "pitch", "velocity"):
            np.testing.assert_allclose(
                notes[name], [float(row[column]) for row in expected], rtol=1e-9, atol=1e-9, err_msg=name
            )
    assert notes["program"].tolist() == [row[7] for row in expected]
    assert notes["drum"].tolist() == [row[8] for row in expected]
    if as_written:
        assert not score.changes["bars"] and not score.changes["bent"]
    if len(notes):
        assert_bars_fit(score)


def assert_bars_fit(score):
    """Every bar up to the last onset has a length that tokens represent, and gives its notes their times."""
    last = int(score.notes["bar"].max())
    assert score.bars[: last + 1].min() >= 0.996 and score.bars[: last + 1].max() <= 6.024
    on_bars = score.bar_starts[score.notes["bar"]] + score.notes["position"] * score.bars[score.notes["bar"]]
    np.testing.assert_allclose(on_bars, score.notes["onset"], atol=0.125 + 1e-6)


def test_seconds_come_from_every_tempo_change(tmp_path):
    """Not only from the first one."""
    tempi = [Meta("set_tempo", tempo=500_000), Meta("set_tempo", tempo=1_000_000, time=960)]
    path = save(tmp_path / "a.mid", tempi, note(60, 0) + note(62, 960, 240))
    score = read_score(path)
    assert score.seconds()["onset"].tolist() == [0.0, 1.0 + 1.0]
    assert score.seconds()["duration"].tolist() == [0.5, 0.5]
    assert score.bars[0] == pytest.approx(0.5 * 2 + 1.0 * 2)  # the change is inside the bar


def test_the_denominator_of_a_metre_is_used(tmp_path):
    """A bar of 7/8 has seven eighths, one of 3/2 three halves, and each change starts a bar."""
    metres = [
        Meta("time_signature", numerator=7, denominator=8),
        Meta("time_signature", numerator=3, denominator=2, time=7 * 240 * 2),
    ]
    path = save(tmp_path / "a.mid", metres, note(60, 7 * 240 + 120, 240) + note(64, 7 * 240 - 360 + 1440, 10))
    notes, bars = read_score(path).notes, read_score(path).bars
    assert notes["bar"].tolist() == [1, 2]
    assert notes["position"].tolist() == [120 / (7 * 240), 1440 / (6 * 480)]
    np.testing.assert_allclose(bars[:3], [1.75, 1.75, 3.0])


def test_a_metre_change_inside_a_bar_cuts_it_but_a_rounding_of_one_tick_does_not(tmp_path):
    cut = [Meta("time_signature", numerator=2, denominator=4), Meta("time_signature", numerator=4, time=960)]
    score = read_score(save(tmp_path / "pickup.mid", cut, note() + note(62, 480)))
    assert score.notes["bar"].tolist() == [0, 1]
    late = [Meta("time_signature", numerator=4), Meta("time_signature", numerator=3, time=1921)]
    score = read_score(save(tmp_path / "late.mid", late, note() + note(62, 1921 - 480)))
    assert score.notes["bar"].tolist() == [0, 1]
    assert score.bars[:2] == pytest.approx([1921 / 960, 1.5])


def test_of_several_tempi_at_one_tick_the_last_in_the_file_is_used(tmp_path):
    """An unstable sort would lose the order, which shows with forty at one tick."""
    tempi = [Meta("set_tempo", tempo=300_000 + n, time=0) for n in range(40)] + [Meta("set_tempo", tempo=750_000)]
    assert read_score(save(tmp_path / "a.mid", tempi, note())).bars[0] == pytest.approx(3.0)


def test_a_note_has_the_program_in_force_at_its_note_on(tmp_path):
    track = [
        Message("program_change", program=40),
        Message("note_on", note=60, velocity=50),
        Message("program_change", program=73, time=100),
        Message("note_on", note=62, velocity=50),
        Message("note_off", note=60, time=100),
        Message("note_off", note=62, time=100),
    ]
    notes = read_score(save(tmp_path / "a.mid", track)).notes
    assert dict(zip(notes["pitch"].tolist(), notes["program"].tolist(), strict=True)) == {60: 40, 62: 73}


def test_drums_are_channel_ten_whatever_their_program(tmp_path):
    track = [Message("program_change", channel=9, program=25), *note(36, channel=9), *note(36, channel=8)]
    notes = read_score(save(tmp_path / "a.mid", track)).notes
    assert sorted(zip(notes["drum"].tolist(), notes["program"].tolist(), strict=True)) == [(False, 0), (True, 0)]


def test_overlapping_notes_of_one_pitch_keep_both_onsets(tmp_path):
    on, off = Message("note_on", note=60, velocity=50), Message("note_off", note=60)
    track = [on, on.copy(time=480), off.copy(time=480), off.copy(time=480)]
    notes = read_score(save(tmp_path / "a.mid", track)).notes
    assert notes["onset"].tolist() == [0.0, 0.5]
    assert notes["duration"].tolist() == [1.0, 1.0]


def test_a_note_of_length_zero_lasts_a_128th_of_its_bar(tmp_path):
    notes = read_score(save(tmp_path / "a.mid", note(60, 0, 0) + note(60, 480))).notes
    assert notes["duration"].tolist() == [2.0 / 128, 0.5]
    assert notes["length"][0] == 1 / 128


def test_notes_in_seconds_are_sorted_and_typed(tmp_path):
    path = save(tmp_path / "a.mid", note(70) + note(50), note(60, channel=1), [*note(40, channel=9)])
    stored = encode_notes(path)["notes"]
    assert stored.dtype == NOTE
    assert stored["pitch"].tolist() == [40, 60, 70, 50]


@pytest.mark.parametrize(
    ("division", "second"),
    [(1, 0.5), (480, 0.5 / 480), (0xE250, 1 / (30 * 80)), (0xE728, 1 / (25 * 40)), (0xE304, 1.001 / (30 * 4))],
)
def test_time_bases(division, second):
    """One tick per quarter, and SMPTE, where the length of a tick does not depend on the tempo."""
    body = NOTE_BODY if division < 0x8000 else bytes([0, 0xFF, 0x51, 3, 1, 1, 1]) + NOTE_BODY
    assert parse(raw_file(body, division)).notes["duration"][0] == pytest.approx(16 * second)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"RIFF and more that is no MIDI", "not a MIDI file"),
        (b"MThd", "not a MIDI file"),
        (raw_file(NOTE_BODY, division=0), "0 ticks"),
        (raw_file(NOTE_BODY, division=0xFF00), "SMPTE"),
        (raw_file(NOTE_BODY, form=2), "format 2"),
        (raw_file(NOTE_BODY, form=9), "format"),
        (raw_file(NOTE_BODY[:3]), "malformed.*EOF"),
        (raw_file(NOTE_BODY, length=2**31), "malformed.*length"),
        (raw_file(bytes([0, 60, 64]) + NOTE_BODY), "malformed.*running status"),
        (raw_file(bytes([0, 0x90, 60, 200]) + NOTE_BODY), "malformed"),
        (raw_file(bytes([0, 0xFF, 0x51, 3, 0, 0, 0]) + NOTE_BODY), "tempo of zero"),
        (raw_file(bytes([0, 0xFF, 0x58, 4, 0, 2, 24, 8]) + NOTE_BODY), "time signature of zero"),
        (raw_file(bytes([0xFF, 0xFF, 0xFF, 0x7F, 0x90, 60, 64, 1, 0x80, 60, 0])), "hours|bars"),
        (raw_file(bytes([0xFF, 0xFF, 0xFF, 0x7F, 0x90, 60, 64, 1, 0x80, 60, 0]) * 9), r"2\^31 ticks"),
        (raw_file(bytes([0xFF, 0xFF, 0xFF, 0x7F, *NOTE_BODY[1:]]), division=1), "hours|bars"),
        (raw_file(bytes([0x82, 0x80, 0, *NOTE_BODY[1:]]), division=1), "8,192 bars"),
    ],
)
def test_an_unreadable_file_is_refused_with_its_reason(tmp_path, data, reason):
    path = tmp_path / "bad.mid"
    path.write_bytes(data)
    started = time.process_time()
    with pytest.raises(ValueError, match=reason):
        read_score(path)
    assert time.process_time() - started < 1


def test_a_note_held_for_days_is_cut_nine_bars_after_the_last_onset():
    """2^28 ticks cause neither a huge allocation nor a long loop."""
    score = parse(raw_file(bytes([0, 0x90, 60, 64, 0xFF, 0xFF, 0xFF, 0x7F, 0x80, 60, 0]), division=1))
    assert score.notes["length"].tolist() == [10.0]
    assert len(score.bars) == 10


def test_max_bars_are_read_and_not_more():
    def at_bar(bar):
        tick = bar * 4
        delta = bytes([0x80 | tick >> 14 & 127, 0x80 | tick >> 7 & 127, tick & 127])
        return parse(raw_file(delta + bytes([0x90, 60, 64, 1, 0x80, 60, 0]), division=1))

    assert at_bar(MAX_BARS - 1).notes["bar"].tolist() == [MAX_BARS - 1]
    with pytest.raises(ValueError, match="bars"):
        at_bar(MAX_BARS)


def test_two_million_events_are_read_in_seconds():
    """A slower parser took 45 s for such a file."""
    body = np.tile(np.array([0, 0x90, 60, 64, 1, 0x80, 60, 0], np.uint8), 1_000_000).tobytes()
    started = time.process_time()
    assert len(parse(raw_file(body)).notes) == 1_000_000
    assert time.process_time() - started < 15


def test_a_damaged_file_gives_a_valid_score_or_a_reason(tmp_path):
    """Two thousand damaged files."""
    rng = random.Random(5)
    random_file(11, tmp_path / "intact.mid")
    intact = (tmp_path / "intact.mid").read_bytes()
    outcomes = set()
    for _ in range(2000):
        data = bytearray(intact)
        for _ in range(rng.randint(1, 5)):
            at = rng.randrange(len(data)) if rng.random() < 0.9 else rng.randrange(min(14, len(data)))
            data[at : at + rng.choice([0, 1, 1, 1, 3])] = rng.randbytes(rng.choice([0, 1, 1, 1, 3]))
        try:
            score = parse(bytes(data))
        except ValueError as error:
            assert str(error)
            outcomes.add("refused")
            continue
        outcomes.add("read")
        assert np.isfinite(score.bars).all() and (score.bars > 0).all()
        assert (score.notes["duration"] > 0).all() and (score.notes["length"] > 0).all()
        assert (score.notes["position"] >= 0).all() and (score.notes["position"] < 1).all()
        assert (score.notes["velocity"] > 0).all()
    assert outcomes == {"read", "refused"}


def test_a_pipe_or_a_folder_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.mid")
    for name in ("pipe.mid", ".", "missing.mid"):
        with pytest.raises(ValueError, match="not a regular file"):
            read_score(tmp_path / name)


def test_a_huge_file_is_refused_without_reading_it(tmp_path):
    with (tmp_path / "huge.mid").open("wb") as handle:
        handle.truncate(midi.MAX_BYTES + 1)
    with pytest.raises(ValueError, match="too large"):
        read_score(tmp_path / "huge.mid")


def test_a_file_without_notes_is_an_empty_score_and_is_not_stored(tmp_path):
    path = save(tmp_path / "a.mid", [Meta("set_tempo", tempo=400_000)])
    assert len(read_score(path).notes) == 0
    with pytest.raises(ValueError, match="no notes"):
        encode_notes(path)


@pytest.mark.parametrize("seed", range(40))
def test_bars_found_by_division_equal_those_found_by_search(seed):
    """In a piece with one metre a division replaces the search: exactly, on and next to the bar lines."""
    rng = random.Random(seed)
    per_quarter = rng.choice([1, 24, 96, 480, 960, 32767])
    numerator, denominator = rng.choice([(4, 4), (7, 8), (3, 128), (255, 64), (1, 1)])
    metre = [np.array([value]) for value in (0, numerator, denominator)]
    width = 4.0 * per_quarter * numerator / denominator
    last = int(width * rng.choice([3, 100, 8000]))
    tempo = TempoMap.of(np.array([0]), np.array([2e6 * per_quarter / width]), per_quarter)  # bars of two seconds
    lines, changed = bar_lines(metre, per_quarter, last, tempo)
    assert not changed
    ticks = np.array([rng.randrange(last + 1) for _ in range(500)])
    ticks = np.unique(np.concatenate([ticks, np.floor(lines), np.ceil(lines)]).astype(np.int64))
    ticks = ticks[ticks < lines[-1]]
    ends = np.concatenate([ticks[ticks > 0], lines[1:], lines[:-1] + width / 128])
    divided = Bars.of(lines)
    searched = replace(divided, even=False)
    assert divided.even
    np.testing.assert_array_equal(divided.holding(ticks), searched.holding(ticks))
    np.testing.assert_array_equal(divided.ending(ends), searched.ending(ends))
