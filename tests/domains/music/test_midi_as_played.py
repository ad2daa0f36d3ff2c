"""A MIDI file is read as a synthesiser plays it: no note-on is lost or moved, and what is changed is counted."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from tests.domains.music.midi_bytes import (
    END,
    chunk,
    control,
    meta,
    metre,
    off,
    on,
    packet,
    program,
    song,
    sysex,
    tempo,
    track,
)
from training.domains.music.midi.reader import parse
from training.domains.music.midi.tokens import decode, encode

GS_RESET = sysex(0x41, 0x10, 0x42, 0x12, 0x40, 0x00, 0x7F, 0x00, 0x41)
XG_ON = sysex(0x43, 0x10, 0x4C, 0x00, 0x00, 0x7E, 0x00)
GM_ON = sysex(0x7E, 0x7F, 0x09, 0x01)


def gs_rhythm_part(part: int, kit: int, device: int = 0x10) -> bytes:
    return sysex(0x41, device, 0x42, 0x12, 0x40, 0x10 | part, 0x15, kit, 128 - (0x40 + 0x10 + part + 0x15 + kit) % 128)


def played(*events, channel=0):
    """(onset s, duration s, pitch, program, drum) of the notes of one track."""
    return rows(song(track(events)))


def rows(data):
    notes = parse(data).notes
    return [(row["onset"], row["duration"], row["pitch"], row["program"], row["drum"]) for row in notes]


# -- running status and sysex ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "between",
    [
        [(0, meta(1, b"a text\x90\x3c\xff"))],
        [(0, meta(0x59, bytes([8, 0])))],
        [(0, sysex(0x7F, 0x7F, 4, 1, 0, 96))],
        [(0, packet(b"\x41\x10" + bytes(200))), (0, packet(bytes(300), False)), (0, packet(b"\x01\xf7", False))],
        [(0, packet(b"\xf3\x01", False))],
        [(0, b"\xf8"), (0, sysex()), (0, meta(6, b""))],
    ],
    ids=["text", "key of eight sharps", "sysex", "packets", "escape", "clock, empty sysex and marker"],
)
def test_running_status_continues_after_other_events(between):
    events = [(0, on(60)), (480, b"\x3c\x00"), *between, (480, b"\x3e\x50"), (480, b"\x3e\x00")]
    assert [row[:3] for row in played(*events)] == [(0, 0.5, 60), (1.0, 0.5, 62)]


def test_running_status_of_a_program_change():
    """Its data is one byte; the next message has its status."""
    events = [(0, program(5)), (0, b"\x07"), (0, meta(1, b"x")), (240, b"\x09"), (0, on(60)), (480, b"\x3c\x00")]
    assert played(*events) == [(0.25, 0.5, 60, 9, False)]


def test_delta_times_of_all_lengths_and_of_events_that_are_not_kept():
    """Two to four bytes, with bytes that could be a status; those of texts and aftertouch count, too."""
    waits = [200, 0x3FFF, 0x2040, 0x20_0000, 0xC0_0000, 5]
    events = [(wait, event) for wait in waits for event in (meta(1, b""), b"\xd0\x05", on(60), off(60))]
    expected = np.cumsum([3 * waits[0]] + [wait + 3 * after for wait, after in pairwise(waits)])
    score = parse(song(track(events), per_quarter=32000))
    np.testing.assert_allclose(score.notes["onset"], expected / 64000)


def test_what_is_no_part_of_a_track_is_skipped_and_counted():
    notes = track([(0, on(60)), (480, off(60))])
    assert parse(song(notes)).changes["unread"] == 0
    assert parse(song(notes) + b"\0\0\0").changes["unread"] == 0
    odd = song(chunk(b"12345", b"XFIH"), notes, notes, announced=1) + b"the end"
    score = parse(odd)
    assert len(score.notes) == 2 and score.changes["unread"] == 8 + 5 + 7
    after = song(track([(0, on(60)), (480, off(60))], end=END + b"\x00" + on(61)))
    assert len(parse(after).notes) == 1 and parse(after).changes["unread"] == 3


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (song(track([]), announced=2), "EOF after 1 tracks; the header announces 2"),
        (song(chunk(b"\x00\x90\x3c")), "EOF inside an event of track 1"),
        (song(chunk(b"\x00\xff\x01\x05abc")), "EOF inside an event"),
        (song(chunk(b"\x00\xc0\x85\x00")), "above 127"),
        (song(chunk(b"\x00\x90\x3c\x40\x81\x81\x81\x81\x00\x3c\x00")), "four bytes"),
        (song(chunk(b"\x00\x90\x90\x3c\x40")), "above 127"),
        (song(chunk(b"\x00\xf4\x00")), "undefined status 0xf4"),
        (song(track([(0, on(60))]), chunk(b"\x00\x3c\x00")), "running status before any status"),
        (song(track([(0, meta(0x51, b"\x07")), (0, on(60))])), "tempo of zero, or cut short"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_the_place(data, reason):
    with pytest.raises(ValueError, match=reason):
        parse(data)


# -- strokes and notes without an end --------------------------------------------------------------------------------


def test_drum_strokes_without_note_off_are_all_kept():
    """They last a sixteenth note at most, and are counted."""
    events = [(0, on(36, channel=9)), (60, on(36, channel=9)), (420, on(38, channel=9)), (480, on(36, channel=9))]
    score = parse(song(track(events)))
    expected = [(0, 0.0625, 36), (0.0625, 0.125, 36), (0.5, 0.125, 38), (1.0, 0.125, 36)]
    assert [tuple(row) for row in score.notes[["onset", "duration", "pitch"]].tolist()] == expected
    assert (score.changes["strokes"], score.changes["endless"]) == (4, 0)


def test_two_strokes_with_one_note_off_are_two_notes():
    events = [(0, on(40, channel=9)), (480, on(40, channel=9)), (60, off(40, 9)), (420, on(40, channel=9)),
              (60, off(40, 9))]  # fmt: skip
    score = parse(song(track(events)))
    expected = [(0, 0.125), (0.5, 0.0625), (1.0, 0.0625)]
    assert [tuple(row) for row in score.notes[["onset", "duration"]].tolist()] == expected
    assert score.changes["strokes"] == 1


def test_a_note_without_an_end_lasts_to_the_next_of_its_pitch_or_to_the_end():
    """And does not shift the note-offs of the notes after it."""
    events = [(0, on(60)), (480, on(60)), (240, off(60)), (240, on(60)), (240, off(60)), (0, on(62)), (720, on(64)),
              (480, off(64)), (480, meta(1, b""))]  # fmt: skip
    score = parse(song(track(events)))
    expected = [(0, 0.5, 60), (0.5, 0.25, 60), (1.0, 0.25, 60), (1.25, 1.75, 62), (2.0, 0.5, 64)]
    assert [tuple(row) for row in score.notes[["onset", "duration", "pitch"]].tolist()] == expected
    assert score.changes["endless"] == 2


def test_overlaps_before_a_missing_note_off_keep_their_own_ends():
    events = [(0, on(60)), (240, on(60)), (240, off(60)), (240, off(60)), (240, on(60)), (480, meta(1, b""))]
    notes = parse(song(track(events))).notes
    assert [tuple(row) for row in notes[["onset", "duration"]].tolist()] == [(0, 0.5), (0.25, 0.5), (1.0, 0.5)]


def test_a_note_is_ended_in_another_track_or_by_all_notes_off():
    notes = track([(0, on(60)), (0, on(62)), (0, on(64, channel=1)), (1920, meta(1, b""))])
    ends = track([(240, off(60)), (240, control(123, 0))])
    score = parse(song(notes, ends))
    assert score.notes["duration"].tolist() == [0.25, 0.5, 2.0]
    assert score.changes["endless"] == 1


def test_a_note_off_without_a_note_is_ignored():
    events = [(0, off(60)), (480, on(60)), (480, off(60)), (0, off(60)), (480, on(60)), (480, off(60))]
    assert [row[:2] for row in played(*events)] == [(0.5, 0.5), (1.5, 0.5)]


def test_notes_of_length_zero_and_notes_longer_than_tokens_are_counted():
    events = [(0, on(60)), (0, off(60)), (0, on(62)), (20 * 1920, off(62))]
    changes = parse(song(track(events))).changes
    assert (changes["lengthened"], changes["clipped"]) == (1, 1)


# -- programs and kits -----------------------------------------------------------------------------------------------


def test_programs_go_by_channel_in_time_order_across_tracks():
    """Those of one tick track by track, as players do."""
    setup = track([(0, program(40)), (0, program(33, 1)), (960, program(73))])
    first = track([(0, on(60)), (480, off(60)), (480, on(61)), (480, off(61))])
    second = track([(0, on(50, channel=1)), (480, off(50, 1)), (480, program(0, 1)), (0, on(51, channel=1)),
                    (480, off(51, 1))])  # fmt: skip
    late = track([(960, program(20)), (0, program(21, 1))])
    programs = {row[2]: row[3] for row in rows(song(setup, first, second, late))}
    assert programs == {60: 40, 61: 73, 50: 33, 51: 0}


KITS = {
    "GS": (2, [gs_rhythm_part(3, 1)]),
    "GS, map 2, any device": (2, [gs_rhythm_part(3, 2, 0x7F)]),
    "GS, part 11": (10, [gs_rhythm_part(0xA, 1)]),
    "GS in packets": (2, [packet(gs_rhythm_part(3, 1)[2:6]), packet(gs_rhythm_part(3, 1)[6:], False)]),
    "GS, in a block": (2, [sysex(0x41, 0x10, 0x42, 0x12, 0x40, 0x13, 0x13, 1, 2, 1, 0, 0)]),
    "XG bank 127": (5, [control(0, 127, 5), control(32, 0, 5), program(25, 5)]),
    "XG bank 126": (5, [XG_ON, control(0, 126, 5), program(0, 5)]),
    "GM2 bank 120": (5, [control(0, 120, 5), program(0, 5)]),
    "XG part mode": (4, [XG_ON, sysex(0x43, 0x10, 0x4C, 8, 4, 7, 2)]),
}


@pytest.mark.parametrize(("channel", "events"), KITS.values(), ids=KITS)
def test_another_channel_may_play_a_drum_kit(channel, events):
    setup = track([(0, event) for event in events])
    for others in (range(channel), range(channel + 1, 16)):
        assert not any(drum_channels(setup, other) for other in others if other != 9)
    assert drum_channels(setup, channel)


def drum_channels(setup, channel):
    """Whether all notes of the channel are drums; they have no program then."""
    body = track([(0, on(36, channel=channel)), (240, on(38, channel=channel)), (240, off(36, channel)),
                  (240, off(38, channel))])  # fmt: skip
    notes = parse(song(setup, body)).notes
    assert len(notes) == 2 and len(set(notes["drum"].tolist())) == 1
    assert not notes["drum"].any() or not notes["program"].any()
    return bool(notes["drum"].all())


@pytest.mark.parametrize(
    ("channel", "events"),
    [
        (2, [gs_rhythm_part(3, 1), gs_rhythm_part(3, 0)]),
        (2, [gs_rhythm_part(3, 1), GM_ON]),
        (2, [GS_RESET, control(0, 127, 2), program(30, 2)]),  # a sound of the MT-32
        (2, [control(0, 127, 2), program(0, 2), control(0, 0, 2), program(30, 2)]),
        (2, [control(0, 121, 2), program(30, 2)]),  # GM2: melodic
        (9, [gs_rhythm_part(0, 0)]),
        (2, [sysex(0x41, 0x10, 0x42, 0x12, 0x40, 0x13, 0x14, 1, 0)]),  # one byte, of another address
        (2, [sysex(0x41, 0x10, 0x42, 0x11, 0x40, 0x13, 0x15, 1, 0)]),  # a request
    ],
)
def test_a_channel_without_a_kit_plays_notes(channel, events):
    assert not drum_channels(track([(0, event) for event in events]), channel)


# -- bars and tempi --------------------------------------------------------------------------------------------------

METRES = {
    "1/4 at 120": (metre(1, 2), [(0, 500_000)]),
    "1/8 at 200": (metre(1, 3), [(0, 300_000)]),
    "2/4 at 160": (metre(2, 2), [(0, 375_000)]),
    "6/4 at 30": (metre(6, 2), [(0, 2_000_000)]),
    "7/4 at 20": (metre(7, 2), [(0, 3_000_000)]),
    "4/4 at 4": (metre(4, 2), [(0, 15_000_000)]),
    "255/1 at 120": (metre(255, 0), [(0, 500_000)]),
    "4/2^16 at 120": (metre(4, 16), [(0, 500_000)]),
    "1/2^255 at 120": (metre(1, 255), [(0, 500_000)]),
    "4/4 at 600": (metre(4, 2), [(0, 100_000)]),
    "a fermata": (metre(4, 2), [(0, 500_000), (1440, 2_500_000), (1920, 500_000)]),
    "a long fermata": (metre(4, 2), [(0, 500_000), (1440, 12_000_000), (1920, 500_000)]),
}


@pytest.mark.parametrize(("written", "tempi"), METRES.values(), ids=METRES)
def test_any_metre_and_tempo_is_played_back_at_the_right_speed(written, tempi):
    conductor, now = [(0, written)], 0
    for tick, microseconds in tempi:
        conductor.append((tick - now, tempo(microseconds)))
        now = tick
    notes = [event for n in range(24) for event in ((0, on(50 + n % 7)), (240, off(50 + n % 7)))]
    score = parse(song(track(conductor), track(notes)))
    back = decode(encode(score))
    moved = np.abs(back.notes["onset"] - score.notes["onset"])
    assert (moved <= score.bars.max() / 256 + 0.125 + 0.0041 * score.notes["onset"]).all()
    assert score.changes["bars"] or score.changes["bent"]


def test_a_bar_that_is_too_short_is_joined_and_one_that_is_too_long_is_divided():
    def bars(written, quarter, quarters):
        events = [(0, written), (0, tempo(quarter)), (480 * (quarters - 1), on(60)), (480, off(60))]
        score = parse(song(track(events)))
        last = int(score.notes["bar"][0])
        return score.bars[: last + 1].tolist(), score.changes["bars"]

    assert bars(metre(1, 2), 500_000, 8) == ([1.0] * 4, 4)
    assert bars(metre(2, 2), 375_000, 8) == ([1.5] * 2, 2)
    assert bars(metre(6, 2), 2_000_000, 12) == ([6.0] * 4, 4)
    assert bars(metre(4, 2), 2_000_000, 8) == ([4.0] * 4, 4)
    assert bars(metre(4, 2), 500_000, 8) == ([2.0] * 2, 0)


def test_an_upbeat_is_joined_with_the_bar_after_it():
    events = [(0, metre(1, 2)), (480, metre(4, 2)), (0, on(60)), (480, off(60)), (1440, on(62)), (480, off(62))]
    score = parse(song(track(events)))
    assert score.bars[:2].tolist() == [2.5, 2.0]
    assert score.notes["bar"].tolist() == [0, 1] and score.notes["position"].tolist() == [0.2, 0]
    assert score.changes["bars"] == 1


def test_hours_of_short_bars_are_read():
    """Not refused for the number of bars as written."""
    score = parse(song(track([(0, metre(1, 4)), (480 * 7200, on(60)), (480, off(60))])))
    assert score.notes["onset"].tolist() == [3600.0]
